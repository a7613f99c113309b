/** One Thicket node of the world, run through the CLI as a user runs it. */
import { join } from 'node:path';
import { stringify } from 'yaml';
import { ControlClient } from '../../ts/control/client.js';
import type { RouteDocument, StatusDocument } from '../../ts/control/documents.js';
import { type Exit, type Host, LabError, type Process, type Result, type StartOptions, waitFor } from '../lab/index.js';
import type { NodeConfig, NodeName, NodePlan } from './plan.js';

const START_MS = 20_000;
/** Root in name only. */
const UNPRIVILEGED = ['setpriv', '--bounding-set=-all', '--inh-caps=-all', '--no-new-privs'];

export class WorldNode {
  readonly name: NodeName;
  readonly host: Host;
  readonly plan: NodePlan;
  /** Its public key, which is its address. */
  readonly key: string;
  #config: NodeConfig;
  #process: Process | undefined;
  /** What earlier runs of this node wrote. */
  readonly #past: string[] = [];

  constructor(host: Host, name: NodeName, plan: NodePlan, key: string, config: NodeConfig) {
    this.host = host;
    this.name = name;
    this.plan = plan;
    this.key = key;
    this.#config = config;
    this.setConfig(config);
  }

  /** Where its thicket.yaml lies. */
  get configFile(): string {
    return this.host.path('thicket.yaml');
  }

  get config(): NodeConfig {
    return this.#config;
  }

  /** Writes another thicket.yaml; `reload` or `restart` makes the node read it. */
  setConfig(config: NodeConfig): void {
    this.#config = config;
    this.host.write('thicket.yaml', stringify(config));
  }

  get running(): boolean {
    return this.#process?.running ?? false;
  }

  /** The running program, or the last one. */
  get process(): Process {
    if (this.#process === undefined) throw new LabError(`${this.name} was never started`);
    return this.#process;
  }

  /** All that the node printed, over all its runs. */
  get log(): string {
    const now = this.#process === undefined ? [] : [...this.#process.stdout, ...this.#process.stderr];
    return [...this.#past, ...now].join('\n');
  }

  /** Starts `thicket up`; resolves when the node says that it is up: its link to the parent stands. */
  async start(options: StartOptions = {}): Promise<void> {
    const process = await this.launch(options);
    const up = waitFor(() => !process.running || this.#isUp(), { timeoutMs: START_MS, what: `${this.name} up` });
    await up.catch((cause: unknown) => {
      throw new LabError(`${this.name} does not come up within ${START_MS} ms:\n${this.#tail()}`, { cause });
    });
    if (!process.running) throw new LabError(`${this.name} ended at its start:\n${this.#tail()}`);
  }

  /** Starts `thicket up` and returns at once: it may fail. */
  async launch(options: StartOptions = {}): Promise<Process> {
    if (this.running) throw new LabError(`${this.name} runs already`);
    if (this.#process !== undefined) this.#past.push(...this.#process.stdout, ...this.#process.stderr);
    const { userspace, backend } = this.plan;
    const env = { ...(backend === undefined ? {} : { THICKET_BACKEND: backend }), ...options.env };
    this.#process = await this.host.spawnThicket(['up', '--config', this.configFile], {
      under: userspace === true && this.host.netns !== '' ? UNPRIVILEGED : [],
      ...options,
      env,
    });
    return this.#process;
  }

  /** SIGTERM; resolves when the program has ended. */
  async stop(): Promise<Exit> {
    return this.process.kill('SIGTERM');
  }

  /** kill -9: nothing is cleaned up. `ip netns exec` has become the node itself by then, so this hits the node. */
  async killHard(): Promise<void> {
    await this.process.kill('SIGKILL');
  }

  async restart(): Promise<void> {
    if (this.running) await this.stop();
    await this.start();
  }

  /** `host:port` at which programs on this host reach a TCP service of the home network: by its name, or by a forward where there is no interface. */
  at(endpoint: string, port: number): string {
    const name = `${endpoint}.home.thicket`;
    if (this.plan.userspace !== true) return `${name}:${port}`;
    const forward = this.config.forwards?.find(({ to }) => to === `${name}:${port}`);
    if (forward === undefined) throw new LabError(`${this.name} has no forward to ${name}:${port}`);
    return forward.listen;
  }

  /** What `thicket status --json` says, asked for without the quarter of a second that a command takes. */
  status(): Promise<StatusDocument> {
    return this.#ask('/v1/status');
  }

  routes(): Promise<readonly RouteDocument[]> {
    return this.#ask('/v1/routes');
  }

  /** Runs `thicket ARGS` on this node's machine. */
  thicket(args: readonly string[], options: { readonly check?: boolean; readonly timeoutMs?: number } = {}): Promise<Result> {
    return this.host.thicket(args, options);
  }

  /** Runs `thicket ARGS --json` on this node's machine. */
  json<T>(args: readonly string[]): Promise<T> {
    return this.host.thicketJson<T>(args);
  }

  /** What the system's resolver says of a name; throws when nothing. */
  async lookup(name: string, family: 4 | 6): Promise<string> {
    const { stdout } = await this.host.exec(['getent', family === 4 ? 'ahostsv4' : 'ahostsv6', name]);
    const address = /^\S+/.exec(stdout)?.[0];
    // getent maps IPv4 into IPv6 when there is no AAAA.
    if (address === undefined || address.startsWith('::ffff:')) throw new LabError(`${this.name}: ${name} has no IPv${family} address`);
    return address;
  }

  async #isUp(): Promise<boolean> {
    return (await this.status()).state === 'up';
  }

  async #ask<T>(path: string): Promise<T> {
    const client = new ControlClient(join(this.host.state, 'control.sock'));
    try {
      return await client.call<T>('GET', path);
    } finally {
      await client.close();
    }
  }

  #tail(): string {
    return this.log.split('\n').slice(-30).join('\n');
  }
}
