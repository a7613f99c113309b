/** The tree under change and under attack: moves, circles, caps, other people's keys, look-ups, labels that nobody uses. */
import { describe, expect, jest, test } from '@jest/globals';
import { encodeFrame } from '../../ts/routing/frames.js';
import type { LookupResult } from '../../ts/routing/index.js';
import { signEdge, signEndpointEdge, signNameRecord } from '../../ts/routing/statements.js';
import { KeyPair, type PublicKey, sodium } from '../../ts/trust/index.js';
import { connected, deviceOf, dialled, plantTree } from '../sim/helpers.js';
import { Traffic, World } from '../sim/index.js';

// Virtual time is quick; a machine with other work isn't.
jest.setTimeout(60_000);

async function lookup(world: World, at: string, name: KeyPair, exclude: readonly PublicKey[] = []): Promise<LookupResult> {
  let result: LookupResult | undefined;
  void world
    .get(at)
    .router.lookup(name.publicKey, exclude)
    .then((found) => {
      result = found;
    });
  await world.clock.until('an answer', 5_000, () => result !== undefined);
  if (result === undefined) throw new RangeError('no answer');
  return result;
}

describe('moves', () => {
  test('a relay that changes its parent takes its whole branch along', async () => {
    const world = new World(1);
    world.plant('root');
    for (const name of ['left', 'right']) world.plant(name, { parents: ['root'] });
    world.plant('relay', { parents: ['left'] });
    world.plant('gateway', { parents: ['relay'], leaf: true, endpoints: ['camera'] });
    world.plant('viewer', { parents: ['right'], leaf: true });
    await world.converge();
    const traffic = new Traffic(world, 'viewer', 'gateway', 100, deviceOf(world, 'gateway'));
    await traffic.resumed(3_000);
    for (const side of ['right', 'left', 'root', 'right']) {
      world.get('relay').moveTo([world.parent(side)]);
      await world.converge(5_000);
      await traffic.resumed(5_000);
    }
    expect(world.get('root').router.counters['outsideParentSet']).toBeUndefined();
    expect(await world.trace('viewer', deviceOf(world, 'gateway'))).toEqual(['right', 'relay', 'gateway/0']);
  });

  test('a gateway with two parents is found, and its devices, through the one that is left', async () => {
    const world = new World(2);
    world.plant('root');
    for (const name of ['left', 'right']) world.plant(name, { parents: ['root'] });
    world.plant('gateway', { parents: ['left', 'right'], leaf: true, endpoints: ['camera'] });
    world.plant('viewer', { parents: ['root'], leaf: true });
    await world.converge();
    const traffic = new Traffic(world, 'viewer', 'gateway', 100, deviceOf(world, 'gateway'));
    await traffic.resumed(3_000);
    for (const side of ['right', 'right', 'left', 'left', 'right']) {
      world.kill(side);
      // Everybody notices, over idle links too, and the grace of those who hope for its return runs out.
      await world.clock.run(45_000);
      await traffic.resumed(5_000);
      const other = world.key(side === 'left' ? 'right' : 'left');
      for (const key of [world.key('gateway'), deviceOf(world, 'gateway')]) expect(world.get('root').router.table.via(key)).toBe(other);
      world.start(side);
      await connected(world, side);
      await world.clock.run(3_000);
      await traffic.resumed(5_000);
    }
  });

  test('endpoints come and go with their gateway, and one that is taken back is gone at once', async () => {
    const world = await plantTree(3);
    const gateway = world.identity('gateway');
    const [camera] = gateway.endpoints;
    if (camera === undefined) throw new RangeError('no camera');
    gateway.endpoints = [];
    world.get('gateway').router.withdraw([camera.pair.publicKey]);
    world.get('gateway').router.changed();
    await world.clock.run(100);
    expect(world.fault()).toBeUndefined();
    gateway.endpoints = [camera];
    world.get('gateway').router.changed();
    await world.clock.run(100);
    expect(world.fault()).toBeUndefined();
    // Gone while the gateway was down: nobody takes it back, but it isn't announced again.
    world.kill('gateway');
    gateway.endpoints = [];
    world.start('gateway');
    await world.converge(3_000);
    expect(await lookup(world, 'viewer', world.nameKey('camera.gateway'))).toEqual({ status: 'notFound' });
  });

  test('a relay that restarts loses the branch that has not come back yet', async () => {
    const world = await plantTree(4);
    world.kill('mid');
    world.kill('gateway2');
    world.start('mid');
    await connected(world, 'mid');
    await world.clock.run(1_000);
    // Idle children find out when they next keep their links alive.
    expect(world.get('root').router.table.subtree(world.key('mid'))).toBe(1);
    await world.converge(30_000);
    expect(world.get('root').router.table.get(world.key('gateway2'))).toBeUndefined();
  });
});

describe('restarts with a fifth of all datagrams lost', () => {
  test.each(['gateway', 'mid', 'root', 'viewer'])('of %s: traffic goes on within 15 s', async (name) => {
    const world = await plantTree(5);
    world.wire.quality = { latency: 10, jitter: 10, loss: 0.2, duplication: 0.02 };
    const traffic = new Traffic(world, 'viewer', 'gateway', 50, deviceOf(world, 'gateway'));
    await traffic.resumed(20_000);
    world.kill(name);
    await world.clock.run(1_000);
    world.start(name);
    expect(await traffic.resumed(15_000)).toBeLessThan(15_000);
    await world.converge(40_000);
  });
});

describe('circles', () => {
  test('of links carry no set-up round for ever, and put nobody above itself', async () => {
    const world = new World(6);
    world.plant('a');
    world.plant('b', { parents: ['a'] });
    world.plant('c', { parents: ['b'] });
    world.plant('leaf', { parents: ['c'], leaf: true });
    await world.converge();
    // Somebody configures the root to hang below its own grandchild.
    world.get('a').moveTo([world.parent('c')]);
    await world.clock.run(5_000);
    for (const node of world.all()) expect(node.router.table.get(node.key)).toBeUndefined();
    const before = world.wire.sent;
    await expect(dialled(world, 'leaf', KeyPair.generate().publicKey)).rejects.toMatchObject({ code: 'NO_ROUTE' });
    expect(world.wire.sent - before).toBeLessThan(100);
    expect(world.all().some((node) => (node.router.setups.counters['loop'] ?? 0) > 0)).toBe(true);
    await world.clock.run(20_000);
    for (const node of world.all()) expect(node.router.setups.size).toBe(0);
    // A look-up dies out, too.
    expect(await lookup(world, 'leaf', KeyPair.generate())).toEqual({ status: 'unreachable' });
  });
});

describe('a child', () => {
  test("that announces somebody else's key, or takes it away, is refused and counted", async () => {
    const world = await plantTree(7);
    const root = world.get('root').router;
    const mid = world.identity('mid');
    const victim = world.key('gateway');
    const camera = deviceOf(world, 'gateway');
    const stranger = KeyPair.generate();
    const before = [...root.table.all()].map((entry) => [entry.key, entry.via]);
    const stolen = root.table.get(camera)?.bytes ?? new Uint8Array(0);
    const nonce = sodium.randombytes_buf(16);
    const stamp = { epoch: 99n, seq: 1n };
    const edge = { child: victim, parent: mid.pair.publicKey, nonce, ...stamp };
    const forgeries = [
      // The victim's own edge, as it is; one in its name, signed by the child twice; an endpoint likewise.
      encodeFrame({ kind: 'announce', items: [{ type: 'endpointEdge', bytes: stolen }] }),
      encodeFrame({ kind: 'announce', items: [{ type: 'edge', bytes: signEdge(edge, mid.pair) }] }),
      encodeFrame({
        kind: 'announce',
        items: [{ type: 'endpointEdge', bytes: signEndpointEdge({ ...edge, child: camera }, stranger, mid.pair) }],
      }),
      // A name that it can't sign; the victim's place in the tree; the root above itself.
      encodeFrame({
        kind: 'announce',
        items: [{ type: 'name', bytes: signNameRecord(stamp, world.nameKey('camera.gateway'), stranger) }],
      }),
      encodeFrame({ kind: 'edgeHalf', statement: signEdge({ ...edge, parent: world.key('root') }, mid.pair) }),
      encodeFrame({ kind: 'withdraw', keys: [victim, camera, world.key('mid')] }),
    ];
    for (const frame of forgeries) world.get('mid').slip(world.key('root'), frame);
    await world.clock.run(1_000);
    expect([...root.table.all()].map((entry) => [entry.key, entry.via])).toEqual(before);
    const counted = Object.values(root.counters).reduce((sum, count) => sum + count, 0);
    expect(counted).toBeGreaterThanOrEqual(forgeries.length);
    await dialled(world, 'viewer', camera);
  });

  test('without the right may announce neither nodes nor endpoints, and no more than its cap with it', async () => {
    const world = new World(8);
    world.plant('root', { cap: 3 });
    world.plant('plain', { parents: ['root'], rights: [] });
    world.plant('below', { parents: ['plain'], leaf: true, rights: [] });
    world.plant('device', { parents: ['root'], leaf: true, rights: [], endpoints: ['x'] });
    world.plant('gateway', { parents: ['root'], leaf: true, endpoints: ['a', 'b', 'c', 'd', 'e'] });
    await world.clock.run(3_000);
    const root = world.get('root').router;
    expect(root.table.get(world.key('below'))).toBeUndefined();
    expect(root.table.get(deviceOf(world, 'device'))).toBeUndefined();
    expect(root.table.subtree(world.key('gateway'))).toBe(4);
    expect(root.counters).toMatchObject({ noRelayRight: 1, noGatewayRight: 1, tooMany: 2 });
  });

  test("signs its endpoints with its parent's nonce, not with one of its own", async () => {
    const world = await plantTree(9);
    const { pair } = world.identity('gateway');
    const device = KeyPair.generate();
    const edge = { child: device.publicKey, parent: pair.publicKey, nonce: sodium.randombytes_buf(16), epoch: 99n, seq: 1n };
    const bytes = signEndpointEdge(edge, device, pair);
    world.get('gateway').slip(world.key('root'), encodeFrame({ kind: 'announce', items: [{ type: 'endpointEdge', bytes }] }));
    await world.clock.run(1_000);
    expect(world.get('root').router.counters).toMatchObject({ badNonce: 1 });
    expect(world.get('root').router.table.get(device.publicKey)).toBeUndefined();
  });

  test('is asked anew every hour, and what nobody signs again for three hours is dropped', async () => {
    const world = await plantTree(10);
    const seq = (): bigint | undefined => world.get('root').router.table.get(deviceOf(world, 'gateway2'))?.seq;
    const first = seq();
    await world.clock.run(5 * 3_600_000);
    expect(world.fault()).toBeUndefined();
    expect(seq()).toBeGreaterThan(first ?? 0n);
    expect(world.all().every((node) => node.times('link down') === 0)).toBe(true);
  });
});

describe('look-ups', () => {
  test('find the holder from anywhere, tell what is not there, and leave out who is known wrong', async () => {
    const world = await plantTree(11);
    const lamp = deviceOf(world, 'gateway2');
    for (const at of ['viewer', 'gateway', 'root', 'mid', 'gateway2']) {
      expect(await lookup(world, at, world.nameKey('lamp.gateway2'))).toEqual({ status: 'found', keys: [lamp] });
    }
    expect(await lookup(world, 'viewer', world.nameKey('lamp.gateway2'), [lamp])).toEqual({ status: 'notFound' });
    expect(await lookup(world, 'viewer', world.nameKey('viewer'))).toEqual({ status: 'found', keys: [world.key('viewer')] });
    // A root and a relay have names, too, though they stand in no table of their own.
    for (const name of ['root', 'mid']) {
      expect(await lookup(world, 'viewer', world.nameKey(name))).toEqual({ status: 'found', keys: [world.key(name)] });
    }
    expect(await lookup(world, 'viewer', world.nameKey('nobody'))).toEqual({ status: 'notFound' });
  });

  test('say unreachable, not that nobody is there, when the tree is out of reach', async () => {
    const world = await plantTree(12);
    world.kill('root');
    expect(await lookup(world, 'viewer', world.nameKey('camera.gateway'))).toEqual({ status: 'unreachable' });
    world.kill('mid');
    await world.clock.run(40_000);
    expect(await lookup(world, 'viewer', world.nameKey('camera.gateway'))).toEqual({ status: 'unreachable' });
  });

  test('come through loss', async () => {
    const world = await plantTree(13);
    world.wire.quality = { latency: 10, jitter: 10, loss: 0.1, duplication: 0 };
    let found = 0;
    for (let n = 0; n < 20; n += 1) {
      const { status } = await lookup(world, 'viewer', world.nameKey('camera.gateway'));
      if (status === 'found') found += 1;
      // Never the wrong answer.
      expect(status).not.toBe('notFound');
    }
    expect(found).toBeGreaterThanOrEqual(19);
  });

  test('return at most four candidates', async () => {
    const world = await plantTree(14);
    const shared = world.nameKey('shared');
    for (const name of ['viewer', 'gateway', 'gateway2', 'mid', 'root']) {
      const id = world.identity(name) as { names: readonly KeyPair[] };
      id.names = [...id.names, shared];
      world.get(name).router.changed();
    }
    world.plant('other', { parents: ['root'], leaf: true, endpoints: ['p', 'q'] });
    const other = world.identity('other');
    other.endpoints = other.endpoints.map((endpoint) => ({ ...endpoint, names: [shared] }));
    await world.clock.run(2_000);
    world.get('other').router.changed();
    await world.clock.run(2_000);
    const result = await lookup(world, 'root', shared);
    expect(result.status === 'found' ? result.keys.length : 0).toBe(4);
  });
});

describe('labels', () => {
  test('that a data plane has freed are reported dead, and the ends set up another path', async () => {
    const world = await plantTree(15);
    const session = await dialled(world, 'viewer', deviceOf(world, 'gateway'));
    await world.clock.run(1_000);
    const { egress } = session;
    if (egress === undefined) throw new RangeError('no path');
    // As after ten minutes without a packet.
    world.get('mid').plane.expire();
    const traffic = new Traffic(world, 'viewer', 'gateway', 100, deviceOf(world, 'gateway'));
    expect(await traffic.resumed(2_000)).toBeLessThan(2_000);
    expect(session.egress?.label).not.toBe(egress.label);
    traffic.stop();
    await world.clock.run(15_000);
    expect(world.get('mid').router.setups.size).toBe(2);
  });

  test('of ends that never let a path go are freed by relays when nothing comes under them', async () => {
    const world = await plantTree(19);
    const session = await dialled(world, 'viewer', deviceOf(world, 'gateway'));
    await world.clock.run(1_000);
    const { egress } = session;
    // Both ends turn silent and deaf, but keep their links.
    for (const name of ['viewer', 'gateway']) world.get(name).forget();
    await world.clock.run(595_000);
    expect(egress).toBeDefined();
    expect(world.get('mid').router.setups.size).toBe(2);
    await world.clock.run(10_000);
    expect([world.get('mid').router.setups.size, world.get('root').router.setups.size]).toEqual([0, 0]);
    expect([world.get('mid').plane.labels, world.get('root').plane.labels]).toEqual([0, 0]);
  });

  test('survive hours of an idle session, since rekeys use them', async () => {
    const world = await plantTree(16);
    const session = await dialled(world, 'viewer', deviceOf(world, 'gateway'));
    await world.clock.run(25 * 60_000);
    expect(session.state).toBe('up');
    expect(world.get('viewer').times('session up')).toBeLessThanOrEqual(2);
    expect(session.rekeys).toBeGreaterThanOrEqual(11);
  });
});

describe('floods of set-ups', () => {
  test('from one child are bounded, and its own neighbours still get through to the same destination', async () => {
    const world = await plantTree(17);
    world.plant('flooder', { parents: ['mid'], leaf: true });
    await connected(world, 'flooder');
    const flooder = world.get('flooder');
    // Somebody who doesn't answer: unanswered set-ups pile up on the way to it.
    const gateway = world.get('gateway');
    gateway.trust = {
      require: () => {
        throw new RangeError('silence');
      },
    } as never;
    const camera = deviceOf(world, 'gateway');
    for (let n = 0; n < 400; n += 1) {
      flooder.router.open(camera, sodium.randombytes_buf(1_148), () => {});
      if (n % 10 === 0) await world.clock.run(50);
    }
    // Sixteen times the root of what lies behind the link to mid.
    expect(world.get('root').router.setups.size).toBeLessThanOrEqual(36);
    expect(world.get('mid').router.setups.counters['halfOpen']).toBeGreaterThan(100);
    await world.clock.run(20_000);
    expect(world.get('mid').router.setups.size).toBe(0);
  });

  test('do not keep out a caller who gets an answer', async () => {
    const world = await plantTree(18);
    world.plant('flooder', { parents: ['mid'], leaf: true });
    await connected(world, 'flooder');
    const flooder = world.get('flooder');
    const camera = deviceOf(world, 'gateway');
    const stop = world.clock.every(40 as never, () => {
      flooder.router.open(camera, sodium.randombytes_buf(1_148), () => {});
    });
    await world.clock.run(5_000);
    await dialled(world, 'viewer', camera);
    stop();
  });
});
