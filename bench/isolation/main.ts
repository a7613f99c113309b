/**
 * What one child, or nobody's child, can take from another: beside floods through a relay and floods of handshakes at it, how much is left of a flow, how soon a
 * new child is in, how long a ping takes, and how long the event loops are held up. Writes bench/results/isolation.json.
 *
 * `npm run bench -- isolation [--quick]`
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { type Host, Lab, LabError } from '../../test/lab/index.js';
import { circumstances, options, writeSuite } from '../shared/results.js';
import { digits } from '../shared/statistics.js';
import { type Ends, iperf, ping } from '../tunnel/measure.js';
import { delaysOf } from './delays.js';
import { Flood, PER_SECOND } from './flood.js';
import { BITS_PER_SECOND, Flow, PACKET_BYTES } from './flow.js';
import type { DelayRun, Isolation, JoinRun, Load, PingRun, ShareRun } from './results.js';
import { createPlace, FLOW_PORT, LOAD_PORT, type Place, serve } from './world.js';

/** A load is let grow for so long before its effect counts. */
const GROWS = 1;
/** Mbit/s. */
const LIMIT = 100;

interface Plan {
  readonly seconds: number;
  readonly rounds: number;
  readonly loads: readonly (Pick<ShareRun, 'load'> & { readonly far: 'other' | 'same' })[];
}

const FULL: Plan = {
  seconds: 5,
  rounds: 5,
  loads: (['udp200', 'udp1316', 'tcp'] as const).flatMap((load) => (['other', 'same'] as const).map((far) => ({ load, far }))),
};
const QUICK: Plan = { seconds: 2, rounds: 1, loads: FULL.loads.filter(({ far }) => far === 'other') };

async function main(): Promise<void> {
  const chosen = options();
  const run = circumstances(chosen);
  const { seconds, rounds, loads } = chosen.quick ? QUICK : FULL;
  const place = await createPlace();
  try {
    const { world, addresses } = place;
    const lines = await serve(world);
    const figures: Isolation & { readonly [K in 'shares' | 'joins' | 'pings' | 'delays']: unknown[] } = {
      ...{ seconds, rounds, bitsPerSecond: BITS_PER_SECOND, packetBytes: PACKET_BYTES },
      ...{ shares: [], joins: [], pings: [], delays: [] },
    };
    for (let round = 0; round < rounds; round += 1) {
      const flow = await Flow.start(world.node('viewer').host, addresses.viewer.gw, FLOW_PORT, lines);
      for (const { load, far } of loads) figures.shares.push(told(await beside(place, flow, { round, load, far }, seconds)));
      const { share, joins } = await flooded(place, flow, round, seconds);
      figures.shares.push(told(share));
      figures.joins.push(...joins);
      await flow.stop();
      figures.delays.push(...(await delays(place, 'idle', round, () => sleep(seconds * 1_000))));
      figures.delays.push(...(await delays(place, 'udp200', round, () => load(place, 'udp200', 'other', seconds))));
      figures.delays.push(
        ...(await delays(place, 'tcp', round, async () => figures.pings.push(await pinged(place, round, seconds, undefined)))),
      );
      figures.pings.push(await pinged(place, round, seconds, LIMIT));
    }
    writeSuite('isolation', run, figures);
  } finally {
    await place.world.destroy();
  }
}

function told(share: ShareRun): ShareRun {
  const { round, load, far, alone, loaded, strength, unit } = share;
  const kept = `${digits(alone)} Mbit/s alone, ${digits(loaded)} beside it`;
  console.error(`▸ round ${round + 1}, beside ${load} (${far}) of ${digits(strength)} ${unit}: ${kept}`);
  return share;
}

/** Another child sends all it can, through the same relay. */
async function beside(
  place: Place,
  flow: Flow,
  what: Pick<ShareRun, 'round' | 'load'> & { far: 'other' | 'same' },
  seconds: number,
): Promise<ShareRun> {
  const alone = await flow.watch(seconds);
  // Longer than it is watched: it must not end before.
  const loading = load(place, what.load, what.far, GROWS + seconds + 1.5);
  const watched = sleep(GROWS * 1_000).then(() => flow.watch(seconds));
  const [strength, loaded] = await Promise.all([loading, watched]);
  return { ...what, alone, loaded, ...strength };
}

/** From viewer2; resolves with what arrived. */
async function load(place: Place, kind: Load, far: 'other' | 'same', seconds: number): Promise<Pick<ShareRun, 'strength' | 'unit'>> {
  const gateway = far === 'other' ? 'gw2' : 'gw';
  const ends: Ends = { client: place.world.node('viewer2').host, address: place.addresses.viewer2[gateway] };
  const size = { udp200: 200, udp1316: 1_316 }[kind as string];
  const datagrams = size === undefined ? [] : ['-u', '-b', '0', '-l', String(size)];
  const { sum_received: sum } = await iperf(ends, Math.ceil(seconds), ['-p', String(LOAD_PORT), ...datagrams]);
  if (sum === undefined) return { strength: 0, unit: 'Mbit/s' };
  return kind === 'tcp' || sum.packets === undefined
    ? { strength: sum.bits_per_second / 1e6, unit: 'Mbit/s' }
    : { strength: (sum.packets - (sum.lost_packets ?? 0)) / sum.seconds / 1_000, unit: 'kpps' };
}

/** Made-up handshakes come to the relay; a new child comes, too. */
async function flooded(
  { world }: Place,
  flow: Flow,
  round: number,
  seconds: number,
): Promise<{ readonly share: ShareRun; readonly joins: readonly JoinRun[] }> {
  const [relay, child] = [world.node('mid'), world.node('stranger')];
  const join = async (isFlooded: boolean): Promise<JoinRun> => {
    const begun = performance.now();
    await child.start();
    const took = (performance.now() - begun) / 1_000;
    await child.stop();
    console.error(`▸ round ${round + 1}, a new child${isFlooded ? ' beside handshakes' : ''}: in after ${took.toFixed(2)} s`);
    return { round, flooded: isFlooded, seconds: took };
  };
  const calm = await join(false);
  const alone = await flow.watch(seconds);
  const before = await arrived(relay.host);
  const judged = (await relay.status()).drops;
  const flood = await Flood.start(world.lab.host('inet'), { address: relay.host.address, port: 7_117, key: relay.key });
  await sleep(GROWS * 1_000);
  const loaded = await flow.watch(seconds);
  const busy = await join(true);
  const { sent, seconds: sending } = await flood.stop();
  const came = (await arrived(relay.host)) - before;
  if (came < sent) throw new LabError(`${sent} handshakes were sent, but ${came} packets came to ${relay.name}: they went elsewhere`);
  const strength = sent / sending / 1_000;
  if (strength < (PER_SECOND / 1_000) * 0.98) console.error(`▸ only ${digits(strength)} thousand handshakes a second could be sent`);
  const { drops } = await relay.status();
  const more = (reason: string): number => (drops[reason] ?? 0) - (judged[reason] ?? 0);
  if (more('badMac1') > 0)
    throw new LabError(`${relay.name} finds a wrong mac1 in ${more('badMac1')} of the handshakes: they cost it too little`);
  const answered = more('cookieWanted') / sending / 1_000;
  return { share: { round, load: 'handshakes', far: 'relay', alone, loaded, strength, unit: 'kpps', answered }, joins: [calm, busy] };
}

/** Packets that came from the Internet so far. */
async function arrived(host: Host): Promise<number> {
  const { stdout } = await host.exec(['cat', '/sys/class/net/wan0/statistics/rx_packets']);
  return Number(stdout);
}

/** What the event loops of relay and gateway do while something runs. */
async function delays({ world }: Place, load: DelayRun['load'], round: number, runs: () => Promise<unknown>): Promise<DelayRun[]> {
  const nodes = { relay: world.node('mid'), gateway: world.node('gw') };
  for (const node of Object.values(nodes)) await delaysOf(node);
  await runs();
  const found: DelayRun[] = [];
  for (const [node, which] of Object.entries(nodes))
    found.push({ round, node: node as keyof typeof nodes, load, ...(await delaysOf(which)) });
  for (const { node, p99, most } of found)
    console.error(`▸ round ${round + 1}, event loop of the ${node}, ${load}: ${digits(p99)} ms (p99), ${digits(most)} ms at most`);
  return found;
}

/** Round trips from viewer to gateway beside one TCP stream between them. */
async function pinged({ world, addresses }: Place, round: number, seconds: number, limit: number | undefined): Promise<PingRun> {
  const ends: Ends = { client: world.node('viewer').host, address: addresses.viewer.gw };
  const inet = world.lab.host('inet');
  // A queue of a hundredth of a second, as a good router has: what waits longer waits in us.
  const shape = ['root', 'tbf', 'rate', `${limit}mbit`, 'burst', '128kb', 'latency', '10ms'];
  if (limit !== undefined) await inet.exec(['tc', 'qdisc', 'replace', 'dev', 'gw', ...shape]);
  try {
    const stream = iperf(ends, GROWS + seconds + 1, ['-p', String(LOAD_PORT)]);
    const measured = sleep(GROWS * 1_000).then(() => ping(ends, seconds));
    const [{ sum_received: sum }, { value, p99 = Number.NaN }] = await Promise.all([stream, measured]);
    const found = { round, ...(limit === undefined ? {} : { limit }), median: value, p99, stream: (sum?.bits_per_second ?? 0) / 1e6 };
    const way = limit === undefined ? '' : ` on a way of ${limit} Mbit/s`;
    console.error(
      `▸ round ${round + 1}, ping beside TCP of ${digits(found.stream)} Mbit/s${way}: ${digits(value)} ms, ${digits(p99)} ms (p99)`,
    );
    return found;
  } finally {
    if (limit !== undefined) await inet.exec(['tc', 'qdisc', 'del', 'dev', 'gw', 'root']);
  }
}

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => void Lab.destroyAll().finally(() => process.exit(1)));
}

try {
  await main();
} catch (error) {
  for (let at: unknown = error; at instanceof Error; at = at.cause) console.error(`bench/isolation: ${at.message}`);
  process.exitCode = 1;
}
