/** Links: new addresses, replays, floods, and what a loss may and may not cost. */
import { describe, expect, jest, test } from '@jest/globals';
import { connected, deviceOf, plantTree } from '../sim/helpers.js';
import { type Sent, Traffic, World } from '../sim/index.js';

// Virtual time is quick; a machine with other work isn't.
jest.setTimeout(60_000);

describe('a link', () => {
  test('follows a child whose NAT gives it another address', async () => {
    const world = await plantTree(1);
    const traffic = new Traffic(world, 'viewer', 'gateway', 50, deviceOf(world, 'gateway'));
    await traffic.resumed(3_000);
    world.wire.rebind(world.identity('viewer').address, { host: '198.51.100.7', port: 4_444 });
    expect(await traffic.resumed(1_500)).toBeLessThan(1_500);
    await world.clock.run(1_000);
    expect(world.get('mid').links.byKey(world.key('viewer'))?.remote).toEqual({ host: '198.51.100.7', port: 4_444 });
    expect(world.get('viewer').times('link up')).toBe(1);
    expect(world.get('viewer').times('session up')).toBeLessThanOrEqual(2);
  });

  test('of a child that starts anew behind another port follows it by a probe, within two round trips', async () => {
    const world = await plantTree(11);
    const seen = (): { generation: number | undefined; remote: unknown; id: unknown } => {
      const link = world.get('mid').links.byKey(world.key('viewer'));
      return { generation: link?.generation, remote: { ...link?.remote }, id: link?.id };
    };
    const before = seen();
    world.kill('viewer');
    // From another source port, as programs that start anew are.
    world.start('viewer');
    const { address } = world.identity('viewer');
    expect(address).not.toEqual(before.remote);
    await world.clock.until('new keys', 3_000, () => seen().generation !== before.generation);
    const recorded: Sent[] = [];
    world.wire.record = recorded;
    await world.clock.run(4 * world.wire.quality.latency);
    expect(seen()).toMatchObject({ id: before.id, remote: address });
    recorded.length = 0;
    const traffic = new Traffic(world, 'viewer', 'gateway', 50, deviceOf(world, 'gateway'));
    await traffic.resumed(3_000);
    traffic.stop();
    // Nothing goes to where it was any more, and it came up once.
    expect(recorded.filter(({ to }) => to.host === address.host && to.port !== address.port)).toEqual([]);
    expect(world.get('viewer').times('link up')).toBe(1);
  });

  test('is not moved by frames that somebody else replays from another address', async () => {
    const world = await plantTree(2);
    const recorded: Sent[] = [];
    world.wire.record = recorded;
    const traffic = new Traffic(world, 'viewer', 'gateway', 50, deviceOf(world, 'gateway'));
    await traffic.resumed(3_000);
    await world.clock.run(2_000);
    world.wire.record = undefined;
    const remote = world.get('mid').links.byKey(world.key('viewer'))?.remote;
    for (const { to, datagram } of recorded) world.wire.inject({ host: '192.0.2.1', port: 1 }, to, datagram);
    await world.clock.run(2_000);
    expect(world.get('mid').links.byKey(world.key('viewer'))?.remote).toEqual(remote);
    traffic.stop();
  });

  test('that loses a fifth of its datagrams stays up', async () => {
    const world = await plantTree(3);
    world.wire.quality = { latency: 20, jitter: 10, loss: 0.2, duplication: 0 };
    const traffic = new Traffic(world, 'viewer', 'gateway', 100, deviceOf(world, 'gateway'));
    await traffic.resumed(20_000);
    await world.clock.run(300_000);
    expect(world.all().reduce((sum, node) => sum + node.times('link down'), 0)).toBeLessThanOrEqual(1);
    traffic.stop();
  });

  test('to a parent that was killed is given up within 5 s while something is sent', async () => {
    const world = await plantTree(4);
    const traffic = new Traffic(world, 'viewer', 'gateway', 50, deviceOf(world, 'gateway'));
    await traffic.resumed(3_000);
    await world.clock.run(5_000);
    world.kill('root');
    expect(await world.clock.until('mid to notice', 5_000, () => world.get('mid').times('link down') === 1)).toBeLessThan(5_000);
    traffic.stop();
  });

  test('that is idle notices a dead parent within half a minute', async () => {
    const world = await plantTree(5);
    await world.clock.run(60_000);
    world.kill('root');
    const most = 30_000;
    expect(await world.clock.until('mid to notice', most, () => world.get('mid').times('link down') === 1)).toBeLessThan(most);
  });

  test('comes up through a partition that ends while message 1 is repeated, and once only', async () => {
    const world = new World(6);
    world.plant('root');
    world.wire.cut('10.0.0.1', '10.0.0.2');
    world.plant('leaf', { parents: ['root'], leaf: true });
    await world.clock.run(61_000);
    world.wire.heal('10.0.0.1', '10.0.0.2');
    await connected(world, 'leaf', 3_000);
    await world.clock.run(20_000);
    expect(world.get('root').plane.counts).toMatchObject({ links: 1, indexes: 1 });
    expect(world.get('leaf').plane.counts).toMatchObject({ links: 1, indexes: 1 });
  });

  test('is not displaced by handshakes that were answered and never confirmed', async () => {
    const world = await plantTree(7);
    const recorded: Sent[] = [];
    world.wire.record = recorded;
    for (let n = 0; n < 12; n += 1) {
      world.stop('viewer');
      world.start('viewer');
      await connected(world, 'viewer');
      await world.clock.run(300);
    }
    world.wire.record = undefined;
    // A new life of mid's: it remembers neither messages nor epochs.
    world.kill('mid');
    world.start('mid');
    const mid = world.get('mid');
    const calls = recorded.filter((s) => s.datagram.type === 'handshake' && s.to.host === mid.id.address.host);
    const replay = async (): Promise<void> => {
      for (const [n, { to, datagram }] of calls.entries()) {
        world.wire.inject({ host: `192.0.2.${n}`, port: 1 }, to, datagram);
        await world.clock.run(20);
      }
    };
    await replay();
    await replay();
    // As many as one key may have half open.
    expect(mid.plane.counts.links).toBeLessThanOrEqual(2);
    expect(mid.plane.counts.indexes).toBeLessThanOrEqual(1 + 4);
    await connected(world, 'viewer');
    await connected(world, 'mid');
    await world.converge(40_000);
    const before = world.get('mid').links.byKey(world.key('viewer'));
    const generation = before?.generation;
    await replay();
    await world.clock.run(20_000);
    expect(mid.links.byKey(world.key('viewer'))?.generation).toBe(generation);
    expect(mid.plane.counts.indexes).toBe(mid.links.all().length);
    expect(world.get('viewer').times('link down')).toBeLessThanOrEqual(1);
  });

  test('of a node that said goodbye is gone at once on the other side', async () => {
    const world = await plantTree(8);
    world.stop('gateway');
    await world.clock.run(50);
    expect(world.get('root').links.byKey(world.key('gateway'))).toBeUndefined();
    await world.converge(3_000);
  });

  test('whose child calls again while the old one is being given up is not torn down with it', async () => {
    const world = await plantTree(9);
    // Far away, so that there is time between message 1 and the first frame.
    world.wire.between(world.identity('viewer').address.host, world.identity('mid').address.host, { latency: 200 });
    const traffic = new Traffic(world, 'viewer', 'gateway', 50, deviceOf(world, 'gateway'));
    await traffic.resumed(3_000);
    await world.clock.run(5_000);
    // Start the viewer again at every moment around the one at which mid gives up.
    for (let pause = 3_000; pause <= 5_600; pause += 100) {
      world.kill('viewer');
      await world.clock.run(pause);
      world.start('viewer');
      await connected(world, 'viewer', 3_000);
      expect(await traffic.resumed(5_000)).toBeLessThan(5_000);
      expect(world.get('viewer').times('link up')).toBe(1);
    }
    traffic.stop();
  });
});
