/** Whether the tree is in reach, and waiting until it is. */
import type { Clock, Milliseconds } from './clock.js';

export interface UplinkOptions {
  /** Some parent's link is up, or there are no parents to have. */
  readonly isUp: () => boolean;
  readonly clock: Clock;
}

export class Uplink {
  readonly #o: UplinkOptions;
  readonly #waiting = new Set<() => void>();

  constructor(options: UplinkOptions) {
    this.#o = options;
  }

  /** A parent's link came up, or nobody is to wait any longer. */
  rose(): void {
    for (const done of this.#waiting) done();
    this.#waiting.clear();
  }

  /** Resolves when the tree is in reach, or `patience` is over. */
  wait(patience: Milliseconds): Promise<void> {
    if (this.#o.isUp()) return Promise.resolve();
    return new Promise((resolve) => {
      const cancel = this.#o.clock.after(patience, () => {
        this.#waiting.delete(done);
        resolve();
      });
      const done = (): void => {
        cancel();
        resolve();
      };
      this.#waiting.add(done);
    });
  }
}
