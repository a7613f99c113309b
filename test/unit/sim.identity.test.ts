/** Certificates that end or are replaced, keys that get old, children that are no longer welcome: under live links and sessions. */
import { describe, expect, jest, test } from '@jest/globals';
import { ThicketError } from '../../ts/errors.js';
import type { PublicKey } from '../../ts/trust/index.js';
import { connected, deviceOf, dialled, plantTree } from '../sim/helpers.js';
import { type SimNode, Traffic, World } from '../sim/index.js';

// Virtual time is quick; a machine with other work isn't.
jest.setTimeout(60_000);

const YEARS = 2 * 365 * 86_400;

const groupsAt = (node: SimNode, peer: PublicKey, own: PublicKey = node.key): readonly string[] | undefined =>
  node.session(peer, own)?.identity.groups;

/** Numbers between two that never arrived. */
function missing(numbers: readonly number[], first: number, last: number): number[] {
  const seen = new Set(numbers);
  return Array.from({ length: last - first + 1 }, (_, n) => first + n).filter((n) => !seen.has(n));
}

describe('a certificate that ends', () => {
  test('ends live sessions within a second, and takes the rights of links, which stand', async () => {
    const world = await plantTree(1);
    const camera = deviceOf(world, 'gateway');
    await dialled(world, 'viewer', camera);
    await world.clock.run(1_000);
    expect(world.get('gateway').sessions.all().length).toBe(1);
    const gone = world.get('root').router.table.subtree(world.key('mid'));
    expect(gone).toBe(4);
    world.clock.wall += YEARS;
    await world.clock.run(1_000);
    for (const name of ['viewer', 'gateway']) {
      expect(world.get(name).sessions.all()).toEqual([]);
      expect(world.get(name).times('session closed')).toBe(1);
    }
    const root = world.get('root');
    const link = root.links.byKey(world.key('mid'));
    expect(link?.identity).toBeUndefined();
    expect(world.all().reduce((sum, node) => sum + node.times('link down'), 0)).toBe(0);
    // What only a relay, or a gateway, may announce.
    expect(root.router.table.subtree(world.key('mid'))).toBe(1);
    expect(root.router.table.get(camera)).toBeUndefined();
    await expect(dialled(world, 'viewer', camera, 8_000)).rejects.toBeInstanceOf(ThicketError);
  });
});

describe('a new certificate', () => {
  test('is shown over links and sessions that stand: nothing is dropped, and nothing gets lost', async () => {
    const world = await plantTree(2);
    const camera = deviceOf(world, 'gateway');
    const traffic = new Traffic(world, 'viewer', 'gateway', 20, camera);
    await traffic.resumed(3_000);
    await world.clock.run(1_000);
    const first = traffic.sent;
    const viewer = world.get('viewer');
    const session = viewer.session(camera)?.id;
    world.identity('viewer').chain = [world.certify('viewer', ['staff'])];
    viewer.links.renew();
    viewer.sessions.renew();
    const gateway = world.get('gateway');
    await world.clock.until('the new certificate at the far end', 1_000, () => groupsAt(gateway, viewer.key, camera)?.[0] === 'staff');
    const at = (): readonly string[] | undefined => world.get('mid').links.byKey(viewer.key)?.identity?.groups;
    await world.clock.until('the new certificate at the parent', 1_000, () => at()?.[0] === 'staff');
    await world.clock.run(30_000);
    const last = traffic.sent - 20;
    for (const end of ['a', 'b'] as const) expect(missing(traffic.arrived(end), first, last)).toEqual([]);
    traffic.stop();
    expect(viewer.session(camera)?.id).toBe(session);
    expect(viewer.times('link up')).toBe(1);
    expect(viewer.times('link renewed')).toBe(1);
    expect(world.all().reduce((sum, node) => sum + node.times('link down') + node.times('session closed'), 0)).toBe(0);
    expect(world.fault()).toBeUndefined();
    // The second time there is nothing new to show.
    viewer.links.renew();
    viewer.sessions.renew();
    await world.clock.run(5_000);
    expect(viewer.times('link renewed')).toBe(1);
    expect([viewer.plane.counts.paths, viewer.plane.counts.indexes]).toEqual([1, 1]);
  });

  test.each(['viewer', 'gateway', 'mid'])('of %s that nobody was told of is asked for at the next rekey', async (name) => {
    const world = await plantTree(3, 3_000);
    const [viewer, gateway] = [world.get('viewer'), world.get('gateway')];
    const traffic = new Traffic(world, 'viewer', 'gateway', 50);
    await traffic.resumed(3_000);
    await world.clock.run(1_000);
    const first = traffic.sent;
    world.identity(name).chain = [world.certify(name, ['staff'])];
    await world.clock.run(8_000);
    const last = traffic.sent - 20;
    for (const end of ['a', 'b'] as const) expect(missing(traffic.arrived(end), first, last)).toEqual([]);
    traffic.stop();
    if (name === 'viewer') expect(groupsAt(gateway, viewer.key)).toEqual(['staff']);
    if (name === 'gateway') expect(groupsAt(viewer, gateway.key)).toEqual(['staff']);
    const key = world.key(name);
    const neighbours = world.all().filter((node) => node.links.byKey(key) !== undefined);
    expect(neighbours.length).toBeGreaterThan(0);
    for (const node of neighbours) expect([node.id.name, node.links.byKey(key)?.identity?.groups]).toEqual([node.id.name, ['staff']]);
    expect(world.all().reduce((sum, node) => sum + node.times('link down') + node.times('session closed'), 0)).toBe(0);
    // And it is over: no handshake follows another.
    const renewals = world.all().map((node) => node.times('link renewed'));
    await world.clock.run(20_000);
    expect(world.all().map((node) => node.times('link renewed'))).toEqual(renewals);
  });

  test('that comes with a fifth of all datagrams lost comes through, too', async () => {
    const world = await plantTree(4);
    const traffic = new Traffic(world, 'viewer', 'gateway', 100);
    await traffic.resumed(3_000);
    world.wire.quality = { latency: 20, jitter: 20, loss: 0.2, duplication: 0.05 };
    for (const name of ['viewer', 'mid', 'gateway', 'gateway2']) {
      world.identity(name).chain = [world.certify(name, ['staff'])];
      world.get(name).links.renew();
      world.get(name).sessions.renew();
    }
    await world.clock.run(20_000);
    for (const [parent, child] of [
      ['mid', 'viewer'],
      ['mid', 'gateway2'],
      ['root', 'mid'],
      ['root', 'gateway'],
    ] as const) {
      expect([child, world.get(parent).links.byKey(world.key(child))?.identity?.groups]).toEqual([child, ['staff']]);
    }
    await traffic.resumed(10_000);
    traffic.stop();
    await world.converge(30_000);
  });

  test('with another right makes what was refused welcome, and without it what was welcome goes', async () => {
    const world = new World(5);
    world.plant('root');
    world.plant('relay', { parents: ['root'], rights: [] });
    world.plant('leaf', { parents: ['relay'], leaf: true, endpoints: ['camera'] });
    await world.clock.run(3_000);
    const { table } = world.get('root').router;
    expect(table.get(world.key('leaf'))).toBeUndefined();
    const before = world.identity('relay').chain;
    world.identity('relay').chain = [world.certify('relay', [])];
    world.get('relay').links.renew();
    await world.converge(3_000);
    expect(table.get(deviceOf(world, 'leaf'))?.via).toBe(world.key('relay'));
    world.identity('relay').chain = before;
    world.get('relay').links.renew();
    await world.clock.run(1_000);
    expect(table.get(world.key('leaf'))).toBeUndefined();
    expect(table.get(deviceOf(world, 'leaf'))).toBeUndefined();
    expect(world.get('relay').times('link down')).toBe(0);
  });
});

describe('link keys', () => {
  test('that nobody renews for three minutes die, and their link with them, at both ends; it is made anew', async () => {
    const world = await plantTree(6);
    // A child whose rekeys never come.
    world.identity('viewer').rekeyMs = 10 ** 9;
    world.kill('viewer');
    const viewer = world.start('viewer');
    await connected(world, 'viewer');
    const mid = world.get('mid');
    const since = mid.links.byKey(viewer.key)?.since ?? 0;
    await world.clock.run(175_000);
    expect(mid.links.byKey(viewer.key)?.since).toBe(since);
    await world.clock.run(10_000);
    const reasons = [viewer, mid].map((node) => node.events.map(({ what }) => what).filter((what) => what.includes('link down')));
    expect(reasons[0]).toEqual(['link down parent: its keys are too old']);
    expect(reasons[1]?.at(-1)).toMatch(/its keys are too old|goodbye/);
    expect(mid.links.byKey(viewer.key)?.since).toBeGreaterThan(since + 175_000);
    expect(viewer.links.all().length).toBe(1);
  });
});

describe('children', () => {
  test('that called while others were half open are judged again when they prove to be there', async () => {
    const world = new World(7);
    const root = world.plant('root');
    const rule = (peer: PublicKey): void => {
      if (root.links.all().some((link) => link.key !== peer)) throw new ThicketError('BUSY', 'one child is enough');
    };
    world.identity('root').accept = rule;
    // All call at the same moment; each is the first to be answered.
    for (let n = 0; n < 5; n += 1) world.plant(`leaf${n}`, { parents: ['root'], leaf: true });
    let most = 0;
    for (let n = 0; n < 100; n += 1) {
      await world.clock.run(20);
      most = Math.max(most, root.links.all().length);
    }
    expect(most).toBe(1);
    // Nobody thinks that it is connected; nor is anything left in the plane.
    expect(world.all().filter((node) => node.links.all().some((link) => link.role === 'parent')).length).toBe(1);
    await world.clock.run(20_000);
    expect(root.plane.counts).toMatchObject({ links: 1, indexes: 1 });
  });

  test('that changed rules no longer allow go, the latest first, with what they announced', async () => {
    const world = await plantTree(8);
    const root = world.get('root');
    world.plant('late', { parents: ['root'], leaf: true });
    await connected(world, 'late');
    await world.converge();
    world.identity('root').accept = (peer) => {
      const others = root.links.all().filter((link) => link.key !== peer).length;
      if (others >= 2) throw new ThicketError('BUSY', 'two children are enough');
    };
    root.links.judge();
    expect(root.links.all().map((link) => world.nameOf(link.key))).toEqual(['mid', 'gateway']);
    await world.clock.run(3_000);
    expect(root.router.table.get(world.key('late'))).toBeUndefined();
    world.identity('root').cap = 1;
    root.router.rejudge();
    expect(root.router.table.subtree(world.key('mid'))).toBe(2);
    expect(root.links.byKey(world.key('mid'))).toBeDefined();
  });
});

describe('a parent', () => {
  test('whose key is none keeps nobody from the other ones', async () => {
    const world = new World(9);
    world.plant('root');
    world.plant('leaf', { parents: ['root'], leaf: true });
    await connected(world, 'leaf');
    world.kill('leaf');
    const nobody = { host: '10.9.9.9', port: 7_117, key: 'a'.repeat(52) as PublicKey };
    world.identity('leaf').parents.unshift(nobody);
    const leaf = world.start('leaf');
    await connected(world, 'leaf', 3_000);
    await world.clock.run(200_000);
    expect(leaf.links.all().map((link) => world.nameOf(link.key))).toEqual(['root']);
    expect(leaf.times('link up')).toBe(1);
  });
});
