/**
 * Slips frames of our own into the numbered frames (ts/routing/channel.ts) that the node's router exchanges with its parent. The router's frames
 * move up to make room, and acknowledgements are told to it as if the foreign ones weren't there.
 */
import { decodeFrame, encodeFrame } from '../../ts/routing/frames.js';

export class Numbering {
  /** The router's numbers, which are consecutive from 0, and what they are on the wire. */
  readonly #wire: number[] = [];
  /** Slipped in and not acknowledged yet, by number on the wire. */
  readonly #foreign = new Map<number, Uint8Array>();
  #next = 0;
  #acknowledged = 0;

  /** A frame of the router's, renumbered where it is a numbered one. */
  outgoing(bytes: Uint8Array): Uint8Array {
    const frame = decodeFrame(bytes);
    if (frame?.kind !== 'numbered') return bytes;
    const number = this.#wire[frame.number] ?? this.#take();
    this.#wire[frame.number] = number;
    return encodeFrame({ ...frame, number });
  }

  /** A frame of ours, with the next number. */
  slipIn(body: Uint8Array): Uint8Array {
    const number = this.#take();
    const bytes = encodeFrame({ kind: 'numbered', number, body });
    this.#foreign.set(number, bytes);
    return bytes;
  }

  /** Frames of ours that the parent hasn't acknowledged: to be sent again. */
  waiting(): Uint8Array[] {
    return [...this.#foreign.values()];
  }

  /** A frame of the parent's, as the router is to see it. */
  incoming(bytes: Uint8Array): Uint8Array {
    const frame = decodeFrame(bytes);
    if (frame?.kind !== 'acknowledged') return bytes;
    this.#acknowledged = Math.max(this.#acknowledged, frame.next);
    const come = (number: number): boolean => {
      const ahead = number - this.#acknowledged;
      return ahead < 0 || (frame.next === this.#acknowledged && ahead > 0 && ahead <= 32 && ((frame.later >>> (ahead - 1)) & 1) === 1);
    };
    for (const number of this.#foreign.keys()) if (come(number)) this.#foreign.delete(number);
    const missing = this.#wire.findIndex((number) => !come(number));
    const next = missing < 0 ? this.#wire.length : missing;
    let later = 0;
    this.#wire.slice(next + 1, next + 33).forEach((number, at) => {
      if (come(number)) later |= 1 << at;
    });
    return encodeFrame({ kind: 'acknowledged', next, later: later >>> 0 });
  }

  #take(): number {
    const number = this.#next;
    this.#next += 1;
    return number;
  }
}
