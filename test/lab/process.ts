/** Programs that the lab starts: run to the end, or kept running and watched line by line. */
import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { LabError } from './errors.js';

export interface SpawnOptions {
  /** Added to the lab's environment; `undefined` takes a variable out. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** Written to standard input, which is then closed; without it standard input is empty. */
  readonly stdin?: string | Uint8Array;
  /** Working directory; default `/`. */
  readonly cwd?: string;
}

export interface ExecOptions extends SpawnOptions {
  /** Milliseconds until the program is killed and LabError thrown; default 30,000. */
  readonly timeoutMs?: number;
  /** Whether an exit code other than 0 throws; default true. */
  readonly check?: boolean;
}

export interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

export interface Result extends Exit {
  readonly stdout: string;
  readonly stderr: string;
}

interface Waiter {
  readonly pattern: RegExp;
  found(match: RegExpMatchArray): void;
  ended(): void;
}

/** A running program. Its output is kept, line by line. */
export class Process {
  readonly argv: readonly string[];
  readonly pid: number;
  /** Resolves when the program has ended and its output was read; never rejects. */
  readonly exit: Promise<Exit>;
  readonly stdout: string[] = [];
  readonly stderr: string[] = [];
  readonly #child: ChildProcess;
  readonly #waiters = new Set<Waiter>();
  #ended = false;

  private constructor(argv: readonly string[], child: ChildProcess, pid: number, output: readonly [Readable, Readable]) {
    this.argv = argv;
    this.pid = pid;
    this.#child = child;
    this.#read(output[0], this.stdout);
    this.#read(output[1], this.stderr);
    this.exit = new Promise((resolve) => {
      child.once('close', (code, signal) => {
        this.#ended = true;
        resolve({ code, signal });
        for (const waiter of [...this.#waiters]) waiter.ended();
      });
    });
  }

  static async start(argv: readonly string[], options: SpawnOptions = {}): Promise<Process> {
    const [command, ...args] = argv;
    if (command === undefined) throw new LabError('nothing to run');
    const child = spawn(command, args, { cwd: options.cwd ?? '/', env: environment(options.env), stdio: ['pipe', 'pipe', 'pipe'] });
    await new Promise<void>((resolve, reject) => {
      child.once('spawn', resolve);
      child.once('error', (cause) => reject(new LabError(`${command} does not start`, { cause })));
    });
    // A program that ends without reading its input is no error of the lab.
    child.stdin.on('error', () => undefined);
    child.stdin.end(options.stdin);
    child.on('error', () => undefined);
    return new Process(argv, child, child.pid ?? 0, [child.stdout, child.stderr]);
  }

  get running(): boolean {
    return !this.#ended;
  }

  /** The first line of either output that matches, from the start on; throws when the program ends or time is up without one. */
  waitForLine(pattern: RegExp, timeoutMs = 10_000): Promise<RegExpMatchArray> {
    for (const line of [...this.stdout, ...this.stderr]) {
      const match = line.match(pattern);
      if (match !== null) return Promise.resolve(match);
    }
    if (this.#ended) return Promise.reject(this.#failure(`ended without a line like ${pattern}`));
    return new Promise((resolve, reject) => {
      const done = (settle: () => void): void => {
        clearTimeout(timer);
        this.#waiters.delete(waiter);
        settle();
      };
      const waiter: Waiter = {
        pattern,
        found: (match) => done(() => resolve(match)),
        ended: () => done(() => reject(this.#failure(`ended without a line like ${pattern}`))),
      };
      const timer = setTimeout(() => done(() => reject(this.#failure(`no line like ${pattern} within ${timeoutMs} ms`))), timeoutMs);
      this.#waiters.add(waiter);
    });
  }

  signal(signal: NodeJS.Signals): void {
    if (!this.#ended) this.#child.kill(signal);
  }

  /** Sends `signal`, then SIGKILL when the program still runs after `graceMs`; returns how it ended. */
  async kill(signal: NodeJS.Signals = 'SIGTERM', graceMs = 10_000): Promise<Exit> {
    this.signal(signal);
    const timer = setTimeout(() => this.signal('SIGKILL'), graceMs);
    try {
      return await this.exit;
    } finally {
      clearTimeout(timer);
    }
  }

  #read(stream: Readable, lines: string[]): void {
    createInterface({ input: stream }).on('line', (line) => {
      lines.push(line);
      for (const waiter of [...this.#waiters]) {
        const match = line.match(waiter.pattern);
        if (match !== null) waiter.found(match);
      }
    });
  }

  #failure(what: string): LabError {
    return new LabError(`${this.argv.join(' ')}: ${what}\n${tail([...this.stdout, ...this.stderr].join('\n'))}`);
  }
}

/** Runs a program to its end. */
export async function run(argv: readonly string[], options: ExecOptions = {}): Promise<Result> {
  const { timeoutMs = 30_000, check = true } = options;
  const process = await Process.start(argv, options);
  let late = false;
  const timer = setTimeout(() => {
    late = true;
    process.signal('SIGKILL');
  }, timeoutMs);
  const exit = await process.exit;
  clearTimeout(timer);
  const result: Result = { ...exit, stdout: process.stdout.join('\n'), stderr: process.stderr.join('\n') };
  if (late) throw new LabError(`${argv.join(' ')}: still running after ${timeoutMs} ms\n${tail(result.stderr)}`);
  if (check && exit.code !== 0) {
    throw new LabError(`${argv.join(' ')}: exit ${exit.code ?? exit.signal}\n${tail(result.stdout)}\n${tail(result.stderr)}`);
  }
  return result;
}

function tail(text: string): string {
  return text.length > 2_000 ? `…${text.slice(-2_000)}` : text;
}

/** The lab's own environment without what steers this Node process or a Thicket of the user's. */
function environment(extra: SpawnOptions['env']): NodeJS.ProcessEnv {
  const env: NodeJS.ProcessEnv = {};
  for (const [name, value] of Object.entries({ ...process.env, ...extra })) {
    const own = extra !== undefined && name in extra;
    if (value !== undefined && (own || !/^(NODE_|THICKET_|JEST_|npm_)/.test(name))) env[name] = value;
  }
  return env;
}
