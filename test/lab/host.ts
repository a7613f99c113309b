/** One host of the lab: a network namespace with a folder of its own. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { LabError } from './errors.js';
import { type ExecOptions, Process, type Result, run, type SpawnOptions } from './process.js';
import { thicketProgram } from './repository.js';

export interface StartOptions extends SpawnOptions {
  /** A program, with its arguments, that starts it. */
  readonly under?: readonly string[];
}

export interface HostOptions {
  readonly name: string;
  /** Absent: it has no namespace of its own and stands on loopback. */
  readonly netns?: string;
  readonly dir: string;
  /** The address that others reach it at. */
  readonly address: string;
  readonly ip4: string;
  readonly ip6: string;
  /** Added to every port. Default 0. */
  readonly ports?: number;
}

export class Host {
  readonly name: string;
  /** The network namespace's name, as `ip netns` knows it; empty without one. */
  readonly netns: string;
  /** A folder of this host's own, mode 0700, removed with the lab. */
  readonly dir: string;
  /** The address that others reach it at: of the underlay's family for Internet hosts, the LAN address for devices. */
  readonly address: string;
  /** Underlay (or LAN) address; empty where the host has none of this family. */
  readonly ip4: string;
  readonly ip6: string;
  readonly #within: readonly string[];
  readonly #ports: number;
  readonly #processes = new Set<Process>();

  constructor(options: HostOptions) {
    this.name = options.name;
    this.netns = options.netns ?? '';
    this.#within = options.netns === undefined ? [] : ['ip', 'netns', 'exec', options.netns];
    this.#ports = options.ports ?? 0;
    this.dir = options.dir;
    this.address = options.address;
    this.ip4 = options.ip4;
    this.ip6 = options.ip6;
    mkdirSync(this.dir, { mode: 0o700 });
  }

  /** Thicket's state directory on this host. Not made here: Thicket makes it. */
  get state(): string {
    return join(this.dir, 'state');
  }

  /** Where programs of this host listen for each other. */
  get loopback(): string {
    return this.netns === '' ? this.address : '127.0.0.1';
  }

  /** The port that stands for this one here: another where not everybody may have it. */
  port(wanted: number): number {
    return wanted + this.#ports;
  }

  /** `udp://address:port`, as `listen` and `parents` want it. */
  url(port = 7117): string {
    return `udp://${this.address.includes(':') ? `[${this.address}]` : this.address}:${port}`;
  }

  /** A path in this host's folder. */
  path(...parts: string[]): string {
    return join(this.dir, ...parts);
  }

  /** Writes a file into this host's folder and returns its path. */
  write(name: string, content: string | Uint8Array, mode = 0o600): string {
    const file = this.path(name);
    writeFileSync(file, content, { mode });
    return file;
  }

  /**
   * Writes /etc/NAME as programs on this host see it. `ip netns exec` mounts it over the real one at their start: programs already running see
   * the change only when NAME was there before.
   */
  etc(name: string, content: string): void {
    if (this.netns === '') return;
    const file = join('/etc/netns', this.netns, name);
    mkdirSync(join(file, '..'), { recursive: true });
    writeFileSync(file, content);
  }

  /** Runs a program here to its end. */
  exec(argv: readonly string[], options?: ExecOptions): Promise<Result> {
    return run([...this.#within, ...argv], options);
  }

  /** Starts a program here; it is killed with the lab at the latest. */
  async spawn(argv: readonly string[], options?: SpawnOptions): Promise<Process> {
    const process = await Process.start([...this.#within, ...argv], options);
    this.#processes.add(process);
    void process.exit.then(() => this.#processes.delete(process));
    return process;
  }

  /** Runs `thicket ARGS` here with this host's state directory. */
  thicket(args: readonly string[], options: ExecOptions = {}): Promise<Result> {
    return this.exec([process.execPath, thicketProgram, ...args], this.#withState(options));
  }

  /** Runs `thicket ARGS --json` here and parses what it prints. */
  async thicketJson<T>(args: readonly string[], options: ExecOptions = {}): Promise<T> {
    const { stdout } = await this.thicket([...args, '--json'], options);
    try {
      return JSON.parse(stdout) as T;
    } catch (cause) {
      throw new LabError(`thicket ${args.join(' ')} --json printed no JSON document:\n${stdout}`, { cause });
    }
  }

  /** Starts `thicket ARGS` here (`up`, `forward`) with this host's state directory. */
  spawnThicket(args: readonly string[], options: StartOptions = {}): Promise<Process> {
    const { under = [], ...rest } = options;
    return this.spawn([...under, process.execPath, thicketProgram, ...args], this.#withState(rest));
  }

  /** Whatever a well-behaved program leaves as it found it: addresses, routes, rules, nft rules, forwarding, resolver. One text to compare. */
  async snapshot(): Promise<string> {
    const script = [
      'ip -o addr',
      'ip rule',
      'ip -6 rule',
      'ip route show table all',
      'ip -6 route show table all',
      'nft list ruleset',
      'sysctl -a -r "^net[.]ipv[46][.](ip_forward|conf[.].*[.](forwarding|rp_filter|accept_local|route_localnet|src_valid_mark))$"',
      'cat /etc/resolv.conf',
    ];
    const { stdout } = await this.exec(['sh', '-c', script.join(' && echo -- && ')]);
    // Lifetimes count down; IPv6 multicast routes come late by themselves.
    return stdout
      .split('\n')
      .map((line) => line.replace(/ expires \d+sec/, '').replace(/(valid|preferred)_lft \d+sec/g, '$1_lft'))
      .filter((line) => !/^(multicast|anycast) /.test(line))
      .join('\n');
  }

  /** Ends every program started here by `spawn`. */
  async killAll(): Promise<void> {
    await Promise.all([...this.#processes].map((process) => process.kill('SIGKILL')));
  }

  #withState<T extends SpawnOptions>(options: T): T {
    return { ...options, env: { THICKET_STATE: this.state, ...options.env } };
  }
}
