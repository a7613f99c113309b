/**
 * Small parts, timed alone: sealing, opening, handshakes, certificates, look-ups, DNS answers, headers. Prints tables and writes
 * bench/results/micro.json.
 *
 * `npm run bench -- micro [--quick]`
 */
import { circumstances, options, writeSuite } from '../shared/results.js';
import { digits } from '../shared/statistics.js';
import { certificateRows } from './certificates.js';
import { dnsRows } from './dns.js';
import { handshakeRows } from './handshakes.js';
import { headerRows } from './headers.js';
import type { Micro, RateRow, SealRow } from './results.js';
import { routeRows } from './routes.js';
import { SIZES, sealRows } from './seal.js';

const NODES = [1_000, 10_000, 100_000, 1_000_000] as const;

function sealTable(title: string, rows: readonly SealRow[], cell: (row: SealRow) => string): void {
  const names = [...new Set(rows.map((row) => row.implementation))];
  console.log(`\n${title.padEnd(40)}${SIZES.map((size) => `${size} B`.padStart(16)).join('')}`);
  for (const name of names) {
    const cells = SIZES.map((size) => rows.find((row) => row.implementation === name && row.size === size));
    console.log(`  ${name.padEnd(38)}${cells.map((row) => (row === undefined ? '' : cell(row)).padStart(16)).join('')}`);
  }
}

function rateTable(title: string, rows: readonly RateRow[]): void {
  console.log(`\n${title}`);
  for (const { what, perSecond, margin } of rows) {
    console.log(`  ${what.padEnd(32)}${digits(perSecond).padStart(16)}${margin > 0 ? ` ± ${margin.toFixed(1)} %` : ''}`);
  }
}

const chosen = options();
const run = circumstances(chosen);
const { machine } = run;
const wide = machine.avx512 ? 'AVX-512 with IFMA' : machine.avx2 ? 'AVX2, no AVX-512 with IFMA' : 'no AVX2';
console.log(
  `${machine.cpu}, ${machine.cores} cores, ${wide}; Linux ${machine.kernel}, Node.js ${run.versions.node}; load ${run.loadBefore}`,
);
const seconds = chosen.quick ? 0.1 : 0.3;
const longer = chosen.quick ? 0.5 : 2;

const seal = sealRows(seconds);
sealTable('nanoseconds a packet, seal / open', seal, (row) => `${row.seal.toFixed(0)} / ${row.open.toFixed(0)}`);
sealTable('GB/s, seal / open', seal, (row) => `${(row.size / row.seal).toFixed(2)} / ${(row.size / row.open).toFixed(2)}`);
const handshakes = handshakeRows(longer).map(({ what, nanoseconds, margin }) => ({ what, perSecond: 1e9 / nanoseconds, margin }));
rateTable('handshakes a second, both ends on one core', handshakes);
const certificates = certificateRows(longer);
rateTable('checks of certificates a second', certificates);
const routes = routeRows(chosen.quick ? NODES.slice(0, 3) : NODES, longer);
rateTable(
  'look-ups in the routing table a second',
  routes.map((row) => ({ ...row, what: `${row.nodes.toLocaleString('en-US')} nodes` })),
);
const dns = await dnsRows(longer);
rateTable('DNS answers a second', dns);
const headers = await headerRows(seconds);
rateTable('headers a second', headers);
const figures: Micro = { seal, handshakes, certificates, routes, dns, headers };
writeSuite('micro', run, figures);
