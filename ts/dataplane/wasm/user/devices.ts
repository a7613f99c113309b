/** Callers' streams and the connections to their devices, joined. Next to nothing waits here: sockets are read as far as the host has room, and the host as far as they take it. */
import { connect, type Socket } from 'node:net';
import type { StreamEnd } from '../../userspace.js';
import type { WasmHost } from '../bindings.js';

/** Connections at most. */
const MOST = 16_384;
/** Read at once, as far as the host has room, by all sockets into the same buffer: it is empty again before the next reads. */
const CHUNK = 64 * 1_024;
/** The first time, or when the host has just got room. */
const FIRST = 16 * 1_024;
/** Bytes that may wait in Node.js for a socket to take them. */
const WAITING = 64 * 1_024;

export interface Target {
  readonly host: string;
  readonly port: number;
}

class Device {
  readonly stream: number;
  readonly socket: Socket;
  connected = false;
  /** What the host hadn't room for. */
  rest: Buffer | undefined;
  /** The socket said its last; the stream did, and the socket was told. */
  ended = false;
  finished = false;
  shut = false;
  over: StreamEnd | undefined;

  constructor(stream: number, socket: Socket) {
    this.stream = stream;
    this.socket = socket;
  }
}

export class Devices {
  readonly #host: WasmHost;
  readonly #stir: () => void;
  readonly #devices = new Map<number, Device>();
  readonly #buffer = Buffer.allocUnsafeSlow(CHUNK);
  #refused = 0n;

  /** `stir`: something was done to the host. */
  constructor(host: WasmHost, stir: () => void) {
    this.#host = host;
    this.#stir = stir;
  }

  /** Connections that there was no room for. */
  get refused(): bigint {
    return this.#refused;
  }

  /** Calls the device that a held stream is for; the caller is answered as the device answers. */
  call(stream: number, { host, port }: Target): void {
    if (this.#devices.size >= MOST) {
      this.#refused += 1n;
      this.#host.abort(stream);
      return;
    }
    const onread = {
      buffer: () => this.#place(stream),
      callback: (count: number): boolean => {
        const device = this.#devices.get(stream);
        return device !== undefined && this.#onData(device, count);
      },
    };
    const socket = connect({ host, port, allowHalfOpen: true, noDelay: true, keepAlive: true, onread });
    const device = new Device(stream, socket);
    this.#devices.set(stream, device);
    socket.on('connect', () => this.#onConnect(device));
    socket.on('drain', () => this.#pull(device));
    socket.on('end', () => this.#onEnd(device));
    socket.on('error', (error: NodeJS.ErrnoException) => this.#onError(device, error));
  }

  /** The host's words; `false`: none of these. */
  readable(stream: number): boolean {
    const device = this.#devices.get(stream);
    if (device?.connected) this.#pull(device);
    return device !== undefined;
  }

  writable(stream: number): boolean {
    const device = this.#devices.get(stream);
    if (device !== undefined) this.#push(device);
    return device !== undefined;
  }

  finished(stream: number): boolean {
    const device = this.#devices.get(stream);
    if (device === undefined) return false;
    device.finished = true;
    if (device.connected) this.#pull(device);
    return true;
  }

  closed(stream: number, reason: StreamEnd): boolean {
    const device = this.#devices.get(stream);
    if (device === undefined) return false;
    device.over = reason;
    if (device.connected) this.#pull(device);
    else this.#reset(device);
    return true;
  }

  close(): void {
    for (const device of [...this.#devices.values()]) this.#reset(device);
  }

  /** Where a socket shall read to the next time. */
  #place(stream: number): Buffer {
    const room = this.#devices.get(stream)?.connected ? this.#host.room(stream) : 0;
    return this.#buffer.subarray(0, room === 0 ? FIRST : Math.min(room, CHUNK));
  }

  #onConnect(device: Device): void {
    device.connected = true;
    if (!this.#host.accept(device.stream)) {
      this.#reset(device);
      return;
    }
    this.#pull(device);
    this.#stir();
  }

  /** Bytes of the device, in the buffer. Whether it shall read on. */
  #onData(device: Device, count: number): boolean {
    const bytes = this.#buffer.subarray(0, count);
    const taken = this.#host.write(device.stream, bytes);
    this.#stir();
    // Without room nothing is read that would wait here.
    if (taken === count) return this.#host.room(device.stream) > 0;
    device.rest = Buffer.from(bytes.subarray(taken));
    return false;
  }

  #onEnd(device: Device): void {
    device.ended = true;
    // Behind what the host hasn't yet.
    if (device.rest === undefined) this.#finish(device);
  }

  #finish(device: Device): void {
    this.#host.finish(device.stream);
    this.#stir();
    this.#settle(device);
  }

  #onError(device: Device, { code }: NodeJS.ErrnoException): void {
    if (!this.#devices.delete(device.stream)) return;
    // A refusal of the device is the caller's, too, and so is silence.
    if (device.connected || code === 'ECONNREFUSED' || code === 'ECONNRESET') this.#host.abort(device.stream);
    else this.#host.unreachable(device.stream);
    this.#stir();
  }

  /** The host has room: for what it had none for before, then for more. */
  #push(device: Device): void {
    if (device.rest !== undefined) {
      const taken = this.#host.write(device.stream, device.rest);
      if (taken < device.rest.length) {
        device.rest = device.rest.subarray(taken);
        return;
      }
      device.rest = undefined;
    }
    if (device.ended) this.#finish(device);
    else device.socket.resume();
  }

  /** From the host to the socket, as far as that takes it. */
  #pull(device: Device): void {
    const { stream, socket } = device;
    while (socket.writableLength < WAITING) {
      const bytes = this.#host.read(stream, CHUNK);
      if (bytes.length === 0) break;
      socket.write(bytes);
      this.#stir();
    }
    if ((!device.finished && device.over === undefined) || !this.#host.isReadOut(stream)) return;
    if (device.over !== undefined && device.over !== 'done') {
      this.#reset(device);
      return;
    }
    if (!device.shut) {
      device.shut = true;
      socket.end();
    }
    this.#settle(device);
  }

  /** Whether both have said their last: then the rest is the host's and the kernel's. */
  #settle(device: Device): void {
    if (device.over !== undefined || (device.ended && device.shut)) this.#devices.delete(device.stream);
  }

  #reset(device: Device): void {
    this.#devices.delete(device.stream);
    device.socket.resetAndDestroy();
  }
}
