/**
 * A place to install into, without any network but a registry on loopback that has only our packages, and without compilers: a network namespace of its own and a
 * folder of programs that is all of PATH.
 */
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { DoctorDocument } from '../../ts/doctor/index.js';
import { type ExecOptions, Process, type Result, repository, run } from '../lab/index.js';

/** Where scripts/package.sh leaves the tarballs. */
export const packages = join(repository, 'build/packages');
export const { version } = JSON.parse(readFileSync(join(repository, 'package.json'), 'utf8')) as { readonly version: string };

/** Programs of an ordinary host that npm, Yarn, pnpm or the loader may run. */
const PROGRAMS = ['sh', 'env', 'uname', 'ldd', 'cat', 'sed', 'dirname', 'basename', 'readlink'];
/** Whose absence is proven. */
const COMPILERS = [
  'cc',
  'gcc',
  'g++',
  'c++',
  'clang',
  'make',
  'cmake',
  'cargo',
  'rustc',
  'python3',
  'zig',
  'node-gyp',
  'cmake-js',
  'git',
  'curl',
];

export const tarball = (name: string): string => join(packages, `${name.replace('@', '').replace('/', '-')}-${version}.tgz`);
/** The triples whose packages were made. */
export const made = (): readonly string[] =>
  readdirSync(packages).flatMap((file) => /^thicket-(linux-.*)-\d+\.\d+\.\d+[^-]*\.tgz$/.exec(file)?.[1] ?? []);

export class Shop {
  readonly folder: string;
  readonly #registry: Process;
  readonly #url: string;
  /** What enters its network: not in its PATH, where it has no business. */
  readonly #enter: string;

  private constructor(folder: string, registry: Process, url: string, enter: string) {
    this.#enter = enter;
    this.folder = folder;
    this.#registry = registry;
    this.#url = url;
  }

  static async open(): Promise<Shop> {
    const folder = mkdtempSync(join(tmpdir(), 'thicket-shop-'));
    const bin = join(folder, 'bin');
    mkdirSync(bin);
    const find = async (program: string): Promise<string> => (await run(['which', program])).stdout.trim();
    for (const program of PROGRAMS) symlinkSync(await find(program), join(bin, program));
    symlinkSync(process.execPath, join(bin, 'node'));
    const server = [process.execPath, join(repository, 'test/fixtures/registry.mjs'), packages];
    const registry = await Process.start(['unshare', '-n', 'sh', '-c', 'ip link set lo up && exec "$@"', 'sh', ...server]);
    try {
      const [url] = await registry.waitForLine(/^http:.*/);
      const shop = new Shop(folder, registry, url, await find('nsenter'));
      await shop.#prove();
      return shop;
    } catch (error) {
      await registry.kill('SIGKILL');
      throw error;
    }
  }

  async close(): Promise<void> {
    await this.#registry.kill('SIGKILL');
    rmSync(this.folder, { recursive: true, force: true });
  }

  /** Names of packages that somebody asked for and that aren't ours. */
  get asked(): readonly string[] {
    return this.#registry.stdout.filter((line) => line.startsWith('unknown ')).map((line) => line.slice('unknown '.length));
  }

  /** A folder in the shop, with these files. */
  place(name: string, files: Readonly<Record<string, unknown>> = {}): string {
    const folder = join(this.folder, name);
    mkdirSync(folder, { recursive: true });
    for (const [file, content] of Object.entries(files)) {
      writeFileSync(join(folder, file), typeof content === 'string' ? content : JSON.stringify(content));
    }
    return folder;
  }

  /** A program of the shop's own PATH, in its network. */
  exec(argv: readonly string[], options: ExecOptions = {}): Promise<Result> {
    return run([this.#enter, '-t', String(this.#registry.pid), '-n', ...argv], {
      timeoutMs: 60_000,
      ...options,
      env: {
        PATH: join(this.folder, 'bin'),
        HOME: this.folder,
        NODE_OPTIONS: undefined,
        NODE_PATH: undefined,
        THICKET_STATE: join(this.folder, 'state'),
        npm_config_registry: this.#url,
        npm_config_cache: join(this.folder, 'npm-cache'),
        npm_config_update_notifier: 'false',
        npm_config_audit: 'false',
        npm_config_fund: 'false',
        YARN_NPM_REGISTRY_SERVER: this.#url,
        YARN_UNSAFE_HTTP_WHITELIST: '127.0.0.1',
        YARN_ENABLE_TELEMETRY: '0',
        YARN_ENABLE_IMMUTABLE_INSTALLS: 'false',
        YARN_NPM_MINIMAL_AGE_GATE: '0',
        CI: 'true',
        ...options.env,
      },
    });
  }

  npm(args: readonly string[], options: ExecOptions = {}): Promise<Result> {
    return this.exec([process.execPath, npmProgram(), ...args], options);
  }

  /** Yarn or pnpm, by the file that `node` runs. */
  tool(path: string, args: readonly string[], options: ExecOptions = {}): Promise<Result> {
    const { MANAGERS = '' } = process.env;
    return this.exec([process.execPath, join(MANAGERS, path), ...args], options);
  }

  /** What the installed `thicket` in `folder` prints for `doctor --json`, whatever its exit code. */
  async doctor(program: readonly string[], options: ExecOptions = {}): Promise<DoctorDocument> {
    const { stdout, stderr } = await this.exec([...program, 'doctor', '--json'], { check: false, ...options });
    if (stdout === '') throw new Error(`no document: ${stderr}`);
    return JSON.parse(stdout) as DoctorDocument;
  }

  /** That no compiler can be found and no other host reached. */
  async #prove(): Promise<void> {
    const found = await this.exec(['sh', '-c', `for p in ${COMPILERS.join(' ')}; do command -v "$p"; done; true`]);
    if (found.stdout !== '') throw new Error(`the shop has ${found.stdout.trim()}`);
    const dial = "require('net').connect(80, '192.0.2.1').on('error', (error) => console.log(error.code))";
    const { stdout } = await this.exec(['node', '-e', dial]);
    if (stdout.trim() !== 'ENETUNREACH') throw new Error(`the shop has a network: ${stdout}`);
  }
}

/** That comes with this Node.js, or the one that runs this test. */
function npmProgram(): string {
  return process.env.npm_execpath?.endsWith('npm-cli.js')
    ? process.env.npm_execpath
    : join(process.execPath, '../../lib/node_modules/npm/bin/npm-cli.js');
}
