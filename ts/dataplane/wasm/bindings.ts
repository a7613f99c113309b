/** What the WASM module exports of its data plane (wasm/src/plane), as its shell there documents it. */
import type { DataPlaneEvent, DataPlaneStats } from '../data-plane.js';

/** An address at the far side of a socket of ours. */
export interface Remote {
  readonly socket: number;
  readonly host: string;
  readonly port: number;
}

/** A caller's stream, or flow of datagrams. */
export interface Call {
  readonly own: string;
  readonly ownPort: number;
  readonly peer: string;
  readonly peerPort: number;
  /** Undefined: policy has none. Port 0: the program itself. */
  readonly service?: { readonly session: number; readonly account: number; readonly host: string; readonly port: number };
}

/** What happened to a stream: the first of an event's three words. */
export const hostEvent = { incoming: 1, connected: 2, readable: 3, writable: 4, finished: 5, closed: 6 } as const;
/** Words of an event: what, which stream, why. */
export const HOST_EVENT_WORDS = 3;

/** What is done with streams and datagrams of user-space mode. */
export interface WasmHost {
  readonly hostTable: number;
  readonly datagramsAt: number;
  readonly datagramsLength: number;
  readonly datagramsSegment: number;
  turn(now: number): boolean;
  hostEvents(): number;
  connect(now: number, own: string, peer: string, port: number): number | undefined;
  caller(stream: number): Call | undefined;
  accept(stream: number): boolean;
  abort(stream: number): void;
  unreachable(stream: number): void;
  read(stream: number, most: number): Uint8Array<ArrayBuffer>;
  isReadOut(stream: number): boolean;
  room(stream: number): number;
  write(stream: number, bytes: Uint8Array): number;
  finish(stream: number): void;
  flowOf(own: string, ownPort: number, peer: string, peerPort: number): number | undefined;
  flow(number: number): Call | undefined;
  forgetFlow(number: number): void;
  nextDatagrams(): number | undefined;
  sendDatagram(flow: number, bytes: Uint8Array): void;
  refuseDatagram(flow: number): void;
  openDatagrams(own: string): number | undefined;
  closeDatagrams(own: string, port: number): void;
  hostStats(): { readonly streams: number; readonly buffered: number };
}

/** Times are whole microseconds, from 1,000,000 on; places are bytes of the module's memory. */
export interface WasmPlane extends WasmHost {
  readonly input: number;
  readonly inputRoom: number;
  readonly index: number;
  readonly indexRoom: number;
  readonly table: number;
  intern(socket: number, host: string, port: number): number | undefined;
  address(number: number): Remote | undefined;
  forgetAddresses(): void;
  command(now: number, name: string, parameters: object): void;
  receive(now: number, count: number): void;
  handleTimeout(now: number): void;
  pollTimeout(): number;
  ready(): number;
  sent(lost: number): void;
  log(level: string, message: string): void;
  takeEvents(most: number): DataPlaneEvent[];
  stats(now: number): DataPlaneStats;
}

export interface PlaneModule {
  version(): string;
  planeMemory(): { readonly buffer: ArrayBuffer };
  /** `budget`: bytes for user-space mode's buffers; 0 without it. */
  WasmPlane: new (
    nodeKey: Uint8Array,
    seed: Uint8Array,
    listening: boolean,
    budget: number,
  ) => WasmPlane;
}
