/** Where figures are kept: each suite writes a file of its own, bench/report puts them together into one. */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { repository } from '../../test/lab/index.js';
import type { Cameras } from '../cameras/results.js';
import type { Isolation } from '../isolation/results.js';
import type { Micro } from '../micro/results.js';
import type { Tunnel } from '../tunnel/results.js';
import type { UserSpace } from '../userspace/results.js';
import { load, type Machine, machine, type Versions, versions } from './machine.js';

export const SCHEMA = 1;

/** How a suite was run. */
export interface Circumstances {
  readonly begun: string;
  readonly quick: boolean;
  readonly machine: Machine;
  readonly versions: Versions;
  /** The machine's load over a minute before the suite began: what else it had to do. */
  readonly loadBefore: number;
}

export interface Suites {
  readonly micro: Micro;
  readonly tunnel: Tunnel;
  readonly cameras: Cameras;
  readonly isolation: Isolation;
  readonly userspace: UserSpace;
}

export type SuiteName = keyof Suites;

/** The one document. A suite that wasn't run is missing. */
export interface Results {
  readonly schema: typeof SCHEMA;
  readonly suites: { readonly [S in SuiteName]?: Suites[S] & { readonly run: Circumstances } };
}

export const RESULTS = join(repository, 'bench', 'results');

export interface Options {
  /** Short runs and fewer of them: 4 minutes for everything. */
  readonly quick: boolean;
  /** Fail when a ratio to a peer has fallen below half of what is recorded. */
  readonly gate: boolean;
  /** Only what the targets are about, but in full. */
  readonly targets: boolean;
}

/** What every suite takes from its command line. */
export function options(): Options {
  const { values } = parseArgs({
    options: {
      quick: { type: 'boolean', default: false },
      record: { type: 'boolean' },
      gate: { type: 'boolean', default: false },
      targets: { type: 'boolean', default: false },
    },
  });
  return { quick: values.quick, gate: values.gate, targets: values.targets };
}

/** To be asked before the suite makes a load of its own. */
export function circumstances({ quick }: Pick<Options, 'quick'>): Circumstances {
  return { begun: new Date().toISOString(), quick, machine: machine(), versions: versions(), loadBefore: load() };
}

export function writeSuite<S extends SuiteName>(name: S, run: Circumstances, figures: Suites[S]): void {
  mkdirSync(RESULTS, { recursive: true });
  writeFileSync(join(RESULTS, `${name}.json`), `${JSON.stringify({ run, ...figures }, null, 1)}\n`);
  console.error(`▸ written to bench/results/${name}.json`);
}

/** What was measured last, suite by suite. */
export function readSuites(): Results {
  const names: readonly SuiteName[] = ['micro', 'tunnel', 'cameras', 'isolation', 'userspace'];
  const found = names.flatMap((name) => {
    const file = join(RESULTS, `${name}.json`);
    return existsSync(file) ? [[name, JSON.parse(readFileSync(file, 'utf8')) as unknown] as const] : [];
  });
  return { schema: SCHEMA, suites: Object.fromEntries(found) as Results['suites'] };
}
