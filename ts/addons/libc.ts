/** Which C library this Node.js runs with: it decides which addons can be loaded, whatever else is installed. */
import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { describe, ThicketError } from '../errors.js';
import type { Libc } from './triples.js';

export interface LibcFound {
  readonly libc: Libc | undefined;
  /** `2.36`; undefined where only the family is known. */
  readonly version: string | undefined;
  /** Where that is known from. */
  readonly source: 'THICKET_LIBC' | 'maps' | 'report' | 'loader' | 'ldd' | 'none';
}

/** What is asked, from the surest to the least sure. */
export interface LibcEvidence {
  readonly override: string | undefined;
  /** /proc/self/maps, or nothing where it can't be read. */
  maps(): string;
  /** `process.report.getReport()`, or undefined where there is none. */
  report(): unknown;
  /** Names in /lib. */
  libraries(): readonly string[];
  /** What `ldd --version` prints, on either stream. */
  ldd(): string;
}

/**
 * The variable that overrides, then which library the process has mapped (its report says the same, and the version, but costs each node 2.4 MB), then whether musl's loader is there, and `ldd` last: on Alpine with a Node.js made
 * for glibc it names the wrong one (napi-rs#2593). Which package is installed proves nothing: npm before 11.11 installs those of both
 * (npm/cli#8514). Throws BAD_ARGUMENT for an override that is neither.
 */
export function detectLibc(evidence: LibcEvidence): LibcFound {
  const { override } = evidence;
  if (override !== undefined && override !== '') {
    if (override === 'glibc' || override === 'musl') return { libc: override, version: undefined, source: 'THICKET_LIBC' };
    throw new ThicketError('BAD_ARGUMENT', `THICKET_LIBC=${override} is no C library: set it to glibc or musl, or unset it`);
  }
  return (
    fromMaps(evidence.maps()) ??
    fromReport(evidence.report()) ??
    (evidence.libraries().some((name) => /^ld-musl-.*\.so/.test(name))
      ? { libc: 'musl', version: undefined, source: 'loader' }
      : undefined) ??
    fromLdd(evidence.ldd()) ?? { libc: undefined, version: undefined, source: 'none' }
  );
}

function fromMaps(maps: string): LibcFound | undefined {
  if (/\/(libc\.musl-|ld-musl-)[^/\n]*$/m.test(maps)) return { libc: 'musl', version: undefined, source: 'maps' };
  return /\/(libc\.so\.6|libc-2\.\d+\.so)$/m.test(maps) ? { libc: 'glibc', version: undefined, source: 'maps' } : undefined;
}

function fromReport(report: unknown): LibcFound | undefined {
  const { header, sharedObjects } = (report ?? {}) as {
    readonly header?: { readonly glibcVersionRuntime?: string };
    readonly sharedObjects?: readonly string[];
  };
  const glibc = header?.glibcVersionRuntime;
  if (glibc !== undefined) return { libc: 'glibc', version: glibc, source: 'report' };
  const musl = sharedObjects?.some((path) => /(^|\/)(libc\.musl-|ld-musl-)/.test(path));
  return musl ? { libc: 'musl', version: undefined, source: 'report' } : undefined;
}

function fromLdd(text: string): LibcFound | undefined {
  if (/^musl/m.test(text)) return { libc: 'musl', version: /^Version (\S+)/m.exec(text)?.[1], source: 'ldd' };
  const glibc = /(?:GLIBC|GNU libc|Free Software Foundation)/i.test(text);
  return glibc ? { libc: 'glibc', version: /^ldd .*?(\d+\.\d+)/m.exec(text)?.[1], source: 'ldd' } : undefined;
}

/** This process' own evidence. */
export function hostEvidence(env: Readonly<Record<string, string | undefined>>): LibcEvidence {
  return { override: env.THICKET_LIBC, maps, report, libraries, ldd };
}

function maps(): string {
  try {
    return readFileSync('/proc/self/maps', 'latin1');
  } catch {
    return '';
  }
}

/** Without the network: it would look up the names of all that the process is connected to (nodejs/node#55576). */
function report(): unknown {
  const maker = process.report as (typeof process.report & { excludeNetwork?: boolean }) | undefined;
  if (maker === undefined) return undefined;
  const before = maker.excludeNetwork ?? false;
  maker.excludeNetwork = true;
  try {
    return maker.getReport();
  } finally {
    maker.excludeNetwork = before;
  }
}

function libraries(): readonly string[] {
  try {
    return readdirSync('/lib');
  } catch {
    return [];
  }
}

function ldd(): string {
  try {
    return execFileSync('ldd', ['--version'], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'], timeout: 2_000 });
  } catch (error) {
    // musl's prints its version to stderr and fails.
    const { stderr } = error as { readonly stderr?: string };
    return stderr ?? describe(error);
  }
}
