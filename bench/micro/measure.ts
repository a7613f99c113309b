/** One number out of benchmark.js. */
import Benchmark from 'benchmark';

export interface Measured {
  /** Mean time of one call. */
  readonly nanoseconds: number;
  /** Relative margin of error, percent, at 95 % confidence. */
  readonly margin: number;
}

/** Seconds of a round of `least`. */
const ROUND = 0.01;

/** Calls `run` again and again for about `seconds`. Throws what it throws. */
export function measure(run: () => void, seconds: number): Measured {
  const bench = new Benchmark(run, { maxTime: seconds, minSamples: 5 });
  bench.run({ async: false });
  if (bench.error !== undefined) throw bench.error;
  return { nanoseconds: bench.stats.mean * 1e9, margin: bench.stats.rme };
}

/** The same as calls per second. */
export function rate(run: () => void, seconds: number): { readonly perSecond: number; readonly margin: number } {
  const { nanoseconds, margin } = measure(run, seconds);
  return { perSecond: 1e9 / nanoseconds, margin };
}

/** Nanoseconds a call in the quickest of the rounds that `seconds` hold: for short work that computes and nothing else, which disturbances only slow down. */
export function least(run: () => void, seconds: number): number {
  const bench = new Benchmark(run, { maxTime: seconds, minSamples: 5, minTime: ROUND });
  bench.run({ async: false });
  if (bench.error !== undefined) throw bench.error;
  return Math.min(...bench.stats.sample) * 1e9;
}
