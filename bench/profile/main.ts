/**
 * Where the processors' time goes while a tunnel runs: flame graphs of the whole machine in bench/results, a process by its place in the lab, and profile.md with the
 * largest parts. Debian's perf samples by the clock, so it needs no hardware counters.
 *
 * `npm run bench -- profile [--quick] [--test='relay: tcp1 up']…`
 */
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { Lab, LabError } from '../../test/lab/index.js';
import type { World } from '../../test/world/index.js';
import { markdown } from '../report/markdown.js';
import { RESULTS } from '../shared/results.js';
import { digits } from '../shared/statistics.js';
import { measured, TESTS } from '../tunnel/measure.js';
import { type TestName, TOPOLOGIES, type Topology } from '../tunnel/results.js';
import { createWorld, serveTargets, thicket } from '../tunnel/thicket.js';
import { useSymbols } from './addon.js';
import { largest, readStacks, writeStacks } from './stacks.js';

/** Samples a second and processor: no divisor of what others do by the clock. */
const HERTZ = 997;
const USUAL = ['direct: tcp1 up', 'relay: tcp1 up', 'relay: udp200 up', 'relay: ping idle'];
const MOST = 40;
/** perf script's text of some seconds. */
const ROOM = 2 ** 30;

/** Of each sample: by itself perf leaves the process out. */
const FIELDS = 'comm,pid,tid,cpu,time,event,ip,sym,dso';

interface Chosen {
  readonly topology: Topology;
  readonly test: TestName;
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      quick: { type: 'boolean', default: false },
      test: { type: 'string', multiple: true, default: USUAL },
      record: { type: 'boolean' },
      gate: { type: 'boolean' },
    },
  });
  const chosen = values.test.map(parse);
  const seconds = values.quick ? 2 : 5;
  useSymbols();
  mkdirSync(RESULTS, { recursive: true });
  const world = await createWorld();
  try {
    await serveTargets(world);
    const { routes } = await thicket(world);
    const parts = [
      '# Where the time goes',
      'Written by `npm run bench -- profile`: percent of all samples of both processors when not idle.',
    ];
    for (const { topology, test } of chosen) {
      const route = routes[topology];
      if (route === undefined) throw new LabError(`there is no topology ${topology}`);
      const name = `profile-${topology}-${test.replaceAll(' ', '-')}`;
      await measured('tcp1 up', route, 1);
      const running = measured(test, route, seconds + 2);
      await sleep(1_000);
      const [stacks, { value, unit }] = await Promise.all([record(world, seconds), running]);
      draw(name, `${topology}, ${test}`, writeStacks(stacks));
      parts.push(`## ${topology}, ${test}: ${digits(value)} ${unit}`, `![](${name}.svg)`);
      const table = (head: string, of: Parameters<typeof largest>[2]): string =>
        markdown(
          [head, '%'],
          largest(stacks, MOST, of).map((part) => [part.name, part.percent.toFixed(1)]),
        );
      parts.push(table('process', ({ frames }) => frames[0] ?? ''));
      parts.push(table('function, itself', ({ frames }) => frames.at(-1) ?? ''));
      console.error(`▸ written to bench/results/${name}.svg`);
    }
    writeFileSync(join(RESULTS, 'profile.md'), `${parts.join('\n\n')}\n`);
  } finally {
    await world.destroy();
  }
}

function parse(text: string): Chosen {
  const [topology, test] = text.split(/:\s*/);
  const found = {
    topology: TOPOLOGIES.find((one) => one === topology),
    test: (Object.keys(TESTS) as TestName[]).find((one) => one === test),
  };
  if (found.topology === undefined || found.test === undefined) {
    throw new LabError(`--test=${text}: TOPOLOGY: TEST is wanted, of ${TOPOLOGIES.join(', ')} and ${Object.keys(TESTS).join(', ')}`);
  }
  return { topology: found.topology, test: found.test };
}

/** The whole machine for so long. */
async function record(world: World, seconds: number): Promise<ReturnType<typeof readStacks>> {
  const data = join(world.lab.dir, 'perf.data');
  const argv = ['record', '-e', 'cpu-clock', '-F', String(HERTZ), '-a', '-g', '--no-buildid', '-o', data, '--', 'sleep', String(seconds)];
  const perf = spawn('perf', argv, { stdio: ['ignore', 'ignore', 'pipe'] });
  let complaint = '';
  perf.stderr.on('data', (chunk: Buffer) => (complaint += chunk.toString()));
  const [code] = (await once(perf, 'close')) as [number | null];
  if (code !== 0) throw new LabError(`perf ${argv.join(' ')}: ${complaint.trim()}`);
  const piped = { maxBuffer: ROOM, stdio: ['pipe', 'pipe', 'ignore'] as ['pipe', 'pipe', 'ignore'] };
  const script = execFileSync('perf', ['script', '--no-inline', '-F', FIELDS, '-i', data], piped);
  rmSync(data);
  const folded = execFileSync('inferno-collapse-perf', ['--pid', '--quiet'], { ...piped, input: script, encoding: 'utf8' });
  const names = new Map(world.nodes().map((node) => [node.process.pid, node.name as string]));
  const stacks = readStacks(folded, names);
  if (stacks.length === 0) throw new LabError('perf has no samples');
  return stacks;
}

function draw(name: string, title: string, folded: string): void {
  const svg = execFileSync('inferno-flamegraph', ['--title', title, '--hash'], { input: folded, maxBuffer: ROOM, encoding: 'utf8' });
  writeFileSync(join(RESULTS, `${name}.svg`), svg);
}

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => void Lab.destroyAll().finally(() => process.exit(1)));
}

try {
  await main();
} catch (error) {
  for (let at: unknown = error; at instanceof Error; at = at.cause) console.error(`bench/profile: ${at.message}`);
  process.exitCode = 1;
}
