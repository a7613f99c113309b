/**
 * Against a client with a valid certificate that keeps no rule but the wire's: whatever it sends is dropped where it should be and counted under
 * its reason, nothing of it is seen on the LAN, and nobody else's session notices.
 */
import { join } from 'node:path';
import type { ServiceDocument } from '../../ts/control/documents.js';
import type { Label } from '../../ts/dataplane/data-plane.js';
import { encodeFrame } from '../../ts/routing/frames.js';
import type { PublicKey } from '../../ts/trust/index.js';
import { ImpoliteClient, inner, kind, tcpBody, tcpFlag } from '../impolite/index.js';
import { type Capture, type Packet, type Process, repository, waitFor } from '../lab/index.js';
import { echoRequests, from, listenOn, World, type WorldNode } from '../world/index.js';

/** The client's certificate says so; `stranger` is merely the host that it runs on. */
const FAMILY_AND_CLIENT = ['group:family', 'name:stranger'];
/** A service that sends back the lines that it gets. */
const ECHO = 9_000;
const DOORS = ['tcp/22', 'tcp/8080', 'udp/5000'];

let world: World;
let mid: WorldNode;
let gw: WorldNode;
let viewer: WorldNode;
let client: ImpoliteClient;
let lan: Capture;
let gatewayWan: Capture;
let viewerWan: Capture;
let midWan: Capture;
let doors: Process[];
/** Somebody else's connection, all the while: it sends numbers and gets them back. */
let other: Process;
/** When the client came, in seconds. */
let came: number;
const endpoints = new Map<string, PublicKey>();
const sessions = new Map<string, number>();

beforeAll(async () => {
  world = await World.create({
    nodes: ['root', 'mid', 'gw', 'viewer', 'stranger'],
    idle: ['stranger'],
    plan: (name, plan) => {
      if (name === 'stranger') return { ...plan, network: 'home', groups: [] };
      if (name !== 'gw') return plan;
      const echo = { port: `tcp/${ECHO}`, target: `192.168.1.22:${ECHO}`, allow: ['group:family'] };
      const endpoints = plan.endpoints.map((e) => {
        const services = e.services ?? [];
        if (e.name === 'light1') return { ...e, services: services.map((service) => ({ ...service, allow: FAMILY_AND_CLIENT })) };
        return e.name === 'files' ? { ...e, services: [...services, echo] } : e;
      });
      return { ...plan, endpoints };
    },
  });
  mid = world.node('mid');
  gw = world.node('gw');
  viewer = world.node('viewer');
  lan = await world.lab.capture('gw', 'lan0');
  gatewayWan = await world.lab.capture('gw', 'wan0', 'udp');
  viewerWan = await world.lab.capture('viewer', 'wan0', 'udp');
  midWan = await world.lab.capture('mid', 'wan0', 'udp');
  doors = await Promise.all(
    [gw.host, viewer.host, world.lab.host('camera'), world.lab.host('broker')].map((host) => listenOn(host, DOORS)),
  );
  for (const { name, key } of await gw.json<readonly ServiceDocument[]>(['services'])) {
    endpoints.set(name.split('.', 1)[0] ?? '', key as PublicKey);
  }
  const lines = join(repository, 'test', 'fixtures', 'lines.py');
  const files = world.lab.host('files');
  await (await files.spawn(['/usr/bin/python3', lines, 'serve', files.address, String(ECHO), 'tcp'])).waitForLine(/^ready$/);
  const at = await viewer.lookup('files.home.thicket', 4);
  other = await viewer.host.spawn(['/usr/bin/python3', lines, 'send', at, String(ECHO), 'tcp']);
  await other.waitForLine(/^echo 1$/);
  const { host } = world.node('stranger');
  came = Date.now() / 1_000;
  client = await ImpoliteClient.start({ state: host.state, parent: `${mid.host.url()}#${mid.key}`, netns: host.netns });
  for (const [name, peer] of [...endpoints, ['gateway', gw.key], ['viewer', viewer.key]] as const) {
    if (name === 'broker' || name === 'files') continue;
    const { session } = await client.order({ do: 'dial', peer: peer as PublicKey });
    sessions.set(name, session);
  }
}, 120_000);

afterAll(async () => {
  await client?.stop();
  await world?.destroy();
}, 30_000);

/** Source port of what isn't allowed, and of each packet that is. */
const FORGED = 22_000;
let sources = 21_000;

/** One packet that policy lists, behind all that was sent before: it is seen on the LAN, where nothing else of ours was. */
async function witness(): Promise<void> {
  sources += 1;
  await client.order({ do: 'knock', session: session('light1'), protocol: 'tcp', ports: [80], from: sources });
  await waitFor(() => from(lan, sources) > 0, { what: 'the packet that is allowed', intervalMs: 20 });
}

const session = (name: string): number => sessions.get(name) ?? 0;
const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

type Counts = Readonly<Record<string, number>>;

/** What a node dropped and refused, by reason. */
async function counts(node: WorldNode): Promise<Counts> {
  const { drops, refused } = await node.status();
  return { ...drops, ...refused };
}

const risen = (before: Counts, after: Counts, reasons: readonly string[]): Counts =>
  Object.fromEntries(reasons.map((reason) => [reason, (after[reason] ?? 0) - (before[reason] ?? 0)]));

/** What `act` sends is dropped at `node` for exactly these reasons; on the LAN nothing comes of it, and no listener hears it. */
async function expectDrops(node: WorldNode, expected: Counts, act: () => Promise<unknown>): Promise<void> {
  await witness();
  const before = { counts: await counts(node), heard: doors.map((door) => door.stdout.length), lan: foreign(), echoes: echoRequests(lan) };
  await act();
  await witness();
  const got = await waitFor(
    async () => {
      const now = risen(before.counts, await counts(node), Object.keys(expected));
      return Object.entries(expected).every(([reason, count]) => (now[reason] ?? 0) >= count) ? now : undefined;
    },
    { what: `${JSON.stringify(expected)} at ${node.name}` },
  );
  expect(got).toEqual(expected);
  expect(doors.map((door) => door.stdout.length)).toEqual(before.heard);
  expect([foreign(), echoRequests(lan)]).toEqual([before.lan, before.echoes]);
}

/** Packets on the LAN from source ports that the client uses for what isn't allowed. */
const foreign = (): number => [...lan.packets()].filter(({ sourcePort }) => sourcePort === FORGED).length;

/** Sends TCP SYNs (and data behind them) and datagrams to ports, past its own policy. */
async function knockAt(name: string, tcp: readonly number[], udp: readonly number[], source = FORGED): Promise<void> {
  const to = { do: 'knock', session: session(name), from: source } as const;
  await client.order({ ...to, protocol: 'tcp', ports: tcp });
  await client.order({ ...to, protocol: 'udp', ports: udp, payload: 'anybody there?' });
}

/** Labels on data packets that meet this condition. */
function labels(capture: Capture, where: (packet: Packet) => boolean): number[] {
  const found = new Set<number>();
  for (const packet of capture.packets()) {
    if (packet.payload.length >= 36 && where(packet) && packet.payload.readUInt32BE(0) >= 256) found.add(packet.payload.readUInt32BE(0));
  }
  return [...found];
}

describe('past the policy', () => {
  test('ports of its own endpoint that are not listed', async () => {
    await expectDrops(gw, { portNotAllowed: 9 }, () => knockAt('light1', [22, 81, 443, 554, 8080], [53, 80, 554, 5000]));
  }, 30_000);

  test('endpoints where nothing is allowed to it, ICMP included', async () => {
    await expectDrops(gw, { portNotAllowed: 6, echoNotAllowed: 2 }, async () => {
      await knockAt('light2', [80, 8080], [5000]);
      await knockAt('camera', [554, 22], [5000]);
      await client.order({ do: 'echo', session: session('light2') });
      await client.order({ do: 'echo', session: session('camera') });
    });
  }, 30_000);

  test('the gateway itself, and its name server', async () => {
    await expectDrops(gw, { notAFlow: 7, echoNotAllowed: 1 }, async () => {
      await knockAt('gateway', [22, 53, 80, 8080], [53, 5000, 7117]);
      await client.order({ do: 'echo', session: session('gateway') });
    });
  }, 30_000);

  test('another member of its network, who opened nothing', async () => {
    await expectDrops(viewer, { notAFlow: 5, echoNotAllowed: 1 }, async () => {
      await knockAt('viewer', [22, 8080, 6100], [5000, 6100]);
      await client.order({ do: 'echo', session: session('viewer') });
    });
  }, 30_000);

  test('connections that nobody opened, told to go on as if they had outlived a restart', async () => {
    const goOn = async (name: string): Promise<void> => {
      for (const flags of [tcpFlag.ack, tcpFlag.ack | tcpFlag.psh]) {
        const body = tcpBody({ from: FORGED, to: 8080 }, flags, new TextEncoder().encode('go on'), { seq: 7, ack: 7 });
        await client.order({ do: 'inner', session: session(name), bytes: hex(inner(kind.tcp, body)) });
      }
    };
    // Each end has an address of both families for the client, and is one that calls.
    await viewer.thicket(['resolve', client.key]);
    for (const [name, node] of [
      ['gateway', gw],
      ['viewer', viewer],
    ] as const) {
      const before = { dropped: await hostDrops(node), received: await received() };
      await expectDrops(node, { notAFlow: 0 }, () => goOn(name));
      await waitFor(async () => (await hostDrops(node)) === before.dropped + 4, { what: `packets dropped by the firewall of ${name}` });
      expect(await received()).toBe(before.received);
    }
  }, 30_000);

  test('LAN neighbours: the seal holds no addresses, and raw IP in it is nothing', async () => {
    const to = (address: string): string => {
      const [a = 0, b = 0, c = 0, d = 0] = address.split('.').map(Number);
      const syn = tcpBody({ from: FORGED, to: 1883 }, tcpFlag.syn);
      return hex(Buffer.from([0x45, 0, 0, 38, 0, 0, 0, 0, 64, 6, 0, 0, 192, 168, 1, 1, a, b, c, d, ...syn]));
    };
    await expectDrops(gw, { badInner: 9 }, async () => {
      for (const address of ['192.168.1.21', '192.168.1.20', '192.168.1.1']) {
        for (const name of ['light1', 'camera', 'gateway']) await client.order({ do: 'inner', session: session(name), bytes: to(address) });
      }
    });
  }, 30_000);

  test("forged ports of somebody else's connection: as many refusals, and that connection goes on", async () => {
    const port = [...lan.packets()].find(({ destinationPort }) => destinationPort === ECHO)?.sourcePort ?? 0;
    await expectDrops(gw, { portNotAllowed: 8 }, async () => {
      await knockAt('camera', [80], [80], port);
      await knockAt('light2', [80], [80], port);
      for (const flags of [tcpFlag.rst, tcpFlag.ack]) {
        const segment = hex(inner(kind.tcp, tcpBody({ from: port, to: ECHO }, flags)));
        for (const name of ['camera', 'light2']) await client.order({ do: 'inner', session: session(name), bytes: segment });
      }
    });
    const elsewhere = [...lan.packets()].filter((packet) => packet.sourcePort === port && packet.destinationPort !== ECHO);
    expect([port > 0, elsewhere]).toEqual([true, []]);
    await otherGoesOn();
  }, 30_000);

  test('seals that do not hold', async () => {
    await expectDrops(gw, { badTag: 1, noKey: 1 }, async () => {
      for (const what of ['key', 'slot'] as const) await client.order({ do: 'spoil', session: session('light1'), port: 80, what });
    });
    await expectDrops(mid, { badHopTag: 1, replayed: 1 }, async () => {
      for (const what of ['hopTag', 'counter'] as const) await client.order({ do: 'spoil', session: session('light1'), port: 80, what });
    });
  }, 30_000);
});

describe("with what is somebody else's", () => {
  test("labels of others' sessions at its own relay, of both directions, and ones that nobody has", async () => {
    const forth = labels(viewerWan, ({ source }) => source === viewer.host.address);
    const back = labels(
      midWan,
      ({ source, destination }) => source === world.node('root').host.address && destination === mid.host.address,
    );
    const own = (await client.order({ do: 'status' })).sessions.map(({ egress }) => egress);
    const others = [...forth, ...back];
    expect(forth.length).toBeGreaterThan(0);
    expect(back.length).toBeGreaterThan(forth.length);
    expect(others.filter((label) => own.includes(label))).toEqual([]);
    await expectDrops(mid, { badHopTag: others.length, unknownLabel: 50 }, () =>
      client.order({ do: 'labels', labels: others, random: 50 }),
    );
  }, 30_000);

  test("others' packets, captured and sent again", async () => {
    const sent = busiest([...viewerWan.packets()].filter((packet) => packet.source === viewer.host.address && isShortData(packet)));
    const datagrams = sent.map(({ payload }) => hex(payload));
    const to = { host: mid.host.address, port: 7117 };
    await expectDrops(mid, { replayed: sent.length }, () => client.order({ do: 'datagrams', to, datagrams, from: 'same' }));
    await expectDrops(mid, { replayed: sent.length }, () => client.order({ do: 'datagrams', to, datagrams, from: 'other' }));
  }, 30_000);

  test("orders to close, to fail and to trace others' paths", async () => {
    const forth = labels(viewerWan, ({ source }) => source === viewer.host.address);
    const frames = forth.flatMap((label) => [
      encodeFrame({ kind: 'close', label: label as Label }),
      encodeFrame({ kind: 'error', label: label as Label, reason: 'dead' }),
      encodeFrame({ kind: 'error', label: label as Label, reason: 'refused' }),
    ]);
    const probes = forth.map((label) => encodeFrame({ kind: 'probe', label: label as Label, hops: 0, nonce: 7n }));
    await expectDrops(mid, { foreignLabel: 3 * forth.length }, async () => {
      await client.order({ do: 'frames', frames: frames.map(hex), numbered: true });
      await client.order({ do: 'frames', frames: probes.map(hex) });
    });
  }, 30_000);

  test("announces others' keys as its children, as its endpoints and as holders of its names", async () => {
    await expectDrops(mid, { badStatement: 10 }, async () => {
      await client.order({ do: 'impersonate', key: gw.key as PublicKey });
      await client.order({ do: 'impersonate', key: viewer.key as PublicKey });
    });
    await expectPlaces();
  }, 30_000);

  test("withdraws others' keys", async () => {
    // Its sibling is known to its relay; the gateway hangs elsewhere, and nothing is known of it there.
    await expectDrops(mid, { notBelow: 1 }, () => client.order({ do: 'withdraw', keys: [viewer.key as PublicKey, gw.key as PublicKey] }));
    await expectPlaces();
  }, 30_000);

  test('finds no listener at a leaf that it knows the address of, and gets no answer', async () => {
    const own = world.node('stranger').host.address;
    const [at] = [...gatewayWan.packets()].filter(({ source }) => source === gw.host.address);
    const hello = [...midWan.packets()].filter(
      ({ source, payload }) => source === own && payload.length === 1_232 && payload.readUInt32BE(0) === 1,
    );
    expect(hello.length).toBeGreaterThan(0);
    const others = busiest([...gatewayWan.packets()].filter((packet) => packet.destination === gw.host.address && isShortData(packet)));
    const datagrams = [...hello, ...others].map(({ payload }) => hex(payload));
    const to = { host: gw.host.address, port: at?.sourcePort ?? 0 };
    const expected = { notListening: hello.length, replayed: others.length };
    await expectDrops(gw, expected, () => client.order({ do: 'datagrams', to, datagrams, from: 'same' }));
    const packets = [...gatewayWan.packets()];
    expect(packets.filter(({ source }) => source === own)).toHaveLength(datagrams.length);
    expect(packets.filter(({ destination }) => destination === own)).toEqual([]);
  }, 30_000);
});

test("nobody else's session has noticed", async () => {
  await otherGoesOn();
  // All the while, and a little longer: one number every 100 ms.
  await other.waitForLine(/^echo 25$/);
  await other.kill();
  const numbers = other.stdout.flatMap((line) => (line.startsWith('echo ') ? [Number(line.slice(5))] : []));
  expect(numbers).toEqual(numbers.map((_, index) => index + 1));
  const found = (await viewer.status()).sessions.filter(({ name }) => name.startsWith('files'));
  expect(found.map(({ state }) => state)).toEqual(['up']);
  expect(gw.running && mid.running && viewer.running).toBe(true);
}, 30_000);

/** Two numbers that were sent from now on have come back. */
async function otherGoesOn(): Promise<void> {
  const before = other.stdout.length;
  await waitFor(() => other.stdout.length > before + 2, { what: "somebody else's numbers" });
}

/** A data packet that fits into whatever buffer it passes. */
const isShortData = ({ payload }: Packet): boolean => payload.length >= 36 && payload.length < 200 && payload.readUInt32BE(0) >= 256;

/** Of these packets those of the session that talks most and was there before the client came. */
function busiest(packets: readonly Packet[]): Packet[] {
  const byLabel = new Map<number, Packet[]>();
  for (const packet of packets) {
    const label = packet.payload.readUInt32BE(0);
    byLabel.set(label, [...(byLabel.get(label) ?? []), packet]);
  }
  const [most = []] = [...byLabel.values()].filter(([first]) => (first?.at ?? 0) < came).sort((a, b) => b.length - a.length);
  expect(most.length).toBeGreaterThan(20);
  return most;
}

/** IP packets that the client's side let through to it. */
const received = async (): Promise<number> => (await client.order({ do: 'status' })).delivered.length;

/** The root still knows everybody where he is. */
async function expectPlaces(): Promise<void> {
  const routes = await world.node('root').routes();
  const place = (key: string): string | undefined => routes.find((route) => route.key === key)?.via;
  expect([place(gw.key), place(viewer.key), place(client.key)]).toEqual([gw.key, mid.key, mid.key]);
  expect((await mid.routes()).find(({ key }) => key === viewer.key)?.via).toBe(viewer.key);
}

/** Packets that a node's firewall kept from its host. */
async function hostDrops(node: WorldNode): Promise<number> {
  const { stdout } = await node.host.exec(['nft', 'list', 'chain', 'inet', 'thicket', 'input']);
  return Number(/counter packets (\d+) bytes \d+ drop comment "overlay to this host"/.exec(stdout)?.[1] ?? 0);
}
