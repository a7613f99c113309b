/**
 * Instructions per sealed, relayed and opened packet, of the core alone. callgrind counts what valgrind can run; it hides AVX-512 from whoever asks, so
 * that path is stepped from mark to mark, where the processor has it.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { LabError, repository, run } from '../../test/lab/index.js';
import { machine } from '../shared/machine.js';
import { type Counts, type Figures, STAGES } from './recorded.js';

type Stage = (typeof STAGES)[number];

const PROGRAM = join(repository, 'native/target/release/examples/instructions');
const STEP = join(repository, 'bench/gates/step.py');
/** One packet in many is sealed twice, by a check: over so many rounds its part is whole. */
const ROUNDS = 64;
const TIMEOUT = { timeoutMs: 300_000 };

/** Throws unless the program is there: `build_gates` in scripts/common.sh builds it. */
export async function instructions(): Promise<Figures['instructions']> {
  if (!existsSync(PROGRAM)) throw new LabError(`${PROGRAM} is not there: build it by npm test or npm run bench -- gates`);
  const host = machine();
  const found: Record<string, Record<string, Counts>> = {
    ring: { bulk: await counted('ring', 'bulk'), datagram: await counted('ring', 'datagram') },
  };
  // Single datagrams are ring's, whatever the processor has.
  if (host.avx2) found['AVX2'] = { bulk: await counted('avx2', 'bulk') };
  if (host.avx512) found['AVX-512'] = { bulk: await stepped('avx512', 'bulk') };
  return found;
}

async function counted(kernel: string, load: string): Promise<Counts> {
  const count = async (stage: Stage, rounds: number): Promise<readonly [number, number]> => {
    const valgrind = ['valgrind', '--tool=callgrind', '--callgrind-out-file=/dev/null'];
    const { stdout, stderr } = await run([...valgrind, PROGRAM, kernel, load, stage, String(rounds)], TIMEOUT);
    const total = Number(/Collected : (\d+)/.exec(stderr)?.[1]);
    return [total, datagrams(stdout)];
  };
  // What comes before the first mark is the same in every run.
  const [before] = await count('seal', 0);
  return each(async (stage) => {
    const [total, packets] = await count(stage, ROUNDS);
    return (total - before) / packets;
  });
}

async function stepped(kernel: string, load: string): Promise<Counts> {
  return each(async (stage) => {
    const { stdout, stderr } = await run(['python3', STEP, PROGRAM, kernel, load, stage, '1'], TIMEOUT);
    return Number(stdout) / datagrams(stderr);
  });
}

/** Each stage's own part of what leads up to it. */
async function each(upTo: (stage: Stage) => Promise<number>): Promise<Counts> {
  const [seal = Number.NaN, relay = Number.NaN, open = Number.NaN] = [await upTo(STAGES[0]), await upTo(STAGES[1]), await upTo(STAGES[2])];
  const counts = { seal, relay: relay - seal, open: open - relay };
  const rounded = Object.entries(counts).map(([stage, count]) => {
    if (!(count > 0)) throw new LabError(`${count} instructions to ${stage} a packet: that was not counted right`);
    return [stage, Math.round(count)] as const;
  });
  return Object.fromEntries(rounded) as unknown as Counts;
}

function datagrams(output: string): number {
  return Number(/"datagrams":(\d+)/.exec(output)?.[1]);
}
