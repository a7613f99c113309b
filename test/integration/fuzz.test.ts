/** Changed, random and senseless datagrams: dropped and counted, and nobody's session or link the worse for it. */
import { join } from 'node:path';
import { writeMacs } from '../../ts/handshake/index.js';
import { keyBytes, parseKey } from '../../ts/trust/index.js';
import {
  type Datagram,
  datagramsOf,
  type InternetHost,
  type Process,
  repository,
  sendAllLengths,
  sendDatagrams,
  waitFor,
} from '../lab/index.js';
import { type NodeConfig, type NodeName, Pulse, World, type WorldNode } from '../world/index.js';

const LINES = join(repository, 'test', 'fixtures', 'lines.py');
const PAUSE = 1_500;
const SEEDS = [1, 2, 3, 4, 5];
const PER_SEED = 100;
/** A first handshake message with the right mac1 costs its receiver a thought: these stay below what makes it ask for cookies. */
const DEAR_PER_SEED = 10;
/** Of a datagram's payload: what no other traffic here has. */
const SIZE = 700;
/** Bytes at a data packet's end that its hop tag covers. */
const TAG = 16;

let world: World;
/** Prints what datagrams came out of the overlay. */
let receiver: Process;
let bystander: Pulse;
let before: Standing;

beforeAll(async () => {
  const endpoint = (name: string, port: string): NonNullable<NodeConfig['endpoints']>[number] => {
    return { name, services: [{ port, target: `192.168.1.22:${port.split('/')[1]}`, allow: ['group:family'] }] };
  };
  world = await World.create({
    nodes: ['root', 'mid', 'gw', 'viewer', 'viewer2', 'stranger'],
    idle: ['stranger'],
    devices: false,
    configure: (name, config) =>
      name === 'gw' ? { ...config, endpoints: [endpoint('files', 'udp/9'), endpoint('lines', 'tcp/7')] } : config,
  });
  const files = world.lab.host('files');
  receiver = await files.spawn(['python3', LINES, 'serve', '192.168.1.22', '9', 'udp']);
  const echo = await files.spawn(['python3', LINES, 'serve', '192.168.1.22', '7', 'tcp']);
  await Promise.all([receiver, echo].map((server) => server.waitForLine(/^ready$/)));
  const viewer2 = world.node('viewer2');
  const address = await viewer2.lookup('lines.gw.home.thicket', 4);
  bystander = new Pulse(await viewer2.host.spawn(['python3', '-u', LINES, 'send', address, '7', 'tcp']));
  await bystander.process.waitForLine(/^echo 3$/);
}, 120_000);

afterAll(async () => {
  bystander?.end();
  await world?.destroy();
}, 30_000);

beforeEach(async () => {
  bystander.forget();
  before = await standing();
});

afterEach(async () => {
  const lines = bystander.process.stdout.length;
  await waitFor(() => bystander.process.stdout.length > lines + 5, { what: "somebody else's flow" });
  const after = await standing();
  expect(after.links).toEqual(before.links);
  for (const [session, age] of before.sessions) expect(after.sessions.get(session)).toBeGreaterThanOrEqual(age);
  const mark = `after ${performance.now()}`;
  await say(mark);
  await waitFor(() => heard(mark), { what: 'a packet of the session' });
});

describe('every bit flipped, one at a time, and random bodies: dropped and counted, link and session go on', () => {
  test('of a data packet, at the end of its way', async () => {
    const packet = await intercept('root', 'gw', 'data', () => say('at the end'));
    await expectAllDropped(['gw'], 'root', [...flips(packet), ...randomBodies(packet, 20, TAG)]);
    expect(heard('at the end')).toBe(false);
    // Nothing but the changed bits kept it out.
    await sendDatagrams(world.lab.host('root'), [packet]);
    await waitFor(() => heard('at the end'), { what: 'the packet as it was' });
    expect(bystander.longestPause()).toBeLessThan(PAUSE);
  }, 60_000);

  test('of a data packet, at a relay', async () => {
    const packet = await intercept('viewer', 'mid', 'data', () => say('at a relay'));
    // A relay can't tell that only the ciphertext is another: what it passes on is dropped at the end.
    await expectAllDropped(['mid', 'root', 'gw'], 'viewer', [...flips(packet), ...randomBodies(packet, 20, TAG)]);
    expect(heard('at a relay')).toBe(false);
    expect(bystander.longestPause()).toBeLessThan(PAUSE);
  }, 60_000);

  test('of a link frame', async () => {
    const frame = await intercept('viewer', 'mid', 'link', () => viewer().thicket(['resolve', 'nobody.home.thicket'], { check: false }));
    await expectAllDropped(['mid'], 'viewer', [...flips(frame), ...randomBodies(frame, 16)]);
    const replayed = async (): Promise<number> => (await world.node('mid').status()).drops['replayed'] ?? 0;
    const never = await replayed();
    // The frame as it was is taken, once.
    await sendDatagrams(world.lab.host('viewer'), [frame]);
    expect(await replayed()).toBe(never);
    await sendDatagrams(world.lab.host('viewer'), [frame]);
    await waitFor(async () => (await replayed()) === never + 1, { what: 'the second time refused' });
    expect(bystander.longestPause()).toBeLessThan(PAUSE);
  }, 60_000);

  test("of a link handshake's second message", async () => {
    const stranger = world.node('stranger');
    await holdBack(
      'mid',
      'stranger',
      'answer',
      () => stranger.launch(),
      async (answer) => {
        // Those held back are the parent's own: these come from elsewhere, under its name.
        await expectAllDropped(['stranger'], 'root', [...flips(answer), ...randomBodies(answer, 12)]);
        expect((await stranger.status()).state).toBe('connecting');
      },
    );
    await waitFor(async () => (await stranger.status()).state === 'up', { what: 'the link' });
    await stranger.killHard();
    expect(bystander.longestPause()).toBeLessThan(PAUSE);
  }, 60_000);

  test("of a link handshake's first message, and of the cookie that a busy parent answers it with", async () => {
    const stranger = world.node('stranger');
    const first = await intercept('stranger', 'mid', 'call', async () => {
      await stranger.launch();
    });
    await stranger.killHard();
    await expectAllDropped(['mid'], 'stranger', [...dearBodies(first), ...flips(first), ...randomBodies(first, 8)]);
    // So many calls have made mid ask for cookies.
    await holdBack(
      'mid',
      'stranger',
      'cookie',
      () => stranger.launch(),
      async (cookie) => {
        await expectAllDropped(['stranger'], 'root', [...flips(cookie), ...randomBodies(cookie, 8)]);
        expect((await stranger.status()).state).toBe('connecting');
      },
    );
    await waitFor(async () => (await stranger.status()).state === 'up', { what: 'the link, by a cookie' });
    await stranger.killHard();
    expect(bystander.longestPause()).toBeLessThan(PAUSE);
  }, 60_000);
});

test("datagrams of every length to 1500 with every first byte leave a parent alive, and others' flows go on", async () => {
  const { pid } = world.node('mid').process;
  const counted = await count(['mid']);
  const sent = await sendAllLengths(world.lab.host('stranger'), world.lab.host('mid').address, 7117, 40_000);
  expect(sent).toBe(1_501 * 256);
  await waitFor(async () => (await count(['mid'])) - counted >= 0.95 * sent, { what: 'most of them counted' });
  expect(world.node('mid').running).toBe(true);
  expect(world.node('mid').process.pid).toBe(pid);
}, 60_000);

// ── what is sent ────────────────────────────────────────────────────────────────────────────────────────────────────────

const KINDS = {
  data: { filter: `udp[4:2] > ${SIZE} and udp[4:2] <= ${SIZE + 100}`, match: `udp length ${SIZE}-${SIZE + 100}` },
  link: { filter: 'udp[8:4] = 4', match: 'meta l4proto udp @th,64,32 4' },
  call: { filter: 'udp[8:4] = 1', match: 'meta l4proto udp @th,64,32 1' },
  answer: { filter: 'udp[8:4] = 2', match: 'meta l4proto udp @th,64,32 2' },
  cookie: { filter: 'udp[8:4] = 3', match: 'meta l4proto udp @th,64,32 3' },
} as const;
type Kind = keyof typeof KINDS;

/** Holds the datagrams of a kind back on their way while `then` deals with the first. */
async function holdBack(
  from: InternetHost,
  to: InternetHost,
  kind: Kind,
  cause: () => Promise<unknown>,
  then: (datagram: Datagram) => Promise<void>,
): Promise<void> {
  const { filter, match } = KINDS[kind];
  const capture = await world.lab.capture(from, 'wan0', `dst host ${world.lab.host(to).address} and ${filter}`);
  const undo = await world.lab.drop(`iifname "${from}" oifname "${to}" ${match}`);
  const caused = cause();
  try {
    await then(await waitFor(() => datagramsOf(capture.packets())[0], { what: `a datagram of the kind ${kind}` }));
  } finally {
    // At once, or the link's far end would be given up.
    await undo();
    await capture.stop();
  }
  await caused;
}

/** A datagram of a kind that didn't arrive. */
async function intercept(from: InternetHost, to: InternetHost, kind: Kind, cause: () => Promise<unknown>): Promise<Datagram> {
  let held: Datagram | undefined;
  await holdBack(from, to, kind, cause, async (datagram) => {
    held = datagram;
  });
  if (held === undefined) throw new Error(`no ${kind}`);
  return held;
}

function flips(datagram: Datagram): Datagram[] {
  return Array.from({ length: 8 * datagram.payload.length }, (_, bit) => {
    const payload = Buffer.from(datagram.payload);
    payload[bit >> 3] = (payload[bit >> 3] ?? 0) ^ (1 << (bit & 7));
    return { ...datagram, payload };
  });
}

/** The first `head` and the last `tail` bytes as they were. */
function randomBodies(datagram: Datagram, head: number, tail = 0): Datagram[] {
  return SEEDS.flatMap((seed) => {
    const random = generator(seed);
    return Array.from({ length: PER_SEED }, () => {
      const payload = Buffer.from(datagram.payload);
      for (let at = head; at < payload.length - tail; at += 1) payload[at] = random() & 255;
      return { ...datagram, payload };
    });
  });
}

/** Random first messages that pass mac1. */
function dearBodies(datagram: Datagram): Datagram[] {
  const key = keyBytes(parseKey(world.node('mid').key));
  const bodies = randomBodies(datagram, 8).filter((_, index) => index % PER_SEED < DEAR_PER_SEED);
  for (const { payload } of bodies) writeMacs(payload, key, undefined);
  return bodies;
}

async function expectAllDropped(at: readonly NodeName[], from: InternetHost, datagrams: readonly Datagram[]): Promise<void> {
  const counted = await count(at);
  await sendDatagrams(world.lab.host(from), datagrams);
  await waitFor(async () => (await count(at)) - counted >= datagrams.length, { what: `${datagrams.length} datagrams counted as dropped` });
}

/** What these nodes dropped and refused. */
async function count(nodes: readonly NodeName[]): Promise<number> {
  const documents = await Promise.all(nodes.map((name) => world.node(name).status()));
  return documents.flatMap(({ drops, refused }) => [...Object.values(drops), ...Object.values(refused)]).reduce((sum, n) => sum + n, 0);
}

// ── what must stand ─────────────────────────────────────────────────────────────────────────────────────────────────────

interface Standing {
  /** How often links came and went, by node. */
  readonly links: readonly string[];
  readonly sessions: ReadonlyMap<string, number>;
}

async function standing(): Promise<Standing> {
  const links: string[] = [];
  const sessions = new Map<string, number>();
  for (const name of ['viewer', 'viewer2', 'root', 'gw'] as const) {
    const node = world.node(name);
    links.push(`${name} ${node.log.split('\n').filter((line) => /link (up|down)/.test(line)).length}`);
    for (const { own, key, ageSeconds } of (await node.status()).sessions) sessions.set(`${name} ${own} ${key}`, ageSeconds);
  }
  return { links, sessions };
}

const viewer = (): WorldNode => world.node('viewer');

/** One datagram through the overlay. */
async function say(mark: string): Promise<void> {
  const address = await viewer().lookup('files.home.thicket', 4);
  const program =
    'import socket, sys; socket.socket(type=socket.SOCK_DGRAM).sendto(sys.argv[2].ljust(int(sys.argv[3]), ".").encode(), (sys.argv[1], 9))';
  await viewer().host.exec(['python3', '-c', program, address, mark, String(SIZE)]);
}

const heard = (mark: string): boolean => receiver.stdout.some((line) => line.includes(` ${mark}..`));

/** xorshift32: the same numbers in each run. */
function generator(seed: number): () => number {
  let state = seed;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
}
