/** User-space mode: what the module's TCP/IP host has to do with this machine's sockets, and with the main thread. */
import type { SessionId } from '../../data-plane.js';
import type { HostEvent, StreamEnd, UserSpaceStats } from '../../userspace.js';
import { HOST_EVENT_WORDS, hostEvent, type WasmHost } from '../bindings.js';
import type { HostOrder } from '../protocol.js';
import { Devices } from './devices.js';
import { Flows } from './flows.js';
import { Ports } from './ports.js';
import { Streams } from './streams.js';

/** Events that wait for the main thread: with more, datagrams are lost. What streams tell is bounded by what was asked for. */
const WAITING = 4_096;
/** As the module numbers them. */
const ENDS: readonly StreamEnd[] = ['done', 'refused', 'reset', 'timedOut', 'unreachable'];

export class User {
  readonly #host: WasmHost;
  readonly #memory: { readonly buffer: ArrayBuffer };
  readonly #streams: Streams;
  readonly #devices: Devices;
  readonly #flows: Flows;
  readonly #ports: Ports;
  #told: HostEvent[] = [];

  /** `stir`: something was done to the host outside of these calls. */
  constructor(host: WasmHost, memory: { readonly buffer: ArrayBuffer }, stir: () => void) {
    this.#host = host;
    this.#memory = memory;
    this.#streams = new Streams(host, (event) => this.#told.push(event));
    this.#ports = new Ports(host, (event) => {
      if (this.#told.length < WAITING) this.#told.push(event);
    });
    this.#devices = new Devices(host, stir);
    this.#flows = new Flows(host, stir);
  }

  /** Throws for an address that is none. */
  order(now: number, order: HostOrder): void {
    switch (order.type) {
      case 'streamDial':
        return this.#streams.dial(now, order.stream, order.own, order.peer, order.port);
      case 'streamWrite':
        return this.#streams.write(order.stream, order.bytes);
      case 'streamRead':
        return this.#streams.read(order.stream, order.bytes);
      case 'streamFinish':
        return this.#streams.finish(order.stream);
      case 'streamAbort':
        return this.#streams.abort(order.stream);
      case 'datagramsOpen':
        return this.#ports.open(order.port, order.own);
      case 'datagramsSend':
        return this.#ports.send(order.port, order.peer, order.peerPort, order.bytes);
      case 'datagramsClose':
        return this.#ports.close(order.port);
    }
  }

  /** Serves all that happened; whether something did. */
  serve(): boolean {
    const datagrams = this.#serveDatagrams();
    const count = this.#host.hostEvents();
    if (count === 0) return datagrams;
    // A copy: what is done meanwhile may move the memory.
    const words = new Uint32Array(this.#memory.buffer, this.#host.hostTable, count * HOST_EVENT_WORDS).slice();
    for (let at = 0; at < words.length; at += HOST_EVENT_WORDS) this.#serve(words[at] ?? 0, words[at + 1] ?? 0, words[at + 2] ?? 0);
    return true;
  }

  takeEvents(most: number): HostEvent[] {
    return this.#told.splice(0, most);
  }

  stats(): UserSpaceStats {
    const { streams, buffered } = this.#host.hostStats();
    return { streams, datagrams: this.#flows.size + this.#ports.size, buffered, refused: this.#streams.refused + this.#devices.refused };
  }

  close(): void {
    this.#devices.close();
    this.#flows.close();
  }

  #serve(what: number, stream: number, why: number): void {
    const [streams, devices] = [this.#streams, this.#devices];
    switch (what) {
      case hostEvent.incoming:
        return this.#incoming(stream);
      case hostEvent.connected:
        // For a device's stream: the caller knows that it was answered, so what the device said meanwhile can go.
        if (!streams.connected(stream)) devices.writable(stream);
        return;
      case hostEvent.readable:
        if (!streams.readable(stream)) devices.readable(stream);
        return;
      case hostEvent.writable:
        if (!streams.writable(stream)) devices.writable(stream);
        return;
      case hostEvent.finished:
        if (!streams.finished(stream)) devices.finished(stream);
        return;
      case hostEvent.closed: {
        const end = ENDS[why] ?? 'reset';
        if (!streams.closed(stream, end)) devices.closed(stream, end);
      }
    }
  }

  #incoming(stream: number): void {
    const call = this.#host.caller(stream);
    const { service } = call ?? {};
    if (call === undefined || service === undefined) {
      this.#host.abort(stream);
      return;
    }
    if (service.port !== 0) {
      this.#devices.call(stream, service);
      return;
    }
    if (!this.#host.accept(stream)) return;
    const { peer, peerPort } = call;
    const { session, account } = service;
    const number = this.#streams.incoming(stream);
    this.#told.push({ type: 'streamIncoming', stream: number, session: session as SessionId, account, peer, peerPort });
  }

  #serveDatagrams(): boolean {
    let some = false;
    for (let flow = this.#host.nextDatagrams(); flow !== undefined; flow = this.#host.nextDatagrams()) {
      some = true;
      if (this.#flows.has(flow)) {
        for (const bytes of this.#datagrams(false)) this.#flows.send(flow, bytes);
        continue;
      }
      if (this.#ports.receive(flow, () => this.#datagrams(true))) continue;
      const call = this.#host.flow(flow);
      if (call !== undefined && this.#ports.adopt(flow, call)) {
        this.#ports.receive(flow, () => this.#datagrams(true));
      } else if (call?.service !== undefined && call.service.port !== 0 && this.#flows.open(flow, call.own, call.peer, call.service)) {
        for (const bytes of this.#datagrams(false)) this.#flows.send(flow, bytes);
      } else {
        this.#host.forgetFlow(flow);
      }
    }
    return some;
  }

  /** Those that were taken last: copies, or views of the module's memory. */
  *#datagrams(copies: boolean): Iterable<Uint8Array> {
    const { datagramsAt: at, datagramsLength: length, datagramsSegment: segment } = this.#host;
    const all = new Uint8Array(this.#memory.buffer, at, length);
    // An empty one comes alone.
    for (let from = 0; from === 0 || from < length; from += segment) {
      const end = Math.min(from + segment, length);
      yield copies ? all.slice(from, end) : all.subarray(from, end);
    }
  }
}
