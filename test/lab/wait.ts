import { setTimeout as delay } from 'node:timers/promises';
import { LabError } from './errors.js';

export interface WaitOptions {
  /** Milliseconds until it gives up; default 10,000. */
  readonly timeoutMs?: number;
  /** Milliseconds between two tries; default 50. */
  readonly intervalMs?: number;
  /** What is awaited, for the error's text. */
  readonly what?: string;
}

type Falsy = false | 0 | '' | null | undefined;

/**
 * Tries `condition` until it gives something truthy, and returns that. A condition that throws counts as not met; the last error is the cause
 * of the LabError thrown when time is up.
 */
export async function waitFor<T>(condition: () => T | Promise<T>, options: WaitOptions = {}): Promise<Exclude<T, Falsy>> {
  const { timeoutMs = 10_000, intervalMs = 50, what = 'a condition' } = options;
  const deadline = performance.now() + timeoutMs;
  let cause: unknown;
  for (;;) {
    try {
      const value = await condition();
      if (value) return value as Exclude<T, Falsy>;
      cause = undefined;
    } catch (error) {
      cause = error;
    }
    if (performance.now() >= deadline) throw new LabError(`${what}: not within ${timeoutMs} ms`, { cause });
    await delay(intervalMs);
  }
}
