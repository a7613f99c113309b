/** Time that passes only when told to: every timer, datagram and event of a simulation hangs on one of these. */
import { type Clock, type Milliseconds, ms } from '../../ts/node/clock.js';

interface Timer {
  readonly at: number;
  readonly order: number;
  readonly run: () => void;
  live: boolean;
}

export class VirtualClock implements Clock {
  readonly #heap: Timer[] = [];
  #now = 0;
  #order = 0;
  /** What the hosts believe; far from the truth in some tests. */
  wall = 1_800_000_000;

  now(): Milliseconds {
    return ms(this.#now);
  }

  wallSeconds(): number {
    return this.wall + Math.floor(this.#now / 1_000);
  }

  after(delay: number, run: () => void): () => void {
    const timer: Timer = { at: this.#now + Math.max(0, delay), order: this.#order++, run, live: true };
    this.#push(timer);
    return () => {
      timer.live = false;
    };
  }

  every(period: Milliseconds, run: () => void): () => void {
    let cancel = (): void => {};
    const again = (): void => {
      cancel = this.after(period, () => {
        again();
        run();
      });
    };
    again();
    return () => cancel();
  }

  /** Lets `duration` milliseconds pass; promises settle between any two timers. */
  async run(duration: number): Promise<void> {
    const end = this.#now + duration;
    await settled();
    for (let next = this.#heap[0]; next !== undefined && next.at <= end; next = this.#heap[0]) {
      this.#pop();
      if (!next.live) continue;
      this.#now = next.at;
      next.run();
      await settled();
    }
    this.#now = end;
  }

  /** Lets time pass until `done`; the milliseconds that took. Throws after `most`. */
  async until(what: string, most: number, done: () => boolean): Promise<number> {
    const start = this.#now;
    while (!done()) {
      if (this.#now - start >= most) throw new Error(`${what}: not within ${most} ms of virtual time`);
      await this.run(20);
    }
    return this.#now - start;
  }

  #before(a: Timer | undefined, b: Timer | undefined): boolean {
    if (a === undefined || b === undefined) return a !== undefined;
    return a.at < b.at || (a.at === b.at && a.order < b.order);
  }

  #push(timer: Timer): void {
    const heap = this.#heap;
    let at = heap.length;
    heap.push(timer);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      const above = heap[parent];
      if (above === undefined || !this.#before(timer, above)) break;
      heap[at] = above;
      at = parent;
    }
    heap[at] = timer;
  }

  #pop(): void {
    const heap = this.#heap;
    const last = heap.pop();
    if (last === undefined || heap.length === 0) return;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (this.#before(heap[child + 1], heap[child])) child += 1;
      const below = heap[child];
      if (below === undefined || !this.#before(below, last)) break;
      heap[at] = below;
      at = child;
    }
    heap[at] = last;
  }
}

const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
