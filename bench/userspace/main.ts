/**
 * Thicket without root or kernel interfaces, on both backends, beside hypertele: TCP through viewer, relay and gateway, and what a slow reader costs
 * in memory. All take turns within each round. Writes bench/results/userspace.json.
 *
 * `npm run bench -- userspace [--quick]`
 */
import { Lab } from '../../test/lab/index.js';
import { circumstances, options, writeSuite } from '../shared/results.js';
import { digits } from '../shared/statistics.js';
import { startHypertele } from './hypertele.js';
import { slowReader, throughput } from './measure.js';
import type { SlowRun, UserSpaceRun } from './results.js';
import type { Route } from './route.js';
import { serve } from './servers.js';
import { createWorld, TARGET, thicket } from './thicket.js';

const DIRECTIONS = ['up', 'down'] as const;

async function main(): Promise<void> {
  const chosen = options();
  const run = circumstances(chosen);
  const { seconds, rounds, slowly } = chosen.quick ? { seconds: 2, rounds: 1, slowly: 3 } : { seconds: 5, rounds: 5, slowly: 20 };
  const routes: Route[] = [];
  const place = await Lab.create({ ipv6: false });
  try {
    for (const backend of ['native', 'wasm'] as const) {
      const world = await createWorld();
      await serve(world.lab.host('gw'), TARGET);
      routes.push(await thicket(world, backend));
    }
    const alone = place.host('viewer');
    await serve(alone, '127.0.0.1');
    routes.push(await startHypertele(alone));
    const runs: UserSpaceRun[] = [];
    const slow: SlowRun[] = [];
    for (const route of routes) for (const direction of DIRECTIONS) await throughput(route, 1, direction);
    for (let round = 0; round < rounds; round += 1) {
      for (const direction of DIRECTIONS) {
        for (const route of [...routes.slice(round % routes.length), ...routes.slice(0, round % routes.length)]) {
          const found = { round, ...(await throughput(route, seconds, direction)) };
          runs.push(found);
          const cost = `${digits(found.cpuPerGB)} CPU s/GB, ${found.residentMiB.map(digits).join(', ')} MiB`;
          console.error(`▸ round ${round + 1}, ${direction}, ${route.name}: ${digits(found.value)} Mbit/s, ${cost}`);
        }
      }
    }
    for (const route of routes) {
      const found = await slowReader(route, slowly);
      slow.push(found);
      console.error(
        `▸ a slow reader, ${route.name}: ${digits(found.readMbit)} Mbit/s, at most ${found.mostMiB.map(digits).join(', ')} MiB`,
      );
    }
    const versions = Object.fromEntries(routes.map(({ name, version }) => [name, version]));
    writeSuite('userspace', run, { seconds, rounds, versions: { native: '', wasm: '', hypertele: '', ...versions }, runs, slow });
  } finally {
    for (const route of routes) await route.stop();
    await place.destroy();
  }
}

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => void Lab.destroyAll().finally(() => process.exit(1)));
}

try {
  await main();
} catch (error) {
  for (let at: unknown = error; at instanceof Error; at = at.cause) console.error(`bench/userspace: ${at.message}`);
  process.exitCode = 1;
}
