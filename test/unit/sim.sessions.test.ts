/** Sessions: both ends agreeing on one path, rekeys that lose nothing, recovery, and what a replay can't do. */
import { describe, expect, jest, test } from '@jest/globals';
import { controlKind, encodeHello } from '../../ts/node/session-control.js';
import { KeyPair } from '../../ts/trust/index.js';
import { connected, deviceOf, dialled, plantTree } from '../sim/helpers.js';
import { type Sent, Traffic, World } from '../sim/index.js';

// Virtual time is quick; a machine with other work isn't.
jest.setTimeout(60_000);

/** Two leaves under one root: the labels that one sends under are those that the root gave it for the path to the other. */
async function plantPair(seed: number): Promise<World> {
  const world = new World(seed);
  world.plant('root');
  world.plant('a', { parents: ['root'], leaf: true });
  world.plant('b', { parents: ['root'], leaf: true });
  await world.converge();
  return world;
}

/** Both ends' data planes send over halves of the same path: the session keys match. */
function agree(world: World, a: string, b: string): boolean {
  const [na, nb] = [world.get(a), world.get(b)];
  const [sa, sb] = [na.session(nb.key), nb.session(na.key)];
  if (sa?.state !== 'up' || sb?.state !== 'up') return false;
  const [pa, pb] = [na.plane.currentPath(sa.id), nb.plane.currentPath(sb.id)];
  return pa !== undefined && pb !== undefined && Buffer.compare(pa.sendKey, pb.receiveKey) === 0;
}

const paths = (world: World, name: string): number => world.get(name).plane.counts.paths;

describe('two ends', () => {
  test.each([1, 2, 3, 4, 5, 6, 7, 8])('that dial at once get one session and one path (seed %i)', async (seed) => {
    const world = await plantPair(seed);
    world.wire.quality = { latency: 10, jitter: 15, loss: seed > 4 ? 0.2 : 0, duplication: 0.05 };
    const [a, b] = [world.get('a'), world.get('b')];
    const results: string[] = [];
    for (const [from, to] of [
      [a, b],
      [b, a],
    ] as const) {
      await world.clock.run(world.random.below(25));
      from.sessions.dial(from.key, to.key).then(
        () => results.push('up'),
        (error: unknown) => results.push(String(error)),
      );
    }
    await world.clock.until('both calls to end', 6_000, () => results.length === 2);
    expect(results).toEqual(['up', 'up']);
    await world.clock.until('agreement', 3_000, () => agree(world, 'a', 'b'));
    // And it stays: no path is taken down that the other side counts on.
    const traffic = new Traffic(world, 'a', 'b', 50);
    await world.clock.run(40_000);
    traffic.stop();
    expect(agree(world, 'a', 'b')).toBe(true);
    expect([a.sessions.all().length, b.sessions.all().length]).toEqual([1, 1]);
    expect([paths(world, 'a'), paths(world, 'b')]).toEqual([1, 1]);
    expect(traffic.unsent).toBe(0);
    if (seed <= 4) expect([a, b].map((node) => node.times('session up'))).toEqual([2, 2]);
  });

  test('hear what the other lets them reach, though the first hellos are lost', async () => {
    const world = await plantPair(9);
    const [a, b] = [world.get('a'), world.get('b')];
    const isHello = ({ datagram }: Sent): boolean => datagram.type === 'data' && datagram.plain[0] === controlKind.hello;
    let lost = 0;
    world.wire.intercept = (sent) => {
      if (!isHello(sent) || lost >= 6) return 'pass';
      lost += 1;
      return 'drop';
    };
    await dialled(world, 'a', b.key);
    await world.clock.until('both hellos', 5_000, () => a.session(b.key)?.greeted === true && b.session(a.key)?.greeted === true);
    expect(lost).toBe(6);
    expect([paths(world, 'a'), paths(world, 'b')]).toEqual([1, 1]);
    lost = 0;
    b.offers = [{ protocol: 'udp', port: 5_683, rtsp: false }];
    const session = b.session(a.key);
    if (session !== undefined) b.sessions.offer(session.id);
    await world.clock.until('the new offer', 15_000, () => a.session(b.key)?.offered[0]?.port === 5_683);
  });

  test('agree on the newer path even when the first packet of the older one comes last', async () => {
    const world = await plantPair(15);
    const [a, b] = [world.get('a'), world.get('b')];
    const held: Sent[] = [];
    world.wire.intercept = (sent) => {
      if (sent.datagram.type !== 'data' || sent.from.host !== a.id.address.host) return 'pass';
      held.push(sent);
      return 'drop';
    };
    const session = await dialled(world, 'a', b.key);
    // The path is lost to this end only; its packets are still on their way.
    if (session.egress === undefined) throw new RangeError('no path');
    a.sessions.pathLost(session.egress.label, session.egress.link);
    world.wire.intercept = undefined;
    await world.clock.until('the second path', 3_000, () => agree(world, 'a', 'b'));
    for (const { from, to, datagram } of held) world.wire.inject(from, to, datagram);
    await world.clock.run(1_000);
    expect(agree(world, 'a', 'b')).toBe(true);
    await world.clock.run(30_000);
    expect(agree(world, 'a', 'b')).toBe(true);
    expect(b.times('session closed')).toBe(0);
  });

  test('fall silent when nobody sends', async () => {
    const world = await plantPair(10);
    await dialled(world, 'a', world.key('b'));
    await world.clock.run(20_000);
    const before = world.wire.sent;
    await world.clock.run(80_000);
    // Two links, kept alive every 25 s by a question and its answer; no session packet, no routing frame.
    expect(world.wire.sent - before).toBeLessThanOrEqual(2 * 2 * 4);
  });

  test('learn of it when the other side closes the path, and set up another', async () => {
    const world = await plantPair(11);
    const session = await dialled(world, 'a', world.key('b'));
    await world.clock.run(1_000);
    const { egress } = session;
    const far = world.get('b').session(world.key('a'));
    if (far?.ingress === undefined || far.egress === undefined) throw new RangeError('no path');
    world.get('b').router.setups.close(far.ingress, far.egress);
    await world.clock.until('another path', 3_000, () => session.state === 'up' && session.egress?.label !== egress?.label);
    await world.clock.until('agreement', 3_000, () => agree(world, 'a', 'b'));
  });

  test('take a session down together', async () => {
    const world = await plantPair(12);
    const session = await dialled(world, 'a', world.key('b'));
    await world.clock.run(1_000);
    world.get('a').sessions.close(session.id, 'enough');
    await world.clock.run(1_000);
    for (const name of ['a', 'b', 'root']) {
      expect(world.get(name).sessions.all()).toEqual([]);
      expect(world.get(name).router.setups.size).toBe(0);
      expect(world.get(name).plane.labels).toBe(0);
    }
  });

  test('keep a session through a long partition of its middle, and not for ever', async () => {
    const world = await plantTree(13);
    const traffic = new Traffic(world, 'viewer', 'gateway', 100, deviceOf(world, 'gateway'));
    await traffic.resumed(5_000);
    const session = world.get('viewer').session(deviceOf(world, 'gateway'));
    world.wire.cut(world.identity('mid').address.host, world.identity('root').address.host);
    await world.clock.run(400_000);
    world.wire.heal(world.identity('mid').address.host, world.identity('root').address.host);
    expect(await traffic.resumed(10_000)).toBeLessThan(10_000);
    expect(world.get('viewer').session(deviceOf(world, 'gateway'))?.id).toBe(session?.id);
    traffic.stop();
    world.kill('gateway');
    await world.clock.run(31 * 60_000);
    expect(world.get('viewer').sessions.all()).toEqual([]);
  });

  test('jump ahead when told that their boot epoch is behind', async () => {
    const world = await plantTree(14);
    for (let boot = 0; boot < 5; boot += 1) {
      world.kill('viewer');
      world.start('viewer');
      await connected(world, 'viewer');
      await dialled(world, 'viewer', deviceOf(world, 'gateway'));
    }
    world.kill('viewer');
    // The SD card of some time ago.
    world.identity('viewer').epoch = 1n;
    const viewer = world.start('viewer');
    await connected(world, 'viewer');
    await dialled(world, 'viewer', deviceOf(world, 'gateway'));
    expect(viewer.times('behind')).toBeGreaterThan(0);
    expect(world.identity('viewer').epoch).toBeGreaterThan(6n);
    await world.converge();
  });
});

describe('rekeys', () => {
  const cases: readonly [string, { latency: number; jitter: number; loss: number; duplication: number }, string, number, number][] = [
    ['on a clean path', { latency: 10, jitter: 0, loss: 0, duplication: 0 }, 'both', 2_000, 2_000],
    ['with reordering and duplicates', { latency: 10, jitter: 80, loss: 0, duplication: 0.1 }, 'both', 2_000, 2_000],
    ['when only the far end sends', { latency: 10, jitter: 40, loss: 0, duplication: 0 }, 'b', 2_000, 2_000],
    ['when only we send', { latency: 10, jitter: 40, loss: 0, duplication: 0 }, 'a', 2_000, 2_000],
    ['at their shortest interval', { latency: 20, jitter: 60, loss: 0, duplication: 0 }, 'both', 1_000, 1_000],
    ['where the other side has the default interval', { latency: 10, jitter: 40, loss: 0, duplication: 0 }, 'both', 2_000, 120_000],
  ];

  test.each(cases)('lose no packet %s', async (_, quality, sender, rekeyA, rekeyB) => {
    const world = new World(21);
    world.plant('root');
    world.plant('a', { parents: ['root'], leaf: true, rekeyMs: rekeyA });
    world.plant('b', { parents: ['root'], leaf: true, rekeyMs: rekeyB });
    await world.converge();
    world.wire.quality = quality;
    const session = await dialled(world, 'a', world.key('b'));
    await world.clock.run(1_000);
    const numbers = await numbered(world, sender, 40_000);
    expect(session.rekeys).toBeGreaterThanOrEqual(14);
    expect(numbers.missing).toEqual([]);
    expect(numbers.twice).toEqual([]);
    expect(world.get('a').times('session up')).toBeLessThanOrEqual(3);
  });

  test.each(['both', 'a', 'b'])('lost in part leave a gap nowhere but where packets were lost (sent by %s)', async (sender) => {
    const world = new World(22);
    world.plant('root');
    world.plant('a', { parents: ['root'], leaf: true, rekeyMs: 2_000 });
    world.plant('b', { parents: ['root'], leaf: true, rekeyMs: 2_000 });
    await world.converge();
    world.wire.quality = { latency: 10, jitter: 30, loss: 0.1, duplication: 0 };
    const session = await dialled(world, 'a', world.key('b'), 10_000);
    await world.clock.run(2_000);
    const numbers = await numbered(world, sender, 60_000);
    expect(session.rekeys).toBeGreaterThanOrEqual(14);
    // Two hops lose 19 of 100; whole runs of missing numbers would be keys that one side lacks.
    expect(longestRun(numbers.missing)).toBeLessThan(10);
    for (const name of ['a', 'b']) expect(world.get(name).plane.drops['noKey'] ?? 0).toBe(0);
  });

  test('of links keep all labels', async () => {
    const world = await plantTree(23, 2_000);
    const traffic = new Traffic(world, 'viewer', 'gateway', 50, deviceOf(world, 'gateway'));
    await traffic.resumed(3_000);
    await world.clock.run(1_000);
    const first = traffic.sent;
    await world.clock.run(30_000);
    const last = traffic.sent - 20;
    for (const at of ['a', 'b'] as const) expect(missing(traffic.arrived(at), first, last)).toEqual([]);
    traffic.stop();
    expect(world.get('viewer').times('link up')).toBe(1);
  });

  test('of links come through loss, and an idle parent goes on under keys that the child has', async () => {
    const world = await plantTree(24, 3_000);
    world.wire.quality = { latency: 10, jitter: 20, loss: 0.2, duplication: 0 };
    await world.clock.run(120_000);
    const losses = world.all().map((node) => node.times('link down'));
    expect(losses.reduce((a, b) => a + b)).toBeLessThanOrEqual(4);
    for (const node of world.all()) expect(node.plane.drops['noKey'] ?? 0).toBeLessThanOrEqual(2);
  });

  test('of links are shown to the far end until it uses them', async () => {
    const world = await plantTree(26, 3_000);
    const keys = new Map<string, number>();
    // The first two frames under every key are lost.
    world.wire.intercept = ({ datagram }) => {
      if (datagram.type !== 'link') return 'pass';
      const seen = keys.get(datagram.key) ?? 0;
      keys.set(datagram.key, seen + 1);
      return seen < 2 ? 'drop' : 'pass';
    };
    await world.clock.run(60_000);
    expect(keys.size).toBeGreaterThan(100);
    for (const node of world.all()) {
      expect(node.plane.drops['noKey'] ?? 0).toBe(0);
      expect(node.times('link down')).toBe(0);
    }
  });

  test('that the data plane asks for come at once, and the path lives on', async () => {
    const world = await plantPair(25);
    const session = await dialled(world, 'a', world.key('b'));
    await world.clock.run(70_000);
    const { egress } = session;
    world.get('a').plane.exhaust(session.id);
    await world.clock.run(2_000);
    expect(session.rekeys).toBe(1);
    expect(session.egress).toBe(egress);
  });
});

describe('replays', () => {
  test('of everything that was ever sent deliver nothing and displace nothing', async () => {
    const world = await plantTree(31);
    const recorded: Sent[] = [];
    world.wire.record = recorded;
    // Two lives of the viewer and the gateway are on record.
    for (const name of ['viewer', 'gateway']) {
      const traffic = new Traffic(world, 'viewer', 'gateway', 200, deviceOf(world, 'gateway'));
      await traffic.resumed(10_000);
      await world.clock.run(2_000);
      traffic.stop();
      world.kill(name);
      await world.clock.run(500);
      world.start(name);
      await world.converge();
    }
    world.wire.record = undefined;
    await connected(world, 'gateway');
    for (const node of world.all()) node.arrived.length = 0;
    const live = new Traffic(world, 'viewer', 'gateway', 200, deviceOf(world, 'gateway'));
    await live.resumed(8_000);
    await world.clock.run(12_000);
    const before = state(world);
    const arrived = world.get('gateway').arrived.length + world.get('viewer').arrived.length;
    const sent = live.sent;
    for (const [at, { from, to, datagram }] of recorded.entries()) {
      world.wire.inject(at % 2 === 0 ? from : { host: '192.0.2.66', port: 6_666 }, to, datagram);
      if (at % 20 === 0) await world.clock.run(40);
    }
    await world.clock.run(20_000);
    live.stop();
    await world.clock.run(1_000);
    expect(state(world)).toEqual(before);
    // What arrived is what was sent meanwhile, once.
    const now = world.get('gateway').arrived.length + world.get('viewer').arrived.length;
    expect(now - arrived).toBeLessThanOrEqual(2 * (live.sent - sent) + 2);
    for (const at of ['a', 'b'] as const) expect(new Set(live.arrived(at)).size).toBe(live.arrived(at).length);
  });

  test('of one message 1 over and over hold a bounded number of labels and paths', async () => {
    const world = await plantTree(32);
    const recorded: Sent[] = [];
    world.wire.record = recorded;
    for (let n = 0; n < 12; n += 1) {
      const session = await dialled(world, 'viewer', deviceOf(world, 'gateway'));
      await world.clock.run(300);
      world.get('viewer').sessions.close(session.id, 'again');
      await world.clock.run(300);
    }
    world.wire.record = undefined;
    // A new life of the gateway: it remembers no message.
    world.kill('gateway');
    world.start('gateway');
    await world.converge();
    const gateway = world.get('gateway');
    const root = world.get('root');
    const setups = recorded.filter((s) => s.to.host === gateway.id.address.host && s.datagram.type === 'link' && s.datagram.plain[0] === 5);
    expect(setups.length).toBeGreaterThanOrEqual(12);
    const link = root.links.byKey(gateway.key);
    if (link === undefined) throw new RangeError('no link');
    let highest = 0;
    for (let round = 0; round < 5; round += 1) {
      for (const { datagram } of setups) {
        if (datagram.type !== 'link') continue;
        // A relay that turned bad: the same message under labels and ids of its own.
        const frame = datagram.plain.slice();
        frame.set(world.random.bytes(4), 4);
        frame.set(world.random.bytes(8), 40);
        root.links.send(link.id, frame);
      }
      await world.clock.run(200);
      highest = Math.max(highest, gateway.plane.counts.paths);
    }
    expect(highest).toBeLessThanOrEqual(4);
    await world.clock.run(30_000);
    expect(gateway.plane.counts.paths).toBe(0);
    expect(gateway.router.setups.size).toBe(0);
    expect(gateway.sessions.all()).toEqual([]);
  });

  test("never bring back an older certificate of the far end's", async () => {
    const world = await plantPair(33);
    const recorded: Sent[] = [];
    world.wire.record = recorded;
    const a = world.identity('a') as { chain: readonly Uint8Array[] };
    const first = await dialled(world, 'a', world.key('b'));
    await world.clock.run(500);
    world.wire.record = undefined;
    const before = world.get('b').session(world.key('a'))?.identity.groups;
    world.get('a').sessions.close(first.id, 'for a new certificate');
    // The same boot of a, so its epoch doesn't tell; a new one of b, which remembers no message.
    a.chain = [world.certify('a', ['staff'])];
    world.kill('b');
    world.start('b');
    await connected(world, 'b');
    await world.clock.run(500);
    await dialled(world, 'a', world.key('b'));
    await world.clock.run(500);
    const identity = (): readonly string[] | undefined => world.get('b').session(world.key('a'))?.identity.groups;
    expect([before, identity()]).toEqual([[], ['staff']]);
    const link = world.get('root').links.byKey(world.key('b'));
    const setup = recorded.find(
      (s) => s.to.host === world.identity('b').address.host && s.datagram.type === 'link' && s.datagram.plain[0] === 5,
    );
    if (link === undefined || setup?.datagram.type !== 'link') throw new RangeError('nothing recorded');
    world.get('root').links.send(link.id, setup.datagram.plain);
    await world.clock.run(1_000);
    // It was taken for a call, which nobody will confirm.
    expect(paths(world, 'b')).toBe(2);
    expect(identity()).toEqual(['staff']);
  });
});

describe('a hello', () => {
  test('of 128 services is cut to what fits a packet', () => {
    const services = Array.from({ length: 200 }, (_, n) => ({ protocol: 'tcp' as const, port: 60_000 + n, rtsp: true }));
    expect(encodeHello(services).length).toBeLessThanOrEqual(1_200);
  });
});

test('a stranger of another network gets silence and leaves nothing behind', async () => {
  const world = await plantTree(41);
  const other = KeyPair.generate();
  world.plant('stranger', { parents: ['mid'], leaf: true, network: other });
  await world.clock.run(3_000);
  await expect(dialled(world, 'stranger', deviceOf(world, 'gateway'), 8_000)).rejects.toMatchObject({ code: 'TIMEOUT' });
  expect(world.get('gateway').sessions.all()).toEqual([]);
  await world.clock.run(10_000);
  for (const node of world.all()) expect(node.router.setups.size).toBe(0);
});

/** Links, sessions and tables of all nodes, as far as they matter to anybody. */
function state(world: World): unknown {
  return world.all().map((node) => ({
    name: node.id.name,
    links: node.links.all().map((l) => [l.key, l.generation, l.remote.host, l.remote.port, l.epoch]),
    sessions: node.sessions.all().map((s) => [s.id, s.state, s.egress?.label, s.ingress?.label]),
    table: [...node.router.table.all()].map((e) => [e.key, e.via, e.epoch]).sort(),
    downs: node.times('link down'),
  }));
}

interface Numbers {
  readonly missing: number[];
  readonly twice: number[];
}

/** One of a and b, or both, send the numbers from 1 on, every 10 ms. */
async function numbered(world: World, sender: string, duration: number): Promise<Numbers> {
  const [a, b] = [world.get('a'), world.get('b')];
  a.arrived.length = 0;
  b.arrived.length = 0;
  let next = 0;
  const stop = world.clock.every(10 as never, () => {
    next += 1;
    const bytes = new Uint8Array(4);
    new DataView(bytes.buffer).setUint32(0, next);
    if (sender !== 'b') a.send(b.key, bytes);
    if (sender !== 'a') b.send(a.key, bytes);
  });
  await world.clock.run(duration);
  stop();
  await world.clock.run(2_000);
  const numbers = (node: typeof a): number[] => node.arrived.map((x) => new DataView(x.bytes.buffer, x.bytes.byteOffset).getUint32(0));
  const streams = [...(sender === 'b' ? [] : [numbers(b)]), ...(sender === 'a' ? [] : [numbers(a)])];
  return {
    missing: streams.flatMap((stream) => missing(stream, 1, next)),
    twice: streams.flatMap((stream) => stream.filter((n, i) => stream.indexOf(n) !== i)),
  };
}

function missing(numbers: readonly number[], first: number, last: number): number[] {
  const seen = new Set(numbers);
  const gone: number[] = [];
  for (let n = first; n <= last; n += 1) if (!seen.has(n)) gone.push(n);
  return gone;
}

function longestRun(numbers: readonly number[]): number {
  let [run, longest] = [0, 0];
  for (const [i, n] of numbers.entries()) {
    run = numbers[i - 1] === n - 1 ? run + 1 : 1;
    longest = Math.max(longest, run);
  }
  return longest;
}
