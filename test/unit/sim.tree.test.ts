/** The control logic of whole trees on simulated data planes: root, mid, viewer, gateway. */
import { beforeEach, describe, expect, jest, test } from '@jest/globals';
import { Traffic, World } from '../sim/index.js';

// Virtual time is quick; a machine with other work isn't.
jest.setTimeout(60_000);

let world: World;

/** root ── mid ── viewer, gateway2; root ── gateway (with a camera). */
async function plantTree(seed: number): Promise<void> {
  world = new World(seed);
  world.plant('root');
  world.plant('mid', { parents: ['root'] });
  world.plant('viewer', { parents: ['mid'], leaf: true });
  world.plant('gateway2', { parents: ['mid'], leaf: true, endpoints: ['lamp'] });
  world.plant('gateway', { parents: ['root'], leaf: true, endpoints: ['camera'] });
  await world.converge();
}

const camera = (): ReturnType<World['key']> => world.identity('gateway').endpoints[0]?.pair.publicKey ?? world.key('gateway');

describe('a tree of five', () => {
  beforeEach(() => plantTree(1));

  test('every ancestor lists exactly its subtree', () => {
    expect(world.get('root').router.table.size).toBe(6);
    expect(world.get('mid').router.table.size).toBe(3);
    expect(world.fault()).toBeUndefined();
  });

  test('a session goes over the lowest common ancestor and no further', async () => {
    const session = await dialled('viewer', world.key('gateway2'));
    expect(session.state).toBe('up');
    expect(await world.trace('viewer', world.key('gateway2'))).toEqual(['mid', 'gateway2']);
    await dialled('viewer', camera());
    expect(await world.trace('viewer', camera())).toEqual(['mid', 'root', 'gateway/0']);
  });

  test.each(['gateway', 'mid', 'root', 'viewer'])('traffic goes on within 5 s after %s was killed and started again', async (name) => {
    const bystanders = new Traffic(world, 'viewer', 'gateway2');
    const traffic = new Traffic(world, 'viewer', 'gateway', 50, camera());
    await traffic.resumed(3_000);
    await bystanders.resumed(3_000);
    const before = world
      .get('gateway2')
      .sessions.all()
      .map((s) => s.since);
    await world.clock.run(5_000);
    world.kill(name);
    await world.clock.run(1_000);
    world.start(name);
    expect(await traffic.resumed(5_000)).toBeLessThan(5_000);
    await world.converge(12_000);
    await bystanders.resumed(5_000);
    if (name !== 'viewer' && name !== 'mid') {
      // Who has nothing to do with it noticed nothing.
      expect(
        world
          .get('gateway2')
          .sessions.all()
          .map((s) => s.since),
      ).toEqual(before);
      expect(world.get('gateway2').times('session up')).toBeLessThanOrEqual(2);
    }
    traffic.stop();
    bystanders.stop();
  });
});

async function dialled(
  from: string,
  peer: ReturnType<World['key']>,
): Promise<NonNullable<ReturnType<ReturnType<World['get']>['session']>>> {
  const node = world.get(from);
  let failed: unknown;
  node.sessions.dial(node.key, peer).catch((error: unknown) => {
    failed = error;
  });
  await world.clock.until('a session', 5_000, () => failed !== undefined || node.session(peer)?.state === 'up');
  if (failed !== undefined) throw failed;
  const session = node.session(peer);
  if (session === undefined) throw new RangeError('no session');
  return session;
}
