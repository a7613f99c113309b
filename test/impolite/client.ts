/** Drives the impolite client's program, here or in a host's network namespace. */
import { type ChildProcess, spawn } from 'node:child_process';
import { join } from 'node:path';
import { createInterface, type Interface } from 'node:readline';
import type { PublicKey } from '../../ts/trust/index.js';
import { LabError } from '../lab/errors.js';
import { repository } from '../lab/repository.js';
import type { Order, Reply, Results } from './protocol.js';

/** Compiled by `build_programs` of scripts/common.sh. */
const PROGRAM = join(repository, 'build/programs/test/impolite/main.js');

export interface ImpoliteOptions {
  /** State directory of an enrolled node that isn't running. */
  readonly state: string;
  /** `udp://host:port#key`. */
  readonly parent: string;
  /** `udp://host:port`: be a relay there, one that does as it should. Default: a leaf. */
  readonly listen?: string;
  /** Network namespace; default: where the test runs. */
  readonly netns?: string;
}

interface Waiter {
  resolve(reply: Reply): void;
  reject(error: Error): void;
}

export class ImpoliteClient {
  readonly key: PublicKey;
  readonly #child: ChildProcess;
  readonly #waiters: Map<number, Waiter>;
  #next = 1;

  /** Resolves when its link to the parent is up. */
  static async start(options: ImpoliteOptions): Promise<ImpoliteClient> {
    const inside = options.netns === undefined ? [] : ['ip', 'netns', 'exec', options.netns];
    const [command = '', ...args] = [
      ...inside,
      process.execPath,
      PROGRAM,
      options.state,
      options.parent,
      ...(options.listen === undefined ? [] : [options.listen]),
    ];
    const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => name !== 'NODE_OPTIONS'));
    const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'pipe'], env });
    let complaint = '';
    child.stderr.on('data', (chunk: Buffer) => {
      complaint += chunk.toString();
    });
    child.stdin.on('error', () => undefined);
    const lines = createInterface({ input: child.stdout });
    const key = await new Promise<PublicKey>((resolve, reject) => {
      child.once('error', (cause) => reject(new LabError('the impolite client does not start', { cause })));
      child.once('close', () => reject(new LabError(`the impolite client ended: ${complaint.trim()}`)));
      lines.once('line', (line) => resolve(line.replace('ready ', '') as PublicKey));
    });
    return new ImpoliteClient(key, child, lines);
  }

  private constructor(key: PublicKey, child: ChildProcess, lines: Interface) {
    this.key = key;
    this.#child = child;
    this.#waiters = new Map();
    lines.on('line', (line) => {
      const reply = JSON.parse(line) as Reply;
      this.#waiters.get(reply.id)?.resolve(reply);
      this.#waiters.delete(reply.id);
    });
    child.once('close', () => {
      for (const waiter of this.#waiters.values()) waiter.reject(new LabError('the impolite client ended'));
    });
  }

  /** Resolves when it is done; rejects with what went wrong. */
  async order<O extends Order>(order: O): Promise<Results[O['do']]> {
    const id = this.#next;
    this.#next += 1;
    const reply = await new Promise<Reply>((resolve, reject) => {
      this.#waiters.set(id, { resolve, reject });
      if (this.#child.exitCode !== null || this.#child.signalCode !== null) reject(new LabError('the impolite client has ended'));
      else this.#child.stdin?.write(`${JSON.stringify({ id, order })}\n`);
    });
    if (!reply.ok) throw new LabError(`${order.do}: ${reply.error}`);
    return reply.result as Results[O['do']];
  }

  /** Says goodbye and ends. */
  async stop(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const ended = new Promise<void>((resolve) => this.#child.once('close', () => resolve()));
    await this.order({ do: 'stop' }).catch(() => this.#child.kill('SIGKILL'));
    await ended;
  }
}
