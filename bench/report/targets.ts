/** The figures to reach, and which are. */
import type { DelayRun, Load } from '../isolation/results.js';
import { nativeName } from '../micro/results.js';
import type { Results } from '../shared/results.js';
import { median, type Spread, spread } from '../shared/statistics.js';
import { ratios, runsOf, type Which } from '../tunnel/ratios.js';
import type { Run, TestName, Topology } from '../tunnel/results.js';
import type { UserSpaceRun, UserSpaceTunnel } from '../userspace/results.js';

export type Verdict = 'reached' | 'not reached' | 'not measured';

export interface Target {
  readonly what: string;
  readonly unit: '×' | 'MB' | '%' | 'ms' | 's';
  readonly atLeast: boolean;
  readonly target: number;
  /** The target where the processor has AVX-512 with IFMA. */
  readonly stretch?: number;
  readonly measured: Spread | undefined;
  readonly verdict: Verdict;
}

type Wanted = Omit<Target, 'measured' | 'verdict'>;

export function targets(results: Results): Target[] {
  const { tunnel, cameras, micro, isolation, userspace } = results.suites;
  const runs = tunnel?.runs ?? [];
  const wide = (tunnel ?? micro ?? cameras ?? isolation)?.run.machine.avx512 ?? false;
  const rows: Target[] = [];
  const add = (wanted: Wanted, measured: Spread | undefined): void => {
    rows.push({ ...wanted, measured, verdict: verdict(wanted, measured, wide) });
  };
  const more = (what: string, target: number, stretch?: number): Wanted => wantedOf(what, '×', true, target, stretch);

  const both: readonly TestName[] = ['tcp1 up', 'tcp1 down'];
  const against = (peer: string, topologies: readonly Topology[], tests: readonly TestName[]): number[][] =>
    topologies.flatMap((topology) => tests.map((test) => ratios(runs, own(topology, test), { tunnel: peer, topology, test })));
  add(more("one relay, TCP, one stream : wireguard-go's", 3.5, 5), worst(against('wireguard-go', ['relay'], both)));
  add(more("one relay, TCP, one stream : nebula's", 6, 9), worst(against('nebula', ['relay'], both)));
  add(more("direct, TCP, one stream : wireguard-go's", 2, 3), worst(against('wireguard-go', ['direct'], both)));
  const relayed = both.map((test) => ratios(runs, own('relay', test), own('direct', test)));
  add(more('one relay : direct, TCP, one stream', 0.75, 0.9), worst(relayed));
  const cpu = both.map((test) => ratios(runs, own('direct', test), peerOf('wireguard-go', 'direct', test), (run) => run.cpuPerGB));
  add(wantedOf("direct, CPU per GB : wireguard-go's", '×', false, 0.45, 0.3), worst(cpu, false));
  add(wantedOf("one relay, idle ping : wireguard-go's", '×', false, 0.5), worst(against('wireguard-go', ['relay'], ['ping idle']), false));
  const small: readonly [readonly Topology[], readonly TestName[]] = [['direct', 'relay'], ['udp200 up']];
  add(more("datagrams of 200 bytes : wireguard-go's", 3), worst(against('wireguard-go', ...small)));
  add(more("datagrams of 200 bytes : nebula's", 1.1), worst(against('nebula', ...small)));
  add(more('one relay, four streams : one', 0.95), worst([ratios(runs, own('relay', 'tcp4 up'), own('relay', 'tcp1 up'))]));
  const resident = runs.filter((run) => run.tunnel === 'thicket' && run.topology === 'relay').flatMap(({ relayMiB }) => relayMiB ?? []);
  const above = resident.map((mib) => (mib - (tunnel?.bareNodeMiB ?? Number.NaN)) * 1.048_576);
  add(wantedOf('relay, resident memory above a bare node process', 'MB', false, 24, 12), most(above));
  add(more('through DNAT to a LAN host : to the gateway', 0.8), worst([ratios(runs, own('dnat', 'tcp1 up'), own('relay', 'tcp1 up'))]));

  for (const streams of [64, 128]) {
    const lots = (cameras?.runs ?? []).filter((run) => run.streams === streams);
    const through = lots.filter((run) => run.tunnel === 'thicket');
    // So many are the stretch target.
    if (streams !== 64 && !wide && through.length === 0) continue;
    const lost = through.map((run) => (run.lost / run.packets) * 100);
    add(wantedOf(`${streams} cameras through a relay with one core, lost`, '%', false, 0.01), some(lost));
    const without = median(lots.filter((run) => run.tunnel === 'no tunnel').map((run) => run.delay.median));
    const added = through.map((run) => run.delay.p99 - without);
    add(wantedOf(`${streams} cameras, p99 of the delay above the median without a tunnel`, 'ms', false, 2), some(added));
  }

  const shares = isolation?.shares ?? [];
  const kept = (...loads: readonly Load[]): number[][] =>
    loads.map((load) => shares.filter((run) => run.load === load && run.far !== 'same').map(({ alone, loaded }) => loaded / alone));
  add(more("a flow beside another child's that saturates the relay, of itself", 0.9), worst(kept('udp200', 'udp1316', 'tcp')));
  add(more('a flow beside 50,000 made-up handshakes a second, of itself', 0.8), worst(kept('handshakes')));
  const joins = (isolation?.joins ?? []).filter(({ flooded }) => flooded).map(({ seconds }) => seconds);
  add(wantedOf('a new child beside these handshakes, until it is in', 's', false, 10), most(joins));
  const pings = [undefined, 100].map((limit) => (isolation?.pings ?? []).filter((run) => run.limit === limit).map((run) => run.median));
  add(wantedOf('ping beside a TCP stream that takes all', 'ms', false, 20), worst(pings, false));
  const busy = (isolation?.delays ?? []).filter(({ load }) => load !== 'idle');
  const held = (of: (run: DelayRun) => number): number[][] =>
    (['tcp', 'udp200'] as const).flatMap((load) =>
      (['relay', 'gateway'] as const).map((node) => busy.filter((run) => run.load === load && run.node === node).map(of)),
    );
  add(
    wantedOf('event loops while the link is saturated, p99 of their delay', 'ms', false, 5),
    worst(
      held((run) => run.p99),
      false,
    ),
  );
  add(
    wantedOf('event loops while the link is saturated, longest delay', 'ms', false, 5),
    worst(
      held((run) => run.most),
      false,
    ),
  );

  for (const [lanes, size, target, stretch] of [
    ['AVX-512', 1_400, 1.9, 2.15],
    ['AVX-512', 256, 2.8, undefined],
    ['AVX2', 1_400, 1.4, 1.55],
    ['AVX2', 256, 2, undefined],
  ] as const) {
    const row = (name: string) => micro?.seal.find((r) => r.implementation === `${nativeName(name)}, in trains` && r.size === size);
    const [ring, lane] = [row('ring'), row(lanes)];
    if (lane === undefined && micro !== undefined) continue;
    const speedups = ring === undefined || lane === undefined ? [] : [ring.seal / lane.seal, ring.open / lane.open];
    add(more(`sealing and opening trains of ${size.toLocaleString('en-US')} bytes, ${lanes} : ring`, target, stretch), least(speedups));
  }
  for (const { wanted, measured } of userSpaceTargets(userspace)) add(wanted, measured);
  return rows;
}

/** Their stretch figures have nothing to do with AVX-512: they are in no column. */
function userSpaceTargets(userspace: Results['suites']['userspace']): { readonly wanted: Wanted; readonly measured: Spread | undefined }[] {
  const values = (tunnel: UserSpaceTunnel, direction: UserSpaceRun['direction']): number[] =>
    (userspace?.runs ?? []).filter((run) => run.tunnel === tunnel && run.direction === direction).map(({ value }) => value);
  const against = (peer: UserSpaceTunnel): Spread | undefined =>
    worst(
      (['up', 'down'] as const).map((way) => values('wasm', way).map((value, round) => value / (values(peer, way)[round] ?? Number.NaN))),
    );
  const seen = [
    ...(userspace?.runs ?? []).filter(({ tunnel }) => tunnel === 'wasm').flatMap(({ residentMiB }) => residentMiB),
    ...(userspace?.slow ?? []).filter(({ tunnel }) => tunnel === 'wasm').flatMap(({ mostMiB }) => mostMiB),
  ];
  return [
    { wanted: wantedOf('without kernel interfaces, WASM : native', '×', true, 0.3), measured: against('native') },
    { wanted: wantedOf("without kernel interfaces, WASM : hypertele's", '×', true, 3), measured: against('hypertele') },
    {
      wanted: wantedOf('a WASM node, resident memory, with slow readers too', 'MB', false, 120),
      measured: most(seen.map((mib) => mib * 1.048_576)),
    },
  ];
}

function wantedOf(what: string, unit: Target['unit'], atLeast: boolean, target: number, stretch?: number): Wanted {
  return { what, unit, atLeast, target, ...(stretch === undefined ? {} : { stretch }) };
}

function verdict({ atLeast, target, stretch }: Wanted, measured: Spread | undefined, wide: boolean): Verdict {
  if (measured === undefined) return 'not measured';
  const wanted = wide ? (stretch ?? target) : target;
  return (atLeast ? measured.median >= wanted : measured.median <= wanted) ? 'reached' : 'not reached';
}

const own = (topology: Topology, test: TestName): Which => peerOf('thicket', topology, test);
const peerOf = (tunnel: string, topology: Topology, test: TestName): Which => ({ tunnel, topology, test });

/** Of several directions or topologies the one that does worst. */
function worst(several: readonly (readonly number[])[], atLeast = true): Spread | undefined {
  const spreads = several.filter((values) => values.length > 0).map(spread);
  return spreads.sort((a, b) => (atLeast ? a.median - b.median : b.median - a.median))[0];
}

const some = (values: readonly number[]): Spread | undefined => (values.length === 0 ? undefined : spread(values));

/** As `some`, but what counts is the worst. */
function most(values: readonly number[]): Spread | undefined {
  const found = some(values);
  return found === undefined ? undefined : { ...found, median: found.most };
}

function least(values: readonly number[]): Spread | undefined {
  const found = some(values);
  return found === undefined ? undefined : { ...found, median: found.least };
}

/** Medians of a test, for tables. */
export function figure(runs: readonly Run[], which: Which, of: (run: Run) => number | undefined = (run) => run.value): Spread | undefined {
  return some(runsOf(runs, which).flatMap((run) => of(run) ?? []));
}
