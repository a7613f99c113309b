/** What bench/isolation measured, as Markdown. */
import type { Isolation, Load, ShareRun } from '../isolation/results.js';
import { digits, type Spread, spread } from '../shared/statistics.js';
import { full, markdown } from './markdown.js';

const LOADS: Readonly<Record<Load, string>> = {
  udp200: 'datagrams of 200 bytes, as many as can be',
  udp1316: 'datagrams of 1,316 bytes, as many as can be',
  tcp: 'TCP, one stream',
  handshakes: 'made-up handshakes from everywhere',
};
const FAR: Readonly<Record<ShareRun['far'], string>> = {
  other: ', to another gateway',
  same: ', to the same gateway',
  relay: ' at the relay',
};

/** Section by section. */
export function isolationParts({ shares, joins, pings, delays, seconds, rounds, bitsPerSecond, packetBytes }: Isolation): string[] {
  const flow = `A flow of ${bitsPerSecond / 1e6} Mbit/s in datagrams of ${packetBytes} bytes through a relay, and what another child of that relay, or nobody's, does to it`;
  const kinds = distinct(shares, ({ load, far }) => `${load} ${far}`);
  const shareRows = kinds.map((runs) => {
    const [{ load, far, unit }] = runs;
    return [
      `${LOADS[load]}${FAR[far]}`,
      `${full(of(runs, (run) => run.strength))} ${unit}${answered(runs)}`,
      ...[of(runs, (run) => run.alone), of(runs, (run) => run.loaded), of(runs, (run) => run.loaded / run.alone)].map(full),
    ];
  });
  const pingRows = distinct(pings, ({ limit }) => String(limit)).map((runs) => [
    runs[0].limit === undefined ? 'as fast as the machine' : `${runs[0].limit} Mbit/s`,
    ...[of(runs, (run) => run.stream), of(runs, (run) => run.median), of(runs, (run) => run.p99)].map(full),
  ]);
  const delayRows = distinct(delays, ({ node, load }) => `${node} ${load}`).map((runs) => [
    `${runs[0].node}, ${runs[0].load === 'idle' ? 'idle' : `beside ${LOADS[runs[0].load]}`}`,
    ...[of(runs, (run) => run.median), of(runs, (run) => run.p99), of(runs, (run) => run.most)].map(full),
  ]);
  const joinRows = distinct(joins, ({ flooded }) => String(flooded)).map((runs) => [
    runs[0].flooded ? 'beside made-up handshakes' : 'alone',
    full(of(runs, (run) => run.seconds)),
  ]);
  return [
    `${flow}; ${rounds === 1 ? 'one round' : `${rounds} rounds`}, each figure over ${seconds} s.`,
    markdown(['load', 'of', 'the flow alone, Mbit/s', 'beside it', 'of itself'], shareRows),
    markdown(['a new child', 's until its link is up'], joinRows),
    markdown(['TCP through the tunnel on a way of', 'Mbit/s', 'ping beside it, ms', 'p99'], pingRows),
    markdown(['event loop of', 'delay, ms', 'p99', 'most'], delayRows),
  ];
}

/** The README's few lines. */
export function isolationSummary({ shares, joins, pings, bitsPerSecond }: Isolation): string {
  const kept = (load: Load): string => {
    const runs = shares.filter((run) => run.load === load && run.far !== 'same');
    return runs.length === 0 ? '' : `${Math.round(spread(runs.map(({ alone, loaded }) => loaded / alone)).median * 100)} %`;
  };
  const joined = joins.filter(({ flooded }) => flooded).map(({ seconds }) => seconds);
  const loaded = pings.filter(({ limit }) => limit === undefined).map(({ median }) => median);
  const rows = [
    ["beside another child's flood of small datagrams", kept('udp200')],
    ['of large ones', kept('udp1316')],
    ['beside its TCP', kept('tcp')],
    ['beside 50,000 made-up handshakes a second at the relay', kept('handshakes')],
    ['a new child beside these is in after', joined.length === 0 ? '' : `${digits(spread(joined).median)} s`],
    ['ping beside a TCP stream that takes all', loaded.length === 0 ? '' : `${digits(spread(loaded).median)} ms`],
  ];
  return markdown(
    [`One child's flow of ${bitsPerSecond / 1e6} Mbit/s through a relay keeps of itself`, ''],
    rows.map((cells) => cells.map((cell) => cell ?? '')),
  );
}

function answered(runs: readonly ShareRun[]): string {
  const known = runs.flatMap((run) => run.answered ?? []);
  return known.length === 0 ? '' : `, ${full(spread(known))} of them answered`;
}

function of<T>(runs: readonly T[], figure: (run: T) => number): Spread {
  return spread(runs.map(figure));
}

/** Runs of one kind together, in the order in which kinds first come. */
function distinct<T>(runs: readonly T[], kind: (run: T) => string): (readonly [T, ...T[]])[] {
  const kinds = new Map<string, [T, ...T[]]>();
  for (const run of runs) {
    const found = kinds.get(kind(run));
    if (found === undefined) kinds.set(kind(run), [run]);
    else found.push(run);
  }
  return [...kinds.values()];
}
