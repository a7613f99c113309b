/** Time as an argument: monotonic for everything that waits, wall only for certificates. */

declare const unit: unique symbol;
/** A monotonic instant or a duration, in milliseconds. */
export type Milliseconds = number & { readonly [unit]: 'ms' };

export interface Clock {
  /** Monotonic; unaffected by anybody setting the time. */
  now(): Milliseconds;
  /** Seconds since 1970 as the host believes; may be wrong by decades. */
  wallSeconds(): number;
  /** Calls back every `period` until the returned function is called; never keeps the process alive by itself. */
  every(period: Milliseconds, run: () => void): () => void;
  after(delay: Milliseconds, run: () => void): () => void;
}

export const ms = (value: number): Milliseconds => value as Milliseconds;

export const systemClock: Clock = {
  now: () => ms(performance.now()),
  wallSeconds: () => Math.floor(Date.now() / 1000),
  every(period, run) {
    const timer = setInterval(run, period);
    timer.unref();
    return () => clearInterval(timer);
  },
  after(delay, run) {
    const timer = setTimeout(run, delay);
    timer.unref();
    return () => clearTimeout(timer);
  },
};
