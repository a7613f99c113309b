/** What the main thread and the worker tell each other. */
import type { MessagePort } from 'node:worker_threads';
import type { DataPlaneEvent, Listen, SocketAddress } from '../data-plane.js';

/** What the worker begins with. */
export interface Beginning {
  readonly nodeKey: Uint8Array;
  /** 32 secret random bytes. */
  readonly seed: Uint8Array;
  readonly listen: readonly Listen[];
  /** One word: the worker raises it by one, and wakes who waits there, whenever it has put counters into `counters`. */
  readonly told: SharedArrayBuffer;
  readonly counters: MessagePort;
}

/** A method of `DataPlane`, with its arguments in one object. */
export interface PlaneOrder {
  readonly name: string;
  readonly parameters: object;
}

export type ToWorker =
  | { readonly type: 'orders'; readonly orders: readonly PlaneOrder[] }
  /** Counters are wanted, now. */
  | { readonly type: 'stats' }
  /** A batch of events has been heard. */
  | { readonly type: 'heard' }
  | { readonly type: 'close' };

export type FromWorker =
  | { readonly type: 'open'; readonly sockets: readonly SocketAddress[] }
  | { readonly type: 'failed'; readonly code: string; readonly message: string }
  | { readonly type: 'events'; readonly events: readonly DataPlaneEvent[] };
