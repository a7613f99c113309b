/**
 * How much of this node's time set-ups of sessions may take. Nobody knows who calls before part of the work is done, so there is a budget for that part; what
 * follows has one for strangers and one for callers that we know; and callers who replace a path that carried packets are known without any work.
 */
import { Bucket } from '../bucket.js';
import { ThicketError } from '../errors.js';
import { agreementKey, type PublicKey } from '../trust/index.js';
import type { Clock } from './clock.js';

/** Per second, and at once. Finding out who calls takes a third of a millisecond of a small machine, the whole handshake one and a half. */
const FIRST = { perSecond: 500, burst: 500 };
const STRANGERS = { perSecond: 50, burst: 100 };
const KNOWN = { perSecond: 100, burst: 200 };
const AGAIN = { perSecond: 100, burst: 200 };
/** Callers that are remembered. */
const MAX = 4_096;

export class Callers {
  readonly #clock: Clock;
  readonly #first: Bucket;
  readonly #strangers: Bucket;
  readonly #known: Bucket;
  readonly #again: Bucket;
  /** X25519 keys of those who had a session here: all that a first look at a call shows. */
  readonly #keys = new Set<string>();

  constructor(clock: Clock) {
    const now = clock.now();
    this.#clock = clock;
    this.#first = new Bucket(FIRST.perSecond, FIRST.burst, now);
    this.#strangers = new Bucket(STRANGERS.perSecond, STRANGERS.burst, now);
    this.#known = new Bucket(KNOWN.perSecond, KNOWN.burst, now);
    this.#again = new Bucket(AGAIN.perSecond, AGAIN.burst, now);
  }

  /** A call has come; `renews`: it replaces a path that carried packets. Returns what must judge its X25519 key. Throws BUSY. */
  enter(renews: boolean): (key: Uint8Array) => void {
    const now = this.#clock.now();
    if (renews && this.#again.take(now)) return () => {};
    if (!this.#first.take(now)) throw busy();
    return (key) => {
      const bucket = this.#keys.has(text(key)) ? this.#known : this.#strangers;
      if (!bucket.take(this.#clock.now())) throw busy();
    };
  }

  /** This one has, or had, a session with us. */
  learn(peer: PublicKey): void {
    const key = text(agreementKey(peer));
    this.#keys.delete(key);
    this.#keys.add(key);
    const [oldest] = this.#keys;
    if (oldest !== undefined && this.#keys.size > MAX) this.#keys.delete(oldest);
  }
}

const busy = (): ThicketError => new ThicketError('BUSY', 'more calls than there is time for');
const text = (key: Uint8Array): string => Buffer.from(key).toString('base64');
