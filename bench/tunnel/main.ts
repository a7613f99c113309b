/**
 * Whole tunnels between network namespaces: Thicket beside wireguard-go and nebula, and beside no tunnel at all. All take turns within each round, so that
 * whatever else the machine does hits all. Writes bench/results/tunnel.json.
 *
 * `npm run bench -- tunnel [--quick]`
 */
import { Lab, LabError, waitFor } from '../../test/lab/index.js';
import type { World } from '../../test/world/index.js';
import { readRecordedResults } from '../report/readme.js';
import { circumstances, options, writeSuite } from '../shared/results.js';
import { digits } from '../shared/statistics.js';
import { fallen, isGate, isGated } from './gate.js';
import { measured } from './measure.js';
import { startNebula } from './peers/nebula.js';
import { startWireGuard } from './peers/wireguard.js';
import { type Plan, plan, type Step } from './plan.js';
import { bareNodeMiB } from './processes.js';
import type { Run } from './results.js';
import type { Contender } from './route.js';
import { createWorld, PORT, serve, serveTargets, thicket } from './thicket.js';

async function main(): Promise<void> {
  const chosen = options();
  const run = circumstances(chosen);
  const world = await createWorld();
  const contenders: Contender[] = [];
  try {
    const host = (name: 'viewer' | 'mid' | 'gw') => world.lab.host(name);
    await serveTargets(world);
    for (const name of ['mid', 'gw'] as const) await serve(world, name, PORT);
    // As nothing of Thicket's goes that way, this tells only nebula to use its relay.
    await world.lab.drop('iifname "viewer" oifname "gw"');
    await world.lab.drop('iifname "gw" oifname "viewer"');
    contenders.push(await thicket(world));
    contenders.push(await startWireGuard(host('viewer'), host('mid'), host('gw')));
    contenders.push(await startNebula(host('viewer'), host('mid'), host('gw')));
    contenders.push(none(world));
    const steps = plan(chosen);
    const runs = await compare(contenders, steps);
    if (chosen.gate) await gate(contenders, steps, runs);
    writeSuite('tunnel', run, {
      tunnels: Object.fromEntries(contenders.map(({ name, version }) => [name, version])),
      seconds: steps.seconds,
      rounds: steps.rounds,
      offload: (await world.node('viewer').status()).interface?.offload ?? 'none',
      bareNodeMiB: await bareNodeMiB(world.lab.host('inet')),
      runs,
    });
  } finally {
    for (const contender of contenders) await contender.stop();
    await world.destroy();
  }
}

/** Fails this program when ratios have fallen far, and are found so again. */
async function gate(contenders: readonly Contender[], steps: Plan, runs: readonly Run[]): Promise<void> {
  const recorded = readRecordedResults().suites.tunnel?.runs ?? [];
  if (!isGate(recorded)) throw new LabError('no figures are recorded that a gate could compare with: npm run bench -- --record');
  const first = fallen(recorded, runs);
  if (first.length === 0) return;
  for (const line of first) console.error(`▸ ${line}: measured again`);
  const again = await compare(contenders, { ...steps, steps: steps.steps.filter(isGated) });
  for (const line of fallen(recorded, again)) {
    console.error(line);
    process.exitCode = 1;
  }
}

/** The same hosts without any tunnel: what the machine can do. */
function none(world: World): Contender {
  const [client, server] = [world.lab.host('viewer'), world.lab.host('mid')];
  return {
    name: 'no tunnel',
    version: '',
    routes: { direct: { client, address: server.address, relays: [], processes: [] } },
    stop: async () => undefined,
  };
}

async function compare(contenders: readonly Contender[], { seconds, rounds, steps }: Plan): Promise<Run[]> {
  const runs: Run[] = [];
  // Sessions come up and buffers grow before anything counts.
  for (const { name, routes } of contenders) {
    for (const route of Object.values(routes)) {
      await waitFor(() => measured('tcp1 up', route, 1), { what: `${name} to ${route.address}`, timeoutMs: 30_000 });
    }
  }
  for (let round = 0; round < rounds; round += 1) {
    for (const step of steps) {
      for (const contender of inTurn(contenders, round)) {
        const found = await one(contender, step, seconds, round);
        if (found !== undefined) runs.push(found);
      }
    }
  }
  return runs;
}

/** Who goes first changes from round to round. */
function inTurn<T>(all: readonly T[], round: number): T[] {
  return [...all.slice(round % all.length), ...all.slice(0, round % all.length)];
}

async function one({ name, routes }: Contender, step: Step, seconds: number, round: number): Promise<Run | undefined> {
  const { test, topology, alone } = step;
  const route = routes[topology];
  if (route === undefined || (alone && name !== 'thicket')) return undefined;
  const run = { round, topology, tunnel: name, test, ...(await measured(test, route, seconds)) };
  const cpu = run.cpuPerGB === undefined ? '' : `, ${digits(run.cpuPerGB)} CPU s/GB`;
  const lost = run.lostPercent === undefined || run.lostPercent === 0 ? '' : `, ${run.lostPercent.toFixed(1)} % lost`;
  console.error(`▸ round ${round + 1}, ${topology}, ${test}, ${name}: ${digits(run.value)} ${run.unit}${cpu}${lost}`);
  return run;
}

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => void Lab.destroyAll().finally(() => process.exit(1)));
}

try {
  await main();
} catch (error) {
  for (let at: unknown = error; at instanceof Error; at = at.cause) console.error(`bench/tunnel: ${at.message}`);
  process.exitCode = 1;
}
