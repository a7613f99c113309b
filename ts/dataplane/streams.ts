/** Streams and datagrams of user-space mode as Node.js knows them, made of a shell's orders and events. */
import type { Socket } from 'node:net';
import { Duplex } from 'node:stream';
import type { DataPlaneEvent } from './data-plane.js';
import { join } from './join.js';
import {
  type Datagrams,
  type HostEvent,
  type HostOrders,
  type OnDatagram,
  type Splice,
  type StreamAddress,
  type StreamEnd,
  StreamError,
  type UserSpace,
} from './userspace.js';

/** Bytes that wait in JavaScript, at most, each way; and as many again may be on their way here. */
const WINDOW = 64 * 1_024;

type Done = (error?: Error | null) => void;

class HostStream extends Duplex {
  readonly #orders: HostOrders;
  readonly #id: number;
  readonly #gone: () => void;
  #connected: boolean;
  /** What was to be done before it was connected. */
  #waiting: (() => void) | undefined;
  #written: Done | undefined;
  /** Bytes that the shell may still tell of. */
  #granted = 0;
  /** The shell has forgotten it, or goes on with it alone. */
  #over = false;

  constructor(orders: HostOrders, id: number, connected: boolean, gone: () => void) {
    super({ allowHalfOpen: true, readableHighWaterMark: WINDOW, writableHighWaterMark: WINDOW });
    this.#orders = orders;
    this.#id = id;
    this.#connected = connected;
    this.#gone = gone;
  }

  get number(): number {
    return this.#id;
  }

  connected(): void {
    this.#connected = true;
    const waiting = this.#waiting;
    this.#waiting = undefined;
    this.emit('connect');
    waiting?.();
  }

  data(bytes: Uint8Array): void {
    this.#granted -= bytes.length;
    this.push(bytes);
  }

  written(): void {
    const done = this.#written;
    this.#written = undefined;
    done?.();
  }

  finished(): void {
    this.push(null);
  }

  ended(reason: StreamEnd): void {
    this.#over = true;
    if (reason !== 'done') {
      this.destroy(new StreamError(reason));
      return;
    }
    this.push(null);
  }

  /** The shell goes on with it: all that is still to hear is its end. */
  give(): void {
    this.#over = true;
  }

  override _read(): void {
    if (this.#over || this.#granted > WINDOW / 2) return;
    this.#orders.streamRead(this.#id, WINDOW - this.#granted);
    this.#granted = WINDOW;
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: Done): void {
    this.#whenConnected(() => {
      this.#written = done;
      this.#orders.streamWrite(this.#id, chunk);
    });
  }

  override _writev(chunks: { chunk: Buffer; encoding: BufferEncoding }[], done: Done): void {
    this._write(Buffer.concat(chunks.map(({ chunk }) => chunk)), 'utf8', done);
  }

  override _final(done: Done): void {
    this.#whenConnected(() => {
      if (!this.#over) this.#orders.streamFinish(this.#id);
      done();
    });
  }

  override _destroy(error: Error | null, done: Done): void {
    const finished = this.readableEnded && this.writableFinished;
    if (!this.#over && !finished) this.#orders.streamAbort(this.#id);
    this.#over = true;
    this.#waiting = undefined;
    const written = this.#written;
    this.#written = undefined;
    this.#gone();
    written?.(error ?? new StreamError('reset'));
    done(error);
  }

  #whenConnected(work: () => void): void {
    if (this.#connected) work();
    else this.#waiting = work;
  }
}

/** What splicing needs to know of a socket: libuv's handle tells its descriptor, though not in the documents of Node.js. */
function descriptor(socket: Socket): number | undefined {
  const handle: unknown = Reflect.get(socket, '_handle');
  if (typeof handle !== 'object' || handle === null) return undefined;
  const fd: unknown = Reflect.get(handle, 'fd');
  return typeof fd === 'number' && fd >= 0 ? fd : undefined;
}

export class HostStreams implements UserSpace {
  readonly #orders: HostOrders;
  readonly #streams = new Map<number, HostStream>();
  readonly #splices = new Map<number, () => void>();
  readonly #ports = new Map<number, OnDatagram>();
  #next = 1;

  constructor(orders: HostOrders) {
    this.#orders = orders;
  }

  dial({ own, peer, port }: StreamAddress): Duplex {
    const id = this.#number();
    const stream = this.#add(id, false);
    this.#orders.streamDial(id, own, peer, port);
    return stream;
  }

  splice(socket: Socket, stream: Duplex, initial: Uint8Array = new Uint8Array()): Splice {
    const fd = descriptor(socket);
    const orders = this.#orders;
    if (orders.streamSplice === undefined || !(stream instanceof HostStream) || fd === undefined || stream.destroyed) {
      return join(socket, stream, initial);
    }
    const id = stream.number;
    const unread = readAll(socket);
    const closed = new Promise<void>((resolve) => this.#splices.set(id, resolve));
    orders.streamSplice(id, fd, unread.length === 0 ? initial : Buffer.concat([initial, unread]));
    stream.give();
    this.#streams.delete(id);
    // Our descriptor only: the shell has its own, so nothing is sent.
    socket.destroy();
    stream.destroy();
    const abort = (): void => {
      if (!this.#splices.has(id)) return;
      orders.streamAbort(id);
      this.#end(id);
    };
    return { closed, abort };
  }

  datagrams(own: string, onDatagram: OnDatagram): Datagrams {
    const id = this.#number();
    this.#ports.set(id, onDatagram);
    this.#orders.datagramsOpen(id, own);
    return {
      send: (peer, port, bytes) => this.#orders.datagramsSend(id, peer, port, bytes),
      close: () => {
        if (this.#ports.delete(id)) this.#orders.datagramsClose(id);
      },
    };
  }

  /** A shell's batch without what is for streams and datagrams, in order. What is for them has been done. */
  translate(events: readonly (DataPlaneEvent | HostEvent)[]): DataPlaneEvent[] {
    const others: DataPlaneEvent[] = [];
    for (const event of events) {
      const other = isHostEvent(event) ? this.#handle(event) : event;
      if (other !== undefined) others.push(other);
    }
    return others;
  }

  /** What the shell told, as the rest of TypeScript shall hear it; undefined: nothing of its business. */
  #handle(event: HostEvent): DataPlaneEvent | undefined {
    switch (event.type) {
      case 'datagram':
        this.#ports.get(event.port)?.(event.peer, event.peerPort, event.bytes);
        return undefined;
      case 'streamIncoming': {
        const { session, account, peer, peerPort } = event;
        return { type: 'incoming', session, account, peer, peerPort, stream: this.#add(event.stream, true) };
      }
      case 'streamConnected':
        this.#streams.get(event.stream)?.connected();
        return undefined;
      case 'streamData':
        this.#streams.get(event.stream)?.data(event.bytes);
        return undefined;
      case 'streamWritten':
        this.#streams.get(event.stream)?.written();
        return undefined;
      case 'streamFinished':
        this.#streams.get(event.stream)?.finished();
        return undefined;
      case 'streamClosed':
        this.#streams.get(event.stream)?.ended(event.reason);
        this.#end(event.stream);
        return undefined;
    }
  }

  /** The data plane has closed: nothing more will be heard. */
  close(): void {
    for (const stream of [...this.#streams.values()]) stream.ended('reset');
    for (const id of [...this.#splices.keys()]) this.#end(id);
    this.#ports.clear();
  }

  #add(id: number, connected: boolean): HostStream {
    const stream = new HostStream(this.#orders, id, connected, () => {
      if (this.#streams.get(id) === stream) this.#streams.delete(id);
    });
    this.#streams.set(id, stream);
    return stream;
  }

  #end(id: number): void {
    const resolve = this.#splices.get(id);
    this.#splices.delete(id);
    resolve?.();
  }

  /** One that is free: those in use are few. */
  #number(): number {
    let id: number;
    do {
      id = this.#next;
      this.#next = (this.#next + 2) % 2 ** 32;
    } while (this.#streams.has(id) || this.#splices.has(id) || this.#ports.has(id));
    return id;
  }
}

const HOST_EVENTS: ReadonlySet<string> = new Set<HostEvent['type']>([
  'datagram',
  'streamClosed',
  'streamConnected',
  'streamData',
  'streamFinished',
  'streamIncoming',
  'streamWritten',
]);

export function isHostEvent(event: DataPlaneEvent | HostEvent): event is HostEvent {
  return HOST_EVENTS.has(event.type);
}

function readAll(socket: Socket): Buffer {
  const chunks: Buffer[] = [];
  for (let chunk: Buffer | null = socket.read(); chunk !== null; chunk = socket.read()) chunks.push(chunk);
  return Buffer.concat(chunks);
}
