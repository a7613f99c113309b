/**
 * Small parts, timed alone: sealing, opening, handshakes. Prints tables and writes bench/results/micro.json.
 *
 * `npm run bench`, or `node build/programs/bench/micro/main.js [SECONDS A FIGURE]`
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { repository } from '../../test/lab/index.js';
import { handshakeRows } from './handshakes.js';
import { machine } from './machine.js';
import { type SealRow, SIZES, sealRows } from './seal.js';

function table(title: string, rows: readonly SealRow[], cell: (row: SealRow) => string): void {
  const names = [...new Set(rows.map((row) => row.implementation))];
  console.log(`\n${title.padEnd(34)}${SIZES.map((size) => `${size} B`.padStart(16)).join('')}`);
  for (const name of names) {
    const cells = SIZES.map((size) => rows.find((row) => row.implementation === name && row.size === size));
    console.log(`  ${name.padEnd(32)}${cells.map((row) => (row === undefined ? '' : cell(row)).padStart(16)).join('')}`);
  }
}

async function main(): Promise<void> {
  const seconds = Number(process.argv[2] ?? 0.3);
  const host = machine();
  const wide = host.avx512 ? 'AVX-512 with IFMA' : host.avx2 ? 'AVX2, no AVX-512 with IFMA' : 'no AVX2';
  console.log(`${host.cpu}, ${host.cores} cores, ${wide}; Linux ${host.kernel}, Node.js ${host.node}`);
  const seal = await sealRows(seconds);
  table('nanoseconds a packet, seal / open', seal, (row) => `${row.seal.toFixed(0)} / ${row.open.toFixed(0)}`);
  table('GB/s, seal / open', seal, (row) => `${(row.size / row.seal).toFixed(2)} / ${(row.size / row.open).toFixed(2)}`);
  const handshakes = handshakeRows(Math.max(seconds, 0.5));
  console.log('\nhandshakes a second, both ends on one core');
  for (const { what, nanoseconds, margin } of handshakes) {
    console.log(`  ${what.padEnd(32)}${(1e9 / nanoseconds).toFixed(0).padStart(16)} ± ${margin.toFixed(1)} %`);
  }
  const folder = join(repository, 'bench/results');
  mkdirSync(folder, { recursive: true });
  const result = {
    machine: host,
    seal,
    handshakes: handshakes.map(({ what, nanoseconds, margin }) => ({ what, perSecond: 1e9 / nanoseconds, margin })),
  };
  writeFileSync(join(folder, 'micro.json'), `${JSON.stringify(result, null, 2)}\n`);
  console.log('\nwritten to bench/results/micro.json');
}

await main();
