/** Results as Markdown. */
import type { Circumstances, Results } from '../shared/results.js';
import { digits, type Spread } from '../shared/statistics.js';
import { runsOf } from '../tunnel/ratios.js';
import { type Run, type TestName, TOPOLOGIES, type Topology, TRAIN_SIZES, type Trains } from '../tunnel/results.js';
import { isolationParts, isolationSummary } from './isolation.js';
import { full, markdown, title } from './markdown.js';
import { figure, type Target, targets } from './targets.js';
import { userSpaceParts } from './userspace.js';

const NAMES: Readonly<Record<Topology, string>> = {
  direct: 'no relay',
  relay: 'one relay',
  three: 'three relays',
  dnat: 'one relay, DNAT to a LAN host',
};
const TESTS: Readonly<Record<TestName, string>> = {
  'tcp1 up': 'TCP, one stream, up, Gbit/s',
  'tcp1 down': 'TCP, one stream, down, Gbit/s',
  'tcp4 up': 'TCP, four streams, up, Gbit/s',
  'tcp4 down': 'TCP, four streams, down, Gbit/s',
  'udp200 up': 'datagrams of 200 bytes, up, thousands a second',
  'udp1316 up': 'datagrams of 1,316 bytes, up, thousands a second',
  'udp1316 down': 'datagrams of 1,316 bytes, down, thousands a second',
  'ping idle': 'ping, idle, ms',
  'ping loaded': 'ping beside a TCP stream, ms',
};

/** What stands in the README. */
export function summary(results: Results): string {
  const { tunnel, isolation } = results.suites;
  if (tunnel === undefined) return 'Not measured yet.';
  const { runs, tunnels, seconds, rounds, run } = tunnel;
  const columns = Object.entries(tunnels);
  const head = ['', ...columns.map(([name, version]) => (version === '' || name === 'thicket' ? title(name) : `${name} ${date(version)}`))];
  const cpu = (one: Run): number | undefined => one.cpuPerGB;
  const lines: (readonly string[])[] = [];
  for (const topology of ['direct', 'relay'] as const) {
    const cells = (test: TestName, of?: (run: Run) => number | undefined): string[] =>
      columns.map(([tunnel]) => short(figure(runs, { tunnel, topology, test }, of)));
    lines.push([`${NAMES[topology]}: TCP, one stream, Gbit/s`, ...cells('tcp1 up')]);
    lines.push([`${NAMES[topology]}: processor seconds per GB, all its processes`, ...cells('tcp1 up', cpu)]);
    lines.push([`${NAMES[topology]}: datagrams of 200 bytes, thousands a second`, ...cells('udp200 up')]);
    lines.push([`${NAMES[topology]}: ping, ms`, ...cells('ping idle')]);
  }
  const told = `Medians of ${rounds} runs of ${seconds} s by turns. ${where(run)} Both ends, the relay and iperf3 share these cores. More, and how much runs differed: `;
  const kept = lines.filter((cells) => cells.slice(1).some((cell) => cell !== ''));
  const beside = isolation === undefined ? [] : [isolationSummary(isolation)];
  return [`${told}[bench/figures](bench/figures/table.md).`, markdown(head, kept), ...beside].join('\n\n');
}

/** All that was measured. */
export function document(results: Results): string {
  const { micro, tunnel, cameras, isolation, userspace } = results.suites;
  const parts = [
    '# Figures',
    'Written by `npm run bench`; not to be edited. A cell is a median (least – most).',
    '## Targets',
    targetTable(results),
  ];
  if (tunnel !== undefined) {
    const columns = Object.keys(tunnel.tunnels);
    parts.push('## Tunnels', `${where(tunnel.run)} ${tunnel.rounds} runs of ${tunnel.seconds} s by turns. TUN offload: ${tunnel.offload}.`);
    parts.push('![throughput](throughput.svg)', '![processor time](cpu.svg)', '![small datagrams](datagrams.svg)');
    for (const topology of TOPOLOGIES) {
      const rows = (Object.keys(TESTS) as TestName[]).flatMap((test) => {
        const found = columns.map((name) => figure(tunnel.runs, { tunnel: name, topology, test }));
        const spent = columns.map((name) => figure(tunnel.runs, { tunnel: name, topology, test }, (run) => run.cpuPerGB));
        if (found.every((cell) => cell === undefined)) return [];
        const cells = found.map((cell, index) =>
          spent[index] === undefined ? full(cell) : `${full(cell)}; ${digits(spent[index].median)} s/GB`,
        );
        return [[TESTS[test], ...cells]];
      });
      const resident = columns.map((name) => most(tunnel.runs.filter((run) => run.tunnel === name && run.topology === topology)));
      if (rows.length > 0 && resident.some((cell) => cell !== ''))
        rows.push(['resident memory of the (first) relay, at most, MiB', ...resident]);
      if (rows.length > 0) parts.push(`### ${title(NAMES[topology])}`, markdown(['', ...columns.map(title)], rows));
    }
  }
  if (tunnel !== undefined) parts.push(...trainParts(tunnel.runs));
  if (cameras !== undefined) {
    const rows = cameras.runs.map((run) => [
      String(run.streams),
      title(run.tunnel),
      `${run.lost} of ${run.packets.toLocaleString('en-US')}`,
      String(run.late),
      ...[run.delay.median, run.delay.p99, run.delay.most].map((ms) => ms.toFixed(2)),
      run.relayBusyPercent.toFixed(0),
    ]);
    const stream = `${cameras.bitsPerSecond / 1e6} Mbit/s, RTP packets of ${cameras.packetBytes} bytes, ${cameras.framesPerSecond} pictures a second, for ${cameras.seconds} s`;
    parts.push('## Cameras', `${where(cameras.run)} Streams of ${stream}; the relay has one core.`);
    parts.push(markdown(['streams', '', 'packets lost', 'late', 'median, ms', 'p99, ms', 'most, ms', 'relay busy, %'], rows));
  }
  if (isolation !== undefined) parts.push('## Isolation', where(isolation.run), ...isolationParts(isolation));
  if (userspace !== undefined) parts.push('## Without kernel interfaces', where(userspace.run), ...userSpaceParts(userspace));
  if (micro !== undefined) {
    const sizes = [...new Set(micro.seal.map(({ size }) => size))];
    const rows = [...new Set(micro.seal.map(({ implementation }) => implementation))].map((name) => [
      name,
      ...sizes.map((size) => {
        const row = micro.seal.find((one) => one.implementation === name && one.size === size);
        return row === undefined ? '' : `${digits(row.size / row.seal)} / ${digits(row.size / row.open)}`;
      }),
    ]);
    parts.push('## Parts', where(micro.run), '![sealing](seal.svg)');
    parts.push(markdown(['GB/s, seal / open', ...sizes.map((size) => `${size.toLocaleString('en-US')} B`)], rows));
    const rates = [
      ...micro.handshakes.map((row) => ({ ...row, what: `handshakes, both ends on one core: ${row.what}` })),
      ...micro.certificates.map((row) => ({ ...row, what: `checks of certificates: ${row.what}` })),
      ...micro.routes.map((row) => ({ ...row, what: `look-ups in a routing table of ${row.nodes.toLocaleString('en-US')} nodes` })),
      ...micro.dns.map((row) => ({ ...row, what: `DNS answers: ${row.what}` })),
      ...micro.headers.map((row) => ({ ...row, what: `headers: ${row.what}` })),
    ];
    parts.push(
      markdown(
        ['', 'a second'],
        rates.map(({ what, perSecond }) => [what, digits(perSecond)]),
      ),
    );
  }
  return `${parts.join('\n\n')}\n`;
}

/** Of the memory that was seen. */
function most(runs: readonly Run[]): string {
  const seen = runs.flatMap(({ relayMiB }) => relayMiB ?? []);
  return seen.length === 0 ? '' : digits(Math.max(...seen));
}

/** What part of the AEAD's calls had how many packets; nothing where none was counted. */
function trainParts(runs: readonly Run[]): string[] {
  const rows = TOPOLOGIES.flatMap((topology) =>
    (Object.keys(TESTS) as TestName[]).flatMap((test) => {
      const trains = runsOf(runs, { tunnel: 'thicket', topology, test }).flatMap((run) => run.trains ?? []);
      if (trains.length === 0) return [];
      const cells = TRAIN_SIZES.map((_, size) => `${percent(trains, 'sealed', size)} / ${percent(trains, 'opened', size)}`);
      return [[`${NAMES[topology]}: ${TESTS[test].replace(/, [^,]*$/, '')}`, ...cells]];
    }),
  );
  const what = 'Packets in one call that seals (where the payload comes from) / that opens (where it goes to): percent of the calls.';
  return rows.length === 0 ? [] : ['### How full trains are', what, markdown(['', ...TRAIN_SIZES], rows)];
}

function percent(trains: readonly Trains[], what: keyof Trains, size: number): string {
  const sum = (counts: readonly number[]): number => counts.reduce((a, b) => a + b, 0);
  const all = sum(trains.map((one) => sum(one[what])));
  return all === 0 ? '–' : ((sum(trains.map((one) => one[what][size] ?? 0)) / all) * 100).toFixed(0);
}

function targetTable(results: Results): string {
  const rows = targets(results).map((row) => [
    row.what,
    bound(row, row.target),
    row.stretch === undefined ? '' : bound(row, row.stretch),
    row.measured === undefined ? '' : `${full(row.measured)} ${row.unit}`,
    row.verdict === 'not reached' ? '**not reached**' : row.verdict,
  ]);
  return markdown(['', 'target', 'stretch: the target with AVX-512', 'measured', ''], rows);
}

const bound = ({ atLeast, unit }: Target, value: number): string => `${atLeast ? '≥' : '≤'} ${value} ${unit}`;

function where({ machine, versions, loadBefore, begun, quick }: Circumstances): string {
  const wide = machine.avx512 ? 'AVX-512' : machine.avx2 ? 'AVX2' : 'no AVX2';
  const host = `${machine.cpu} (${wide}), ${machine.cores} cores, Linux ${machine.kernel}, Node.js ${versions.node}`;
  const busy = loadBefore > machine.cores / 2 ? `, on a machine that others used (load ${loadBefore})` : `, load before: ${loadBefore}`;
  return `${host}; ${begun.slice(0, 10)}, commit ${versions.commit}${busy}${quick ? '; a quick run' : ''}.`;
}

/** Of a Go module without releases the day. */
const date = (version: string): string => version.replace(/^v0\.0\.0-(\d{8})\d+-\w+$/, '$1');

const short = (value: Spread | undefined): string => (value === undefined ? '' : digits(value.median));
