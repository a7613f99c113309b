/** Nodes that do what they please, on simulated planes: what it costs their neighbours, and what it doesn't cost everybody else. */
import { describe, expect, jest, test } from '@jest/globals';
import { NodeHandshakes } from '../../ts/node/handshakes.js';
import { encodeFrame, frameKinds } from '../../ts/routing/frames.js';
import { KeyPair, type PublicKey, sodium } from '../../ts/trust/index.js';
import { connected, deviceOf, dialled, plantTree } from '../sim/helpers.js';
import { type SimNode, Traffic, type World } from '../sim/index.js';

// Virtual time is quick; a machine with other work isn't.
jest.setTimeout(60_000);

/** Calls of a certified node for somebody, as many as wanted, each another one. */
function caller(node: SimNode): (destination: PublicKey) => Uint8Array {
  const handshakes = new NodeHandshakes({
    node: node.key,
    pair: () => node.id.pair,
    chain: () => ({ chain: node.id.chain, grant: undefined }),
    epoch: () => node.id.epoch,
    floor: () => 0,
    now: () => 0,
    generationOf: () => 0,
  });
  return (destination) => handshakes.initiateSession(node.key, destination).message;
}

/** A set-up as a node sends it that keeps no account of its own. */
function setup(world: World, node: SimNode, destination: PublicKey, message: Uint8Array): void {
  const link = node.links.all().find(({ role }) => role === 'parent');
  if (link === undefined) throw new RangeError('no parent');
  const label = (256 + world.random.below(2 ** 32 - 256)) as never;
  const id = world.random.bytes(8).reduce((value, byte) => value * 256n + BigInt(byte), 0n);
  node.links.send(link.id, encodeFrame({ kind: 'setup', hops: 32, label, destination, id, message }));
}

const JUNK = sodium.randombytes_buf(1_148);

describe('a child that acknowledges nothing', () => {
  test('and sets up more than it may is told little, and is let go within a minute or so', async () => {
    const world = await plantTree(1);
    world.plant('flooder', { parents: ['mid'], leaf: true });
    await connected(world, 'flooder');
    await world.converge();
    const [flooder, mid] = [world.get('flooder'), world.get('mid')];
    const send = flooder.plane.linkSend.bind(flooder.plane);
    flooder.plane.linkSend = (id, frame, options) => {
      if (frame[0] !== frameKinds.acknowledged) send(id, frame, options);
    };
    let told = 0;
    const tell = mid.plane.linkSend.bind(mid.plane);
    const link = mid.links.byKey(flooder.key)?.id;
    mid.plane.linkSend = (id, frame, options) => {
      if (id === link && frame[0] === frameKinds.numbered) told += 1;
      tell(id, frame, options);
    };
    const nobody = KeyPair.generate().publicKey;
    const stop = world.clock.every(10 as never, () => {
      if (flooder.links.all().length === 0) return;
      for (let n = 0; n < 20; n += 1) setup(world, flooder, nobody, JUNK);
    });
    await world.clock.run(10_000);
    stop();
    // A window of reports, repeated ever more rarely.
    expect(told).toBeLessThan(32 * 10);
    expect(mid.router.setups.counters['rate']).toBeGreaterThan(15_000);
    await world.clock.until('mid to let it go', 60_000, () => mid.times('link down child: it acknowledges nothing') > 0);
    expect(mid.links.byKey(world.key('viewer'))).toBeDefined();
  });
});

describe('strangers who call a gateway as often as they can', () => {
  test('keep out neither whom it knows nor, for long, whom it does not', async () => {
    const world = await plantTree(2);
    const camera = deviceOf(world, 'gateway');
    // Somebody who was here once.
    const session = await dialled(world, 'viewer', camera);
    await world.clock.run(1_000);
    world.get('viewer').sessions.close(session.id, 'enough');
    for (const name of ['f1', 'f2']) world.plant(name, { parents: ['root'], leaf: true });
    for (const name of ['f1', 'f2']) await connected(world, name);
    await world.converge();
    const flooders = ['f1', 'f2'].map((name) => ({ node: world.get(name), call: caller(world.get(name)) }));
    const stop = world.clock.every(20 as never, () => {
      for (const { node, call } of flooders) setup(world, node, camera, call(camera));
    });
    // Their links may bring 50 a second each, and 100 at once: more than the gateway has time for.
    await world.clock.run(4_000);
    const gateway = world.get('gateway');
    expect(gateway.refusals.filter((why) => why.startsWith('more calls')).length).toBeGreaterThan(50);
    for (let n = 0; n < 3; n += 1) {
      const started = world.clock.now();
      const again = await dialled(world, 'viewer', camera, 4_000);
      expect(world.clock.now() - started).toBeLessThan(300);
      world.get('viewer').sessions.close(again.id, 'enough');
      await world.clock.run(500);
    }
    stop();
    await world.clock.run(2_000);
    await dialled(world, 'gateway2', camera);
    await world.clock.run(20_000);
    expect(gateway.sessions.all().length).toBe(1);
  }, 120_000);

  test('below another relay leave room for everybody else who comes the same way, from above', async () => {
    const world = await plantTree(6);
    const lamp = deviceOf(world, 'gateway2');
    for (const name of ['f1', 'f2', 'f3', 'f4']) world.plant(name, { parents: ['root'], leaf: true });
    for (const name of ['f1', 'f2', 'f3', 'f4']) await connected(world, name);
    await world.converge();
    const stop = world.clock.every(20 as never, () => {
      for (const name of ['f1', 'f2', 'f3', 'f4']) setup(world, world.get(name), lamp, JUNK);
    });
    await world.clock.run(4_000);
    for (let n = 0; n < 3; n += 1) {
      const started = world.clock.now();
      const session = await dialled(world, 'gateway', lamp, 4_000);
      expect(world.clock.now() - started).toBeLessThan(300);
      world.get('gateway').sessions.close(session.id, 'enough');
      await world.clock.run(500);
    }
    stop();
  });

  test('even from behind the same relay do not keep apart those who were talking', async () => {
    const world = await plantTree(3);
    const camera = deviceOf(world, 'gateway');
    const traffic = new Traffic(world, 'viewer', 'gateway', 50, camera);
    await traffic.resumed(3_000);
    const names = Array.from({ length: 12 }, (_, n) => `flooder${n}`);
    for (const name of names) world.plant(name, { parents: ['mid'], leaf: true });
    for (const name of names) await connected(world, name);
    await world.converge();
    const root = world.get('root');
    for (let n = 0; n < 3; n += 1) {
      // By then the path has carried packets for long.
      await world.clock.run(23_000);
      const before = root.router.setups.counters['rate'] ?? 0;
      const stop = world.clock.every(15 as never, () => {
        for (const name of names) setup(world, world.get(name), camera, JUNK);
      });
      await world.clock.run(3_000);
      expect(root.router.setups.counters['rate']).toBeGreaterThan(before + 50);
      // As when a relay's program forgets its labels.
      root.plane.expire();
      expect(await traffic.resumed(1_500)).toBeLessThan(1_500);
      stop();
    }
    traffic.stop();
  }, 120_000);
});

describe('an address', () => {
  test('is not moved by the first frame under new keys that somebody else brings: only by an answered probe', async () => {
    const world = await plantTree(4, 3_000);
    const [viewer, mid] = [world.get('viewer'), world.get('mid')];
    const camera = deviceOf(world, 'gateway');
    const traffic = new Traffic(world, 'viewer', 'gateway', 50, camera);
    await traffic.resumed(3_000);
    const home = viewer.id.address;
    const evil = { host: '192.0.2.66', port: 666 };
    const keys = new Set<string>();
    let carried = 0;
    const send = world.wire.send.bind(world.wire);
    // On the way from the viewer to mid: takes away the first frame under each new key, and brings it from elsewhere.
    world.wire.send = (from, to, datagram) => {
      const first = datagram.type === 'link' && from.host === home.host && !keys.has(datagram.key);
      if (datagram.type === 'link' && from.host === home.host) keys.add(datagram.key);
      if (!first || keys.size === 1) return send(from, to, datagram);
      carried += 1;
      world.wire.inject(evil, to, datagram);
    };
    const seen = new Set<string | undefined>();
    const stop = world.clock.every(20 as never, () => seen.add(mid.links.byKey(viewer.key)?.remote.host));
    await world.clock.run(20_000);
    stop();
    expect(carried).toBeGreaterThanOrEqual(3);
    expect([...seen]).toEqual([home.host]);
    const mark = traffic.sent;
    await world.clock.run(2_000);
    traffic.stop();
    // What mid sends goes where the viewer is.
    expect(traffic.arrived('a').filter((n) => n > mark).length).toBeGreaterThan(35);
    expect(viewer.times('link down')).toBe(0);
  });

  test('of a program that starts anew elsewhere is known with its handshake, not a probe later', async () => {
    const world = await plantTree(5);
    const mid = world.get('mid');
    world.kill('viewer');
    const outside = { host: '198.51.100.9', port: 4_009 };
    const viewer = world.start('viewer');
    world.wire.rebind(viewer.id.address, outside);
    await connected(world, 'viewer', 3_000);
    await world.clock.run(30);
    expect(mid.links.byKey(viewer.key)?.remote).toEqual(outside);
    await dialled(world, 'viewer', deviceOf(world, 'gateway'));
  });
});
