/** UDP of callers to devices: a connected socket for each flow, so that a device's answers, and its host's refusals, find their caller. */
import { createSocket, type Socket } from 'node:dgram';
import { isIPv4 } from 'node:net';
import type { WasmHost } from '../bindings.js';
import type { Target } from './devices.js';

/** Flows in all, and of one caller to one endpoint. */
const MOST = 4_096;
const PER_PAIR = 256;
/** A flow ends when nothing has passed for so long; and once the device has answered, for so long (as the kernel's conntrack does it). */
const UNANSWERED_MS = 60_000;
const ANSWERED_MS = 180_000;
const SWEEP_MS = 5_000;
/** Bytes that may wait in Node.js for the system to take them. */
const WAITING = 256 * 1_024;

class Flow {
  readonly socket: Socket;
  readonly pair: string;
  connected = false;
  /** Until it is connected, which takes no time with an address. */
  early: Buffer[] = [];
  answered = false;
  last: number;

  constructor(socket: Socket, pair: string, last: number) {
    this.socket = socket;
    this.pair = pair;
    this.last = last;
  }
}

export class Flows {
  readonly #host: WasmHost;
  readonly #stir: () => void;
  /** By the module's numbers. */
  readonly #flows = new Map<number, Flow>();
  readonly #ofPair = new Map<string, number>();
  readonly #sweep: NodeJS.Timeout;

  constructor(host: WasmHost, stir: () => void) {
    this.#host = host;
    this.#stir = stir;
    this.#sweep = setInterval(() => this.#expire(performance.now()), SWEEP_MS);
  }

  get size(): number {
    return this.#flows.size;
  }

  has(number: number): boolean {
    return this.#flows.has(number);
  }

  /** Opens the flow of this number; `false`: there are too many. */
  open(number: number, own: string, peer: string, target: Target): boolean {
    const pair = `${own} ${peer}`;
    const count = this.#ofPair.get(pair) ?? 0;
    if (this.#flows.size >= MOST || count >= PER_PAIR) return false;
    this.#ofPair.set(pair, count + 1);
    const socket = createSocket(isIPv4(target.host) ? 'udp4' : 'udp6');
    const flow = new Flow(socket, pair, performance.now());
    this.#flows.set(number, flow);
    socket.on('message', (bytes) => {
      if (this.#flows.get(number) !== flow) return;
      flow.answered = true;
      flow.last = performance.now();
      this.#host.sendDatagram(number, bytes);
      this.#stir();
    });
    socket.on('error', ({ code }: NodeJS.ErrnoException) => this.#failed(number, flow, code));
    socket.connect(target.port, target.host, () => {
      flow.connected = true;
      for (const bytes of flow.early) this.#send(number, flow, bytes);
      flow.early = [];
    });
    return true;
  }

  /** Sends a caller's datagram to its device. `bytes` may change afterwards. */
  send(number: number, bytes: Uint8Array): void {
    const flow = this.#flows.get(number);
    if (flow === undefined) return;
    flow.last = performance.now();
    const copy = Buffer.from(bytes);
    if (flow.connected) this.#send(number, flow, copy);
    else if (flow.early.length < 64) flow.early.push(copy);
  }

  close(): void {
    clearInterval(this.#sweep);
    for (const [number, flow] of [...this.#flows]) this.#end(number, flow);
  }

  #send(number: number, flow: Flow, bytes: Buffer): void {
    if (flow.socket.getSendQueueSize() > WAITING) return;
    flow.socket.send(bytes, (error) => {
      if (error !== null) this.#failed(number, flow, (error as NodeJS.ErrnoException).code);
    });
  }

  #failed(number: number, flow: Flow, code: string | undefined): void {
    if (this.#flows.get(number) !== flow) return;
    if (code === 'ECONNREFUSED') {
      this.#host.refuseDatagram(number);
      this.#stir();
    }
    // Never connected: the next datagram tries again.
    if (!flow.connected) this.#end(number, flow);
  }

  #expire(now: number): void {
    for (const [number, flow] of this.#flows) {
      if (now - flow.last >= (flow.answered ? ANSWERED_MS : UNANSWERED_MS)) this.#end(number, flow);
    }
  }

  #end(number: number, flow: Flow): void {
    this.#flows.delete(number);
    this.#host.forgetFlow(number);
    const count = (this.#ofPair.get(flow.pair) ?? 1) - 1;
    if (count === 0) this.#ofPair.delete(flow.pair);
    else this.#ofPair.set(flow.pair, count);
    flow.socket.close();
  }
}
