/** What a figure depends on besides the code. */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { availableParallelism, cpus, loadavg, release, totalmem } from 'node:os';
import { repository } from '../../test/lab/index.js';

export interface Machine {
  readonly cpu: string;
  readonly cores: number;
  readonly memoryMiB: number;
  readonly kernel: string;
  readonly avx2: boolean;
  /** With IFMA, which a wide Poly1305 needs. */
  readonly avx512: boolean;
}

export interface Versions {
  readonly thicket: string;
  /** The commit measured; with a `+` where files differed from it. */
  readonly commit: string;
  readonly node: string;
  readonly rustc: string;
}

export function machine(): Machine {
  const flags = new Set(/^flags\s*:(.*)$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1]?.split(' '));
  return {
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    cores: availableParallelism(),
    memoryMiB: Math.round(totalmem() / 2 ** 20),
    kernel: release(),
    avx2: flags.has('avx2'),
    avx512: flags.has('avx512f') && flags.has('avx512ifma'),
  };
}

export function versions(): Versions {
  const { version } = JSON.parse(readFileSync(`${repository}/package.json`, 'utf8')) as { version: string };
  const dirty = told('git', ['status', '--porcelain', '--untracked-files=no']) !== '';
  return {
    thicket: version,
    commit: `${told('git', ['rev-parse', '--short', 'HEAD'])}${dirty ? '+' : ''}`,
    node: process.version,
    rustc: told('rustc', ['--version']).replace(/^rustc (\S+).*/, '$1'),
  };
}

/** The machine's load over the last minute: how much others had of it. */
export function load(): number {
  return Math.round((loadavg()[0] ?? 0) * 100) / 100;
}

function told(program: string, args: readonly string[]): string {
  try {
    return execFileSync(program, args, { encoding: 'utf8', cwd: repository, stdio: ['ignore', 'pipe', 'ignore'] }).trim();
  } catch {
    return 'unknown';
  }
}
