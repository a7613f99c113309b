/**
 * Many cameras through one relay that has one processor: streams of RTP from a host on the gateway's LAN to the viewer, in real time. Beside it the same from
 * the gateway to the viewer without a tunnel; both take turns. Writes bench/results/cameras.json.
 *
 * `npm run bench -- cameras [--quick]`
 */
import { join } from 'node:path';
import { type Host, Lab, LabError, repository, run as runProgram } from '../../test/lab/index.js';
import { World } from '../../test/world/index.js';
import { load } from '../shared/machine.js';
import { circumstances, options, writeSuite } from '../shared/results.js';
import { cpuSeconds } from '../tunnel/processes.js';
import type { CameraRun } from './results.js';

const PROGRAM = join(repository, 'native/target/release/examples/cameras');
const PORT = 5_004;
/** A host on the gateway's LAN. */
const YARD = '192.168.1.20';

interface Way {
  readonly tunnel: string;
  readonly address: string;
}

async function main(): Promise<void> {
  const chosen = options();
  const run = circumstances(chosen);
  const lots = chosen.quick ? [64] : [64, 128];
  const rounds = chosen.quick ? 2 : 5;
  const seconds = chosen.quick ? 3 : 10;
  const services = [{ port: `udp/${PORT}`, target: `${YARD}:${PORT}`, allow: ['group:family'] }];
  const world = await World.create({
    nodes: ['root', 'gw', 'viewer'],
    devices: false,
    siteDns: false,
    plan: (name, plan) => (name === 'gw' ? { ...plan, grants: ['yard'], endpoints: [{ name: 'yard', services }] } : plan),
  });
  try {
    const [viewer, gateway] = [world.node('viewer'), world.lab.host('gw')];
    await serve(world.lab.host('camera'), YARD);
    await serve(gateway, gateway.address);
    const relay = world.node('root').process.pid;
    await runProgram(['taskset', '--all-tasks', '--cpu-list', '--pid', '0', String(relay)]);
    const ways: readonly Way[] = [
      { tunnel: 'thicket', address: await viewer.lookup('yard.home.thicket', 4) },
      { tunnel: 'no tunnel', address: gateway.address },
    ];
    // The session, and all that comes but once.
    for (const { address } of ways) await watch(viewer.host, address, 4, 1);
    const runs: CameraRun[] = [];
    for (let round = 0; round < rounds; round += 1) {
      for (const streams of lots) {
        for (const { tunnel, address } of round % 2 === 0 ? ways : [...ways].reverse()) {
          const before = cpuSeconds([relay]);
          const seen = await watch(viewer.host, address, streams, seconds);
          const relayBusyPercent = ((cpuSeconds([relay]) - before) / seconds) * 100;
          runs.push({ round, streams, tunnel, ...seen, relayBusyPercent, load: load() });
          const { packets, lost, delay } = seen;
          const figures = `${lost} of ${packets} packets lost, ${delay.median.toFixed(2)} ms (median), ${delay.p99.toFixed(2)} ms (p99)`;
          console.error(`▸ round ${round + 1}, ${streams} streams, ${tunnel}: ${figures}; relay ${relayBusyPercent.toFixed(0)} % busy`);
        }
      }
    }
    writeSuite('cameras', run, { bitsPerSecond: 8_000_000, packetBytes: 1_316, framesPerSecond: 30, seconds, rounds, runs });
  } finally {
    await world.destroy();
  }
}

async function serve(host: Host, address: string): Promise<void> {
  const cameras = await host.spawn([PROGRAM, 'serve', `${address}:${PORT}`]);
  await cameras.waitForLine(/^ready$/);
}

type Seen = Pick<CameraRun, 'packets' | 'lost' | 'late' | 'duplicates' | 'delay'>;

async function watch(host: Host, address: string, streams: number, seconds: number): Promise<Seen> {
  const argv = [PROGRAM, 'watch', `${address}:${PORT}`, String(streams), String(seconds)];
  const { stdout } = await host.exec(argv, { timeoutMs: (seconds + 30) * 1_000 });
  const { median, p99, most, ...counts } = JSON.parse(stdout) as Omit<Seen, 'delay'> & Seen['delay'];
  if (!(counts.packets > 0)) throw new LabError(`the cameras tell of no packets: ${stdout}`);
  return { ...counts, delay: { median, p99, most } };
}

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => void Lab.destroyAll().finally(() => process.exit(1)));
}

try {
  await main();
} catch (error) {
  for (let at: unknown = error; at instanceof Error; at = at.cause) console.error(`bench/cameras: ${at.message}`);
  process.exitCode = 1;
}
