/** The host whose resolver is set up: where its files are, and how its programs are run. */
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { ThicketError } from '../errors.js';

const LATE_MS = 30_000;

export class ResolverHost {
  readonly #root: string;

  /** `root`: what stands before every path, and where programs are looked for first; for tests. */
  constructor(root = '/') {
    this.#root = root;
  }

  path(absolute: string): string {
    return join(this.#root, absolute);
  }

  has(absolute: string): boolean {
    return existsSync(this.path(absolute));
  }

  /** Runs a program of the host; gives what it prints. Throws REFUSED with its own complaint. */
  run(command: string, ...args: readonly string[]): Promise<string> {
    const { PATH = '', ...others } = process.env;
    const env = this.#root === '/' ? process.env : { ...others, PATH: `${this.path('/bin')}:${PATH}` };
    return new Promise((resolve, reject) => {
      execFile(command, args, { timeout: LATE_MS, env }, (error, stdout, stderr) => {
        if (error === null) return resolve(stdout);
        const [why = ''] = (stderr.trim() || error.message).split('\n', 1);
        reject(
          new ThicketError('REFUSED', `${[command, ...args].join(' ')} failed (${why}): see to that, then run this again`, {
            cause: error,
          }),
        );
      });
    });
  }
}
