/**
 * Whether something was sent that the far end hasn't reacted to, from packet counters read now and then. Packets that keep the peace (probes and answers to
 * them) are told apart with `quiet` and `noise`, or two idle ends would keep each other awake for ever.
 */
import { type Milliseconds, ms } from './clock.js';

/** Traffic without a longer gap is one run. */
const GAP = ms(1_500);
/** In so long a run whatever came in calls for more: a single question and its answer don't. */
const STREAM = 3;

export class Silence {
  #rx = 0n;
  #tx = 0n;
  #quiet = 0n;
  #noise = 0n;
  /** Since when the oldest packet waits for a reaction. */
  #since: Milliseconds | undefined;
  #run = 0;
  #heardAt: Milliseconds;
  #trafficAt: Milliseconds;
  #busyAt: Milliseconds;

  constructor(now: Milliseconds) {
    this.#heardAt = now;
    this.#trafficAt = now;
    this.#busyAt = now;
  }

  /** One packet that wants no answer is about to be sent. */
  quiet(): void {
    this.#quiet += 1n;
  }

  /** One packet came that was only a probe or the answer to one. */
  noise(): void {
    this.#noise += 1n;
  }

  /** Takes the counters of this moment; whether anything has come in since the last time. */
  note(now: Milliseconds, rx: bigint, tx: bigint): boolean {
    const came = rx > this.#rx ? rx - this.#rx : 0n;
    const went = tx > this.#tx ? tx - this.#tx : 0n;
    const [noise, quiet] = [least(came, this.#noise), least(went, this.#quiet)];
    this.#rx = rx;
    this.#tx = tx;
    this.#noise -= noise;
    this.#quiet -= quiet;
    const [heard, sent] = [came > noise, went > quiet];
    if (heard) {
      this.#run = now - this.#heardAt <= GAP ? this.#run + 1 : 1;
      this.#heardAt = now;
    }
    if (came > 0n) this.#since = undefined;
    // Which of the two came first can't be seen; in a stream, what was sent may well be what nobody hears any more.
    if (sent && (came === 0n || this.#run >= STREAM)) this.#since ??= now;
    if (heard || sent) this.#trafficAt = now;
    if (came > 0n || went > 0n) this.#busyAt = now;
    return came > 0n;
  }

  /** How long the far end has kept silent after something was sent; 0 when nothing waits. */
  lasts(now: Milliseconds): Milliseconds {
    return ms(this.#since === undefined ? 0 : now - this.#since);
  }

  /** How long there was no traffic. */
  unused(now: Milliseconds): Milliseconds {
    return ms(now - this.#trafficAt);
  }

  /** How long nothing at all went either way. */
  idle(now: Milliseconds): Milliseconds {
    return ms(now - this.#busyAt);
  }
}

const least = (a: bigint, b: bigint): bigint => (a < b ? a : b);
