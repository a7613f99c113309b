/** UDP ports that the main thread has open. */
import type { HostEvent } from '../../userspace.js';
import type { Call, WasmHost } from '../bindings.js';

const MOST = 4_096;
/** Far ends of one port that are remembered at once. */
const PEERS = 256;

interface Port {
  readonly number: number;
  readonly own: string;
  readonly port: number;
  /** The module's numbers of its flows, by peer. */
  readonly flows: Map<string, number>;
}

interface Flow {
  readonly port: Port;
  readonly peer: string;
  readonly peerPort: number;
}

export class Ports {
  readonly #host: WasmHost;
  readonly #tell: (event: HostEvent) => void;
  readonly #ports = new Map<number, Port>();
  readonly #byOwn = new Map<string, Port>();
  readonly #byFlow = new Map<number, Flow>();

  constructor(host: WasmHost, tell: (event: HostEvent) => void) {
    this.#host = host;
    this.#tell = tell;
  }

  get size(): number {
    return this.#ports.size;
  }

  open(number: number, own: string): void {
    const port = this.#ports.size < MOST ? this.#host.openDatagrams(own) : undefined;
    if (port === undefined) return;
    const opened = { number, own, port, flows: new Map<string, number>() };
    this.#ports.set(number, opened);
    this.#byOwn.set(`${own} ${port}`, opened);
  }

  send(number: number, peer: string, peerPort: number, bytes: Uint8Array): void {
    const port = this.#ports.get(number);
    if (port === undefined) return;
    const flow = port.flows.get(`${peer} ${peerPort}`) ?? this.#host.flowOf(port.own, port.port, peer, peerPort);
    if (flow === undefined) return;
    if (!this.#byFlow.has(flow)) this.#keep(flow, { port, peer, peerPort });
    this.#host.sendDatagram(flow, bytes);
  }

  /** Whether datagrams of this flow are for one of these; tells them. The bytes are copies. */
  receive(number: number, datagrams: () => Iterable<Uint8Array>): boolean {
    const flow = this.#byFlow.get(number);
    if (flow === undefined) return false;
    const { port, peer, peerPort } = flow;
    for (const bytes of datagrams()) this.#tell({ type: 'datagram', port: port.number, peer, peerPort, bytes });
    return true;
  }

  /** Whether a new flow is to one of these. */
  adopt(number: number, { own, ownPort, peer, peerPort }: Call): boolean {
    const port = this.#byOwn.get(`${own} ${ownPort}`);
    if (port === undefined) return false;
    this.#keep(number, { port, peer, peerPort });
    return true;
  }

  close(number: number): void {
    const port = this.#ports.get(number);
    if (port === undefined) return;
    this.#forget(port);
    this.#ports.delete(number);
    this.#byOwn.delete(`${port.own} ${port.port}`);
    this.#host.closeDatagrams(port.own, port.port);
  }

  #keep(number: number, flow: Flow): void {
    const { port, peer, peerPort } = flow;
    if (port.flows.size >= PEERS) this.#forget(port);
    port.flows.set(`${peer} ${peerPort}`, number);
    this.#byFlow.set(number, flow);
  }

  #forget({ flows }: Port): void {
    for (const number of flows.values()) {
      this.#byFlow.delete(number);
      this.#host.forgetFlow(number);
    }
    flows.clear();
  }
}
