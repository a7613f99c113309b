/** What one neighbour can make a node do: judge statements, answer look-ups, set paths up, pass things up. And that it keeps nobody else from it. */
import { describe, expect, test } from '@jest/globals';
import { Bucket } from '../../ts/bucket.js';
import type { Generation, Hop, Label, LinkId } from '../../ts/dataplane/data-plane.js';
import { decodeFrame, encodeFrame, type Frame } from '../../ts/routing/frames.js';
import { type ChildRights, type Neighbour, Router, RoutingTable } from '../../ts/routing/index.js';
import { type LookupResult, Lookups } from '../../ts/routing/lookups.js';
import { PathSetups, type SetupHost } from '../../ts/routing/setup.js';
import { signEdge, signEndpointEdge, signParentSet } from '../../ts/routing/statements.js';
import type { News } from '../../ts/routing/table.js';
import { Upward } from '../../ts/routing/upward.js';
import { KeyPair, type PublicKey, sodium } from '../../ts/trust/index.js';

const link = (id: number): LinkId => id as LinkId;

describe('a bucket', () => {
  test('gives so much at once, then so much a second, times the weight; what is owed is paid first', () => {
    const bucket = new Bucket(10, 20, 0);
    let taken = 0;
    while (bucket.take(0)) taken += 1;
    expect(taken).toBe(20);
    for (; bucket.take(1_000); taken += 1);
    expect(taken).toBe(30);
    for (; bucket.take(60_000, 1, 3); taken += 1);
    expect(taken).toBe(90);
    bucket.spend(10);
    expect(bucket.take(61_000)).toBe(false);
    expect(bucket.take(61_200)).toBe(true);
  });
});

/** A root without a data plane, and its children as they speak to it. */
class Root {
  readonly pair = KeyPair.generate();
  readonly router: Router;
  readonly children: Child[] = [];
  readonly dropped: string[] = [];
  now = 0;

  constructor() {
    this.router = new Router({
      pair: this.pair,
      epoch: () => 1n,
      parents: () => [],
      names: () => [],
      endpoints: () => [],
      neighbour: (id) => this.children.find((child) => child.id === id),
      neighbourByKey: (key) => this.children.find((child) => child.key === key),
      rights: (): ChildRights => ({ relay: true, gateway: true, cap: 1_000 }),
      send: (id, frame) => this.children.find((child) => child.id === id)?.hear(frame),
      disconnect: (_, reason) => this.dropped.push(reason),
      labelForward: () => {},
      labelRemove: () => {},
      incoming: () => {},
      pathLost: () => {},
      now: () => this.now,
      random: (bytes) => sodium.randombytes_buf(bytes),
    });
  }

  join(): Child {
    const child = new Child(this, link(this.children.length + 1));
    this.children.push(child);
    this.router.linkUp(child);
    return child;
  }

  /** Lets time pass, a tick each 200 ms, `work` each 10 ms. */
  run(duration: number, work: () => void): void {
    for (const end = this.now + duration; this.now < end; this.now += 10) {
      work();
      if (this.now % 200 === 0) this.router.tick();
    }
  }
}

class Child implements Neighbour {
  readonly pair = KeyPair.generate();
  readonly role = 'child';
  readonly generation = 1 as Generation;
  readonly id: LinkId;
  readonly #root: Root;
  nonce: Uint8Array | undefined;
  /** The next number, and the next that the root wants. */
  #next = 0;
  #wanted = 0;

  constructor(root: Root, id: LinkId) {
    this.#root = root;
    this.id = id;
  }

  get key(): PublicKey {
    return this.pair.publicKey;
  }

  hear(bytes: Uint8Array): void {
    const frame = decodeFrame(bytes);
    if (frame?.kind === 'acknowledged') this.#wanted = frame.next;
    const body = frame?.kind === 'numbered' ? decodeFrame(frame.body) : undefined;
    if (body?.kind === 'nonce') this.nonce = body.nonce;
  }

  /** Whether the root's window has room for another frame. */
  get mayPush(): boolean {
    return this.#next - this.#wanted < 32;
  }

  push(body: Uint8Array): void {
    const numbered = encodeFrame({ kind: 'numbered', number: this.#next, body });
    this.#next += 1;
    this.#root.router.handle(this, this.generation, numbered);
  }

  half(nonce: Uint8Array): Uint8Array {
    const edge = { child: this.key, parent: this.#root.pair.publicKey, nonce, epoch: 1n, seq: 1n };
    return encodeFrame({ kind: 'edgeHalf', statement: signEdge(edge, this.pair) });
  }
}

describe('statements to verify', () => {
  test('that a child sends as fast as it may are judged at a bounded rate, and another child gets its place meanwhile', () => {
    const root = new Root();
    const flooder = root.join();
    const [good, late] = [root.join(), root.join()];
    const false_ = flooder.half(sodium.randombytes_buf(16));
    const flood = (): void => {
      while (flooder.mayPush) {
        const before = root.router.counters['badAttestation'] ?? 0;
        flooder.push(false_);
        // Nothing was judged: it waits, and so do we.
        if ((root.router.counters['badAttestation'] ?? 0) === before) break;
      }
    };
    root.run(5_000, flood);
    good.push(good.half(good.nonce ?? new Uint8Array(16)));
    root.run(1_000, flood);
    expect(root.router.table.get(good.key)?.via).toBe(good.key);
    root.run(4_000, flood);
    // Two signatures each: a thousand at once, then 400 a second.
    const judged = root.router.counters['badAttestation'] ?? 0;
    expect(judged).toBeGreaterThan(1_000);
    expect(judged).toBeLessThanOrEqual((1_000 + 400 * 10) / 2 + 40);
    late.push(late.half(late.nonce ?? new Uint8Array(16)));
    root.run(400, () => {});
    expect(root.router.table.get(late.key)?.via).toBe(late.key);
    expect(root.dropped).toEqual([]);
  });

  test('of many children at once get no more than a third of a second of each', () => {
    const root = new Root();
    const flooders = Array.from({ length: 20 }, () => root.join());
    const frames = flooders.map((flooder) => flooder.half(sodium.randombytes_buf(16)));
    let judged = 0;
    root.run(2_000, () => {
      for (const [n, flooder] of flooders.entries()) if (flooder.mayPush) flooder.push(frames[n] ?? new Uint8Array(1));
    });
    judged = root.router.counters['badAttestation'] ?? 0;
    expect(judged).toBeGreaterThan(2_000);
    expect(judged).toBeLessThanOrEqual((600 + 3_000 * 2) / 2 + 20);
  });

  test('that stand byte for byte already cost nothing', () => {
    const [child, below] = [KeyPair.generate(), KeyPair.generate()];
    const table = new RoutingTable(KeyPair.generate().publicKey);
    const stamp = { epoch: 1n, seq: 1n };
    const nonce = new Uint8Array(16);
    const rights = { relay: true, gateway: true, cap: 10 };
    table.addChild({ child: child.publicKey, parent: KeyPair.generate().publicKey, nonce, ...stamp }, new Uint8Array(0), 0);
    const items = [
      {
        type: 'endpointEdge' as const,
        bytes: signEndpointEdge({ child: below.publicKey, parent: child.publicKey, nonce, ...stamp }, below, child),
      },
      { type: 'parentSet' as const, bytes: signParentSet({ child: below.publicKey, parents: [child.publicKey], ...stamp }, below) },
    ];
    expect(table.announced(child.publicKey, items, rights, 0).announce.length).toBe(2);
    const checks = table.checks;
    expect(table.announced(child.publicKey, items, rights, 0)).toEqual({ announce: [], withdraw: [], refused: [] });
    expect(table.checks).toBe(checks);
  });
});

describe('what goes up', () => {
  const subject = KeyPair.generate().publicKey;
  const edge = (seq: number, about = subject): News => ({ type: 'edge', bytes: Uint8Array.of(0, 1, 2, 3, seq), subject: about });

  test('of one edge goes at once a few times, then every few seconds, the newest only', () => {
    const counted: string[] = [];
    const upward = new Upward((reason) => counted.push(reason));
    const sent: number[] = [];
    const send = (items: readonly { readonly bytes: Uint8Array }[]): void => {
      for (const { bytes } of items) sent.push(bytes[4] ?? 0);
    };
    let now = 0;
    for (let seq = 1; seq <= 200; seq += 1) {
      send(upward.admit([edge(seq)], now));
      now += 100;
      send(upward.due(now));
    }
    for (const end = now + 10_000; now < end; now += 200) send(upward.due(now));
    expect(sent.length).toBeLessThanOrEqual(4 + 20 / 3 + 2);
    expect(sent.slice(0, 4)).toEqual([1, 2, 3, 4]);
    expect(sent.at(-1)).toBe(200);
    expect(counted.length).toBeGreaterThan(150);
    // Others don't wait for it.
    expect(upward.admit([edge(1, KeyPair.generate().publicKey)], 0).length).toBe(1);
  });

  test('is not what waits for a key that has left meanwhile', () => {
    const upward = new Upward(() => {});
    for (let seq = 1; seq <= 10; seq += 1) upward.admit([edge(seq)], 0);
    upward.gone([subject]);
    expect(upward.due(60_000)).toEqual([]);
  });
});

describe('a child whose rights shrink', () => {
  const [self, child, relay, device] = [0, 1, 2, 3].map(() => KeyPair.generate()) as [KeyPair, KeyPair, KeyPair, KeyPair];
  const stamp = { epoch: 1n, seq: 1n };
  const nonce = new Uint8Array(16);

  function table(): RoutingTable {
    const made = new RoutingTable(self.publicKey);
    const all = { relay: true, gateway: true, cap: 10 };
    made.addChild({ child: child.publicKey, parent: self.publicKey, nonce, ...stamp }, new Uint8Array(0), 0);
    const own = signEndpointEdge({ child: device.publicKey, parent: child.publicKey, nonce, ...stamp }, device, child);
    const edge = signEdge({ child: relay.publicKey, parent: child.publicKey, nonce, ...stamp }, relay);
    // The parent's half, as the child itself would add it.
    const whole = edge.slice();
    const body = edge.subarray(1, edge.length - 2 * 66);
    const signature = child.sign('link attestation', Uint8Array.of(0x86, ...body));
    whole.set(signature, whole.length - 64);
    made.announced(
      child.publicKey,
      [
        { type: 'endpointEdge', bytes: own },
        { type: 'edge', bytes: whole },
      ],
      all,
      0,
    );
    expect(made.size).toBe(3);
    return made;
  }

  test.each<[string, ChildRights, () => readonly PublicKey[]]>([
    ['to a gateway loses what is below it, but for its devices', { relay: false, gateway: true, cap: 10 }, () => [relay.publicKey]],
    ['to none keeps its own place', { relay: false, gateway: false, cap: 0 }, () => [device.publicKey, relay.publicKey]],
    ['in number loses the last ones', { relay: true, gateway: true, cap: 1 }, () => [relay.publicKey]],
    ['not at all keeps everything', { relay: true, gateway: true, cap: 2 }, () => []],
  ])('%s', (_, rights, gone) => {
    const made = table();
    expect([...made.trim(child.publicKey, rights).withdraw].sort()).toEqual([...gone()].sort());
    expect(made.get(child.publicKey)).toBeDefined();
  });
});

describe('look-ups', () => {
  const name = KeyPair.generate().publicKey;

  function relay(): { readonly lookups: Lookups; readonly sent: (Frame | undefined)[]; time: { now: number }; readonly counted: string[] } {
    const sent: (Frame | undefined)[] = [];
    const counted: string[] = [];
    const time = { now: 0 };
    const lookups = new Lookups({
      parent: () => link(9),
      isRoot: () => false,
      holders: () => [],
      send: (to, frame) => {
        if (to === link(9)) sent.push(decodeFrame(frame));
      },
      randomU64: () => sodium.randombytes_buf(8).reduce((value, byte) => value * 256n + BigInt(byte), 0n),
      now: () => time.now,
      count: (reason) => counted.push(reason),
    });
    return { lookups, sent, time, counted };
  }

  const question = (id: bigint): Frame & { kind: 'lookup' } => ({ kind: 'lookup', id, name, exclude: [] });

  test('that are repeated without end go up a few times a second', () => {
    const { lookups, sent, time } = relay();
    for (; time.now < 2_000; time.now += 5) lookups.question(link(1), question(7n), 1);
    expect(sent.length).toBeGreaterThanOrEqual(4);
    expect(sent.length).toBeLessThanOrEqual(9);
  });

  test('of one link are as many as it may ask, and the others are served', () => {
    const { lookups, sent, time, counted } = relay();
    for (let id = 0n; id < 5_000n; id += 1n) lookups.question(link(1), question(id), 1);
    expect(sent.length).toBe(100);
    expect(counted.length).toBe(4_900);
    lookups.question(link(2), question(1n), 1);
    expect(sent.length).toBe(101);
    // A link that goes leaves nothing behind that could be answered.
    lookups.childLost(link(1));
    time.now = 1_000;
    lookups.question(link(1), question(0n), 1);
    expect(sent.length).toBe(102);
  });

  test('of our own come to an end whatever others ask', async () => {
    const { lookups, time } = relay();
    const own: Promise<LookupResult> = lookups.ask(name, []);
    time.now = 3_100;
    lookups.tick();
    await expect(own).resolves.toEqual({ status: 'unreachable' });
  });
});

/** A relay between a caller on link 1 and a gateway on link 2, with a parent on link 3. */
class Relay {
  readonly gateway = KeyPair.generate().publicKey;
  readonly own = KeyPair.generate().publicKey;
  incoming = 0;
  readonly sent: { readonly to: LinkId; readonly frame: Frame | undefined }[] = [];
  readonly reports: (Frame | undefined)[] = [];
  readonly setups: PathSetups;
  now = 0;
  #label = 1_000;

  constructor() {
    const host: SetupHost = {
      self: KeyPair.generate().publicKey,
      isLocal: (key) => key === this.own,
      childLink: (key) => (key === this.gateway ? link(2) : undefined),
      parentLink: () => link(3),
      hasParents: () => true,
      generation: () => 1 as Generation,
      send: (to, frame) => this.sent.push({ to, frame: decodeFrame(frame) }),
      report: (_, frame) => this.reports.push(decodeFrame(frame)),
      labelForward: () => {},
      labelRemove: () => {},
      incoming: () => {
        this.incoming += 1;
      },
      pathLost: () => {},
      randomLabel: () => (this.#label += 1) as Label,
      randomU64: () => 0n,
      now: () => this.now,
    };
    this.setups = new PathSetups(host);
    for (const id of [1, 2, 3]) this.setups.linkUp(link(id), KeyPair.generate().publicKey);
  }

  setup(from: number, id: number, replaces?: Label, destination = this.gateway): void {
    const message = new Uint8Array(1_148);
    const label = (50_000 + id) as Label;
    const frame = { kind: 'setup' as const, hops: 9, label, destination, id: BigInt(id), replaces, message };
    this.setups.handle(link(from), 1 as Generation, frame, from === 3 ? 1_024 : 1);
  }

  /** The gateway answers what was last sent to it; the label that the caller sends under. */
  answer(): Hop['label'] {
    const last = this.sent.at(-1)?.frame;
    if (last?.kind !== 'setup') throw new RangeError('no set-up was sent on');
    const frame = { kind: 'answer' as const, label: last.label, forward: 77_777 as Label, id: last.id, message: last.message };
    this.setups.handle(link(2), 1 as Generation, frame, 1);
    const answer = this.sent.at(-1)?.frame;
    if (answer?.kind !== 'answer') throw new RangeError('no answer was passed on');
    return answer.forward;
  }

  passed(): number {
    return this.sent.filter(({ frame }) => frame?.kind === 'setup').length;
  }
}

describe('set-ups', () => {
  test('beyond the rate of their link are met with silence', () => {
    const relay = new Relay();
    for (let id = 0; id < 100_000; id += 1) relay.setup(1, id);
    expect(relay.setups.counters).toMatchObject({ rate: 99_900 });
    expect(relay.reports.filter((frame) => frame?.kind === 'error').length).toBeLessThanOrEqual(100);
  });

  test('that replace a path which carried packets pass when strangers have used their link up, each a few times', () => {
    const relay = new Relay();
    relay.setup(1, 1);
    const label = relay.answer();
    // As long as it is young nobody knows whether anything came under it.
    relay.now = 30_000;
    for (let id = 100; id < 600; id += 1) relay.setup(1, id);
    const before = relay.passed();
    relay.setup(1, 601);
    expect(relay.passed()).toBe(before);
    relay.setup(1, 2, label);
    expect(relay.passed()).toBe(before + 1);
    const last = relay.sent.at(-1)?.frame;
    // The next hop is shown its own label.
    expect(last?.kind === 'setup' ? last.replaces : undefined).toBe(77_777);
    for (let id = 3; id < 40; id += 1) relay.setup(1, id, label);
    expect(relay.passed()).toBe(before + 6);
    // Nor does it help those who guess labels, or use one of another neighbour's.
    relay.setup(1, 602, 1_234 as Label);
    expect(relay.passed()).toBe(before + 6);
    for (let id = 1_000; id < 8_000; id += 1) relay.setup(3, id);
    const full = relay.passed();
    relay.setup(3, 9_000, label);
    expect(relay.passed()).toBe(full);
  });

  test('that replace a path are known as such after the path is gone, too, and not for a young one', () => {
    const relay = new Relay();
    relay.setup(1, 1);
    const old = relay.answer();
    relay.now = 25_000;
    relay.setup(1, 2);
    const young = relay.answer();
    relay.now = 26_000;
    relay.setups.linkLost(link(2));
    relay.setups.linkUp(link(2), KeyPair.generate().publicKey);
    for (let id = 100; id < 600; id += 1) relay.setup(1, id);
    const before = relay.passed();
    relay.setup(1, 3, young);
    expect(relay.passed()).toBe(before);
    relay.setup(1, 4, old);
    expect(relay.passed()).toBe(before + 1);
  });

  test('are not made to give way by strangers when they replace a path', () => {
    const relay = new Relay();
    relay.setup(1, 1);
    const label = relay.answer();
    relay.now = 30_000;
    relay.setup(1, 2, label);
    for (let id = 100; id < 600; id += 1) relay.setup(1, id);
    expect(relay.setups.counters['halfOpen']).toBeGreaterThan(10);
    const renewed = relay.sent.findLast(({ frame }) => frame?.kind === 'setup' && frame.id === 2n)?.frame;
    if (renewed?.kind !== 'setup') throw new RangeError('not passed on');
    const answer = { kind: 'answer' as const, label: renewed.label, forward: 88_888 as Label, id: 2n, message: renewed.message };
    relay.setups.handle(link(2), 1 as Generation, answer, 1);
    expect(relay.sent.at(-1)).toMatchObject({ to: 1, frame: { kind: 'answer', id: 2n } });
  });

  test('from a parent are as many as everybody behind it may need', () => {
    const relay = new Relay();
    for (let id = 0; id < 2_000; id += 1) relay.setup(3, id);
    expect(relay.passed()).toBe(2_000);
  });

  test('for ourselves that a parent brings are not counted against what it brings for others', () => {
    const relay = new Relay();
    for (let id = 0; id < 10_000; id += 1) relay.setup(3, id);
    relay.setup(3, 20_000, undefined, relay.own);
    expect(relay.incoming).toBe(1);
    // A child's are.
    for (let id = 30_000; id < 30_200; id += 1) relay.setup(1, id, undefined, relay.own);
    expect(relay.incoming).toBe(101);
  });
});
