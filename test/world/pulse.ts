/** Watches when a program prints: a flow that prints what comes tells by that whether it lives. */
import { LabError, type Process } from '../lab/index.js';

const LOOK_MS = 20;

export class Pulse {
  readonly process: Process;
  readonly #timer: NodeJS.Timeout;
  #lines = 0;
  #at = performance.now();
  #longest = 0;

  constructor(process: Process) {
    this.process = process;
    this.#timer = setInterval(() => this.#look(), LOOK_MS);
  }

  /** Pauses count from now on. */
  forget(): void {
    this.#look();
    this.#longest = 0;
    this.#at = performance.now();
  }

  /** Milliseconds; throws when the program has ended. */
  longestPause(): number {
    if (!this.process.running) throw new LabError(`${this.process.argv.join(' ')} has ended:\n${this.process.stderr.join('\n')}`);
    this.#look();
    return Math.max(this.#longest, performance.now() - this.#at);
  }

  end(): void {
    clearInterval(this.#timer);
  }

  #look(): void {
    if (this.process.stdout.length === this.#lines) return;
    this.#lines = this.process.stdout.length;
    const now = performance.now();
    this.#longest = Math.max(this.#longest, now - this.#at);
    this.#at = now;
  }
}
