/** What the main thread and the worker tell each other. */
import type { MessagePort } from 'node:worker_threads';
import type { DataPlaneEvent, Listen, SocketAddress } from '../data-plane.js';
import type { HostEvent } from '../userspace.js';

/** What the worker begins with. */
export interface Beginning {
  readonly nodeKey: Uint8Array;
  /** 32 secret random bytes. */
  readonly seed: Uint8Array;
  readonly listen: readonly Listen[];
  /** Bytes for user-space mode's buffers; 0 without it. */
  readonly budget: number;
  /** One word: the worker raises it by one, and wakes who waits there, whenever it has put counters into `counters`. */
  readonly told: SharedArrayBuffer;
  readonly counters: MessagePort;
}

/** A method of `DataPlane`, with its arguments in one object. */
export interface PlaneOrder {
  readonly name: string;
  readonly parameters: object;
}

/** A method of `HostOrders`. */
export type HostOrder =
  | { readonly type: 'streamDial'; readonly stream: number; readonly own: string; readonly peer: string; readonly port: number }
  | { readonly type: 'streamWrite'; readonly stream: number; readonly bytes: Uint8Array }
  | { readonly type: 'streamRead'; readonly stream: number; readonly bytes: number }
  | { readonly type: 'streamFinish' | 'streamAbort'; readonly stream: number }
  | { readonly type: 'datagramsOpen'; readonly port: number; readonly own: string }
  | { readonly type: 'datagramsSend'; readonly port: number; readonly peer: string; readonly peerPort: number; readonly bytes: Uint8Array }
  | { readonly type: 'datagramsClose'; readonly port: number };

export type Order = PlaneOrder | HostOrder;

export type ToWorker =
  | { readonly type: 'orders'; readonly orders: readonly Order[] }
  /** Counters are wanted, now. */
  | { readonly type: 'stats' }
  /** A batch of events has been heard. */
  | { readonly type: 'heard' }
  | { readonly type: 'close' };

export type FromWorker =
  | { readonly type: 'open'; readonly sockets: readonly SocketAddress[] }
  | { readonly type: 'failed'; readonly code: string; readonly message: string }
  | { readonly type: 'events'; readonly events: readonly (DataPlaneEvent | HostEvent)[] };
