/** The event loop's delay in a running node, asked from outside: see delay-hook.ts. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { repository, waitFor } from '../../test/lab/index.js';
import type { WorldNode } from '../../test/world/index.js';
import type { DelayRun } from './results.js';

const HOOK = join(repository, 'build/programs/bench/isolation/delay-hook.js');

export type Delays = Pick<DelayRun, 'median' | 'p99' | 'most'>;

const fileOf = (node: WorldNode): string => node.host.path('delays');

/** Starts a node with the hook in it. */
export function startWithHook(node: WorldNode): Promise<void> {
  return node.start({ env: { NODE_OPTIONS: `--import=${HOOK}`, BENCH_DELAYS: fileOf(node) } });
}

/** The delays since they were asked for last. */
export async function delaysOf(node: WorldNode): Promise<Delays> {
  const before = lines(node).length;
  node.process.signal('SIGUSR2');
  await waitFor(() => lines(node).length > before, { what: `the event loop's delays of ${node.name}` });
  return JSON.parse(lines(node).at(-1) ?? '') as Delays;
}

function lines(node: WorldNode): string[] {
  const file = fileOf(node);
  return existsSync(file) ? readFileSync(file, 'utf8').split('\n').slice(0, -1) : [];
}
