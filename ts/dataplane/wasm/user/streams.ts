/**
 * Streams that the main thread holds, under its own numbers. Nothing of theirs waits here but what one write brought: it gets as many bytes as it asked for, and
 * its next write comes when the host has all of the last.
 */
import type { HostEvent, StreamEnd } from '../../userspace.js';
import type { WasmHost } from '../bindings.js';

export class Streams {
  readonly #host: WasmHost;
  readonly #tell: (event: HostEvent) => void;
  /** By the main thread's numbers, and by the host's. */
  readonly #held = new Map<number, Held>();
  readonly #byStream = new Map<number, Held>();
  #next = 2;
  #refused = 0n;

  constructor(host: WasmHost, tell: (event: HostEvent) => void) {
    this.#host = host;
    this.#tell = tell;
  }

  /** Streams that there was nothing left for. */
  get refused(): bigint {
    return this.#refused;
  }

  dial(now: number, number: number, own: string, peer: string, port: number): void {
    const stream = this.#host.connect(now, own, peer, port);
    if (stream === undefined) {
      this.#refused += 1n;
      this.#tell({ type: 'streamClosed', stream: number, reason: 'full' });
    } else {
      this.#hold(number, stream);
    }
  }

  /** A caller's stream, accepted. The next even number is its. */
  incoming(stream: number): number {
    while (this.#held.has(this.#next)) this.#step();
    const number = this.#next;
    this.#step();
    this.#hold(number, stream);
    return number;
  }

  write(number: number, bytes: Uint8Array): void {
    const held = this.#held.get(number);
    if (held === undefined) return;
    held.rest = bytes;
    this.#push(held);
  }

  read(number: number, bytes: number): void {
    const held = this.#held.get(number);
    if (held === undefined) return;
    held.granted += bytes;
    this.#pull(held);
  }

  finish(number: number): void {
    const held = this.#held.get(number);
    if (held === undefined) return;
    held.finish = true;
    this.#push(held);
  }

  abort(number: number): void {
    const held = this.#held.get(number);
    if (held === undefined) return;
    this.#host.abort(held.stream);
    this.#forget(held);
  }

  /** The host's words; `false`: none of these. */
  connected(stream: number): boolean {
    const held = this.#byStream.get(stream);
    if (held === undefined) return false;
    this.#tell({ type: 'streamConnected', stream: held.number });
    this.#push(held);
    return true;
  }

  readable(stream: number): boolean {
    const held = this.#byStream.get(stream);
    if (held !== undefined) this.#pull(held);
    return held !== undefined;
  }

  writable(stream: number): boolean {
    const held = this.#byStream.get(stream);
    if (held !== undefined) this.#push(held);
    return held !== undefined;
  }

  finished(stream: number): boolean {
    const held = this.#byStream.get(stream);
    if (held === undefined) return false;
    held.finished = true;
    this.#pull(held);
    return true;
  }

  closed(stream: number, reason: StreamEnd): boolean {
    const held = this.#byStream.get(stream);
    if (held === undefined) return false;
    held.over = reason;
    this.#pull(held);
    return true;
  }

  #step(): void {
    this.#next = (this.#next + 2) % 2 ** 32;
  }

  #hold(number: number, stream: number): void {
    const held = new Held(number, stream);
    this.#held.set(number, held);
    this.#byStream.set(stream, held);
  }

  #forget(held: Held): void {
    this.#held.delete(held.number);
    this.#byStream.delete(held.stream);
  }

  /** Gives the host what it hasn't of the last write, and the end behind it. */
  #push(held: Held): void {
    if (held.rest !== undefined) {
      const taken = this.#host.write(held.stream, held.rest);
      if (taken < held.rest.length) {
        held.rest = held.rest.subarray(taken);
        return;
      }
      held.rest = undefined;
      this.#tell({ type: 'streamWritten', stream: held.number });
    }
    if (!held.finish) return;
    held.finish = false;
    this.#host.finish(held.stream);
  }

  /** Tells what came, as far as it is wanted, and the end behind it. */
  #pull(held: Held): void {
    const { number, stream } = held;
    while (held.granted > 0) {
      const bytes = this.#host.read(stream, held.granted);
      if (bytes.length === 0) break;
      held.granted -= bytes.length;
      this.#tell({ type: 'streamData', stream: number, bytes });
    }
    if ((!held.finished && held.over === undefined) || !this.#host.isReadOut(stream)) return;
    if (held.finished && !held.toldFinished) {
      held.toldFinished = true;
      this.#tell({ type: 'streamFinished', stream: number });
    }
    if (held.over === undefined) return;
    this.#tell({ type: 'streamClosed', stream: number, reason: held.over });
    this.#forget(held);
  }
}

class Held {
  readonly number: number;
  readonly stream: number;
  /** What the host hasn't of the last write. */
  rest: Uint8Array | undefined;
  finish = false;
  /** Bytes that may still be told of. */
  granted = 0;
  finished = false;
  toldFinished = false;
  over: StreamEnd | undefined;

  constructor(number: number, stream: number) {
    this.number = number;
    this.stream = stream;
  }
}
