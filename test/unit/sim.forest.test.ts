/** Random trees under random misfortune, from seeds: SIM_SEEDS=1,2,3 runs others. */
import { describe, expect, jest, test } from '@jest/globals';
import type { PublicKey } from '../../ts/trust/index.js';
import { Traffic, World } from '../sim/index.js';

// Virtual time is quick; a machine with other work isn't.
jest.setTimeout(60_000);

const SEEDS = process.env.SIM_SEEDS?.split(',').map(Number) ?? [11, 12, 13, 14];

/** A root, relays below it up to five deep, leaves (gateways and viewers) anywhere. */
function plantForest(world: World, size: number): { relays: string[]; leaves: string[] } {
  world.plant('root');
  const relays = ['root'];
  const leaves: string[] = [];
  const depth = new Map([['root', 0]]);
  for (let n = 1; n < size; n += 1) {
    const parent = world.random.pick(relays);
    const level = (depth.get(parent) ?? 0) + 1;
    if (world.random.chance(0.3) && level < 5) {
      const name = `relay${n}`;
      world.plant(name, { parents: [parent] });
      depth.set(name, level);
      relays.push(name);
    } else {
      const name = `leaf${n}`;
      world.plant(name, { parents: [parent], leaf: true, endpoints: world.random.chance(0.5) ? [`device${n}`] : [] });
      leaves.push(name);
    }
  }
  return { relays, leaves };
}

const up = (world: World, name: string): string[] => {
  const [parent] = world.identity(name).parents;
  return parent === undefined ? [] : [world.nameOf(parent.key), ...up(world, world.nameOf(parent.key))];
};

/** The way through the lowest common ancestor. */
function way(world: World, from: string, to: string): string[] {
  const [a, b] = [up(world, from), up(world, to)];
  const turn = a.find((name) => b.includes(name)) ?? '';
  return [...a.slice(0, a.indexOf(turn) + 1), ...b.slice(0, b.indexOf(turn)).reverse(), to];
}

async function dialled(world: World, from: string, peer: PublicKey): Promise<void> {
  const node = world.get(from);
  let failed: unknown;
  node.sessions.dial(node.key, peer).catch((error: unknown) => {
    failed = error;
  });
  await world.clock.until(`${from} to ${world.nameOf(peer)}`, 5_000, () => failed !== undefined || node.session(peer)?.state === 'up');
  if (failed !== undefined) throw failed;
}

describe.each(SEEDS)('the random tree of seed %i', (seed) => {
  test('lists every subtree, and leads every session through the lowest common ancestor', async () => {
    const world = new World(seed);
    const { leaves } = plantForest(world, 30 + world.random.below(31));
    await world.converge();
    for (let n = 0; n < 10; n += 1) {
      const [from, to] = [world.random.pick(leaves), world.random.pick(leaves)];
      if (from === to) continue;
      await dialled(world, from, world.key(to));
      expect(await world.trace(from, world.key(to))).toEqual(way(world, from, to));
      const [device] = world.identity(to).endpoints;
      if (device === undefined) continue;
      await dialled(world, from, device.pair.publicKey);
      const trace = await world.trace(from, device.pair.publicKey);
      expect(trace.slice(0, -1)).toEqual(way(world, from, to).slice(0, -1));
    }
  });

  test('comes back from kills, cuts and moves, with a tenth of all datagrams lost', async () => {
    const world = new World(seed);
    world.wire.quality = { latency: 8, jitter: 10, loss: 0.1, duplication: 0.02 };
    const { relays, leaves } = plantForest(world, 30);
    await world.converge(20_000);
    const streams = [0, 1, 2, 3].map((n) => {
      const [a, b] = [leaves[2 * n] ?? 'root', leaves[2 * n + 1] ?? 'root'];
      return new Traffic(world, a, b, 100);
    });
    for (const stream of streams) await stream.resumed(15_000);
    for (let round = 0; round < 6; round += 1) {
      const victim = world.random.pick(world.names());
      const [relay] = up(world, victim);
      const dice = world.random.below(3);
      if (dice === 0) {
        world.kill(victim);
        await world.clock.run(world.random.below(8_000));
        world.start(victim);
      } else if (dice === 1 && relay !== undefined) {
        const [here, there] = [world.identity(victim).address.host, world.identity(relay).address.host];
        world.wire.cut(here, there);
        await world.clock.run(world.random.below(20_000));
        world.wire.heal(here, there);
      } else if (victim.startsWith('leaf')) {
        world.get(victim).moveTo([world.parent(world.random.pick(relays))]);
      }
      await world.clock.run(2_000);
      for (const stream of streams) await stream.resumed(15_000);
    }
    await world.converge(45_000);
    for (const stream of streams) stream.stop();
    // Nothing piles up: relays hold labels for live sessions only, once those that were replaced have run out.
    await world.clock.run(40_000);
    for (const node of world.all()) {
      expect(node.router.setups.size).toBeLessThanOrEqual(2 * streams.length + 2 * node.sessions.all().length);
      expect(node.plane.labels).toBeLessThanOrEqual(node.router.setups.size);
    }
  });
});
