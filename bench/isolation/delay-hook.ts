/**
 * Loaded into a node by `NODE_OPTIONS=--import`: measures the event loop's delay. At each SIGUSR2 it appends a line of JSON to `BENCH_DELAYS`, about the time since
 * the last one. The product knows nothing of it.
 */
import { appendFileSync } from 'node:fs';
import { monitorEventLoopDelay } from 'node:perf_hooks';

/** Milliseconds between two looks; what is recorded holds them, too. */
const EVERY = 1;

const file = process.env['BENCH_DELAYS'];
if (file !== undefined) {
  // What this process starts is not meant.
  delete process.env['NODE_OPTIONS'];
  const histogram = monitorEventLoopDelay({ resolution: EVERY });
  histogram.enable();
  const late = (nanoseconds: number): number => Math.max(0, nanoseconds / 1e6 - EVERY);
  process.on('SIGUSR2', () => {
    const { max } = histogram;
    appendFileSync(
      file,
      `${JSON.stringify({ median: late(histogram.percentile(50)), p99: late(histogram.percentile(99)), most: late(max) })}\n`,
    );
    histogram.reset();
  });
}
