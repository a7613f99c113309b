/** A token bucket: so much per second, so much at once. Times are milliseconds of any monotonic clock. */

/** What adding and taking fractions may cost the last token. */
const ROUNDING = 1e-6;

export class Bucket {
  readonly #perSecond: number;
  readonly #burst: number;
  /** What part of the burst is there: below 0 while something is owed. */
  #level = 1;
  #at: number;

  /** Starts full. */
  constructor(perSecond: number, burst: number, now: number) {
    this.#perSecond = perSecond;
    this.#burst = burst;
    this.#at = now;
  }

  /** Whether `cost` was there; then it is gone. `weight` multiplies both numbers. */
  take(now: number, cost = 1, weight = 1): boolean {
    if (this.left(now, weight) < cost - ROUNDING) return false;
    this.spend(cost, weight);
    return true;
  }

  left(now: number, weight = 1): number {
    this.#level = Math.min(1, this.#level + ((now - this.#at) / 1_000) * (this.#perSecond / this.#burst));
    this.#at = now;
    return this.#level * this.#burst * weight;
  }

  /** Takes a cost that is known only afterwards; what isn't there is owed. */
  spend(cost: number, weight = 1): void {
    this.#level -= cost / (this.#burst * weight);
  }
}
