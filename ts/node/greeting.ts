/** What one end lets the other reach, said over one path until it has been heard. */
import type { PathId } from '../dataplane/data-plane.js';
import { type Milliseconds, ms } from './clock.js';
import { encodeHello, helloNonce, type OfferedService } from './session-control.js';

/** First and longest wait for an answer; a path over which none ever came is given up after so many hellos. */
const EVERY = ms(400);
const LONGEST = ms(2_000);
const MOST = 8;

export class Greeting {
  readonly bytes: Uint8Array;
  /** What an answer carries. */
  readonly nonce: bigint;
  readonly path: PathId;
  #tries = 1;
  #sentAt: Milliseconds;

  /** The first hello is sent now. */
  constructor(offered: readonly OfferedService[], path: PathId, now: Milliseconds) {
    this.bytes = encodeHello(offered);
    this.nonce = helloNonce(this.bytes);
    this.path = path;
    this.#sentAt = now;
  }

  /** What to do: nothing, say it again, or give up. */
  due(now: Milliseconds): 'wait' | 'again' | 'given up' {
    if (now - this.#sentAt < Math.min(EVERY * this.#tries, LONGEST)) return 'wait';
    if (this.#tries >= MOST) return 'given up';
    this.#tries += 1;
    this.#sentAt = now;
    return 'again';
  }
}
