/** What was captured on its way is worth nothing to whoever sends it again: from its source or another, at once or after a restart of either end. */
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { type Datagram, datagramsOf, type InternetHost, type Packet, repository, sendDatagrams, waitFor } from '../lab/index.js';
import { Player, Pulse, switchLight, World } from '../world/index.js';

const ON_THE_WAY = ['viewer', 'mid', 'root', 'gw'] as const;
const LIGHT = 'http://light1.home.thicket/light';
const LINES = join(repository, 'test', 'fixtures', 'lines.py');
const LINES_PORT = 7;
const TCP = 6;
const PAUSE = 1_500;
/** What was sent last has been answered, or asked after, by then. */
const QUIET = 2_200;
/** Of the links' liveness: what a replay had begun would show by then. */
const AFTERMATH = 500;

let world: World;
/** By the host that sent it. */
let captured: Map<InternetHost, Datagram[]>;
/** A flow of somebody else's over the same relays to the same gateway. */
let bystander: Pulse;

beforeAll(async () => {
  world = await World.create({
    nodes: ['root', 'mid', 'gw', 'viewer', 'viewer2'],
    idle: ['viewer'],
    configure: (name, config) =>
      name === 'gw'
        ? {
            ...config,
            endpoints: [
              ...(config.endpoints ?? []),
              { name: 'lines', services: [{ port: `tcp/${LINES_PORT}`, target: `192.168.1.22:${LINES_PORT}`, allow: ['group:family'] }] },
            ],
          }
        : config,
  });
  const server = await world.lab.host('files').spawn(['python3', LINES, 'serve', '192.168.1.22', String(LINES_PORT), 'tcp']);
  await server.waitForLine(/^ready$/);
  const viewer2 = world.node('viewer2');
  const address = await viewer2.lookup('lines.gw.home.thicket', 4);
  bystander = new Pulse(await viewer2.host.spawn(['python3', '-u', LINES, 'send', address, String(LINES_PORT), 'tcp']));
  captured = await record();
}, 120_000);

afterAll(async () => {
  bystander?.end();
  await world?.destroy();
}, 30_000);

test.each([
  { what: 'at once', restarted: [] },
  { what: 'after a restart of the viewer', restarted: ['viewer'] },
  { what: 'after a restart of the gateway', restarted: ['gw'] },
  { what: 'after a restart of the relays', restarted: ['mid', 'root'] },
] as const)(
  '$what, all that was captured delivers nothing, changes no route and displaces no link or session',
  async ({ restarted }) => {
    for (const name of restarted) await world.node(name).killHard();
    for (const name of [...restarted].reverse()) await world.node(name).start();
    await waitFor(() => switchLight(world.node('viewer').host, LIGHT, true), { timeoutMs: 20_000, what: 'the light' });
    await world.settled();
    await bystanderGoesOn();
    await quiet();
    const inside = await Promise.all((['viewer', 'gw'] as const).map((name) => world.lab.capture(name, 'thicket0')));
    const before = await picture();
    bystander.forget();
    for (const host of ON_THE_WAY) await sendDatagrams(world.lab.host(host), captured.get(host) ?? []);
    for (const host of ON_THE_WAY) await sendDatagrams(world.lab.host('stranger'), fromStranger(captured.get(host) ?? []));
    await delay(AFTERMATH);
    expect(bystander.longestPause()).toBeLessThan(PAUSE);
    const after = await picture();
    expect(after.routes).toEqual(before.routes);
    expect(after.nodes).toEqual(before.nodes);
    for (const [session, age] of before.ages) expect(after.ages.get(session)).toBeGreaterThanOrEqual(age);
    expect(after.switched).toEqual(before.switched);
    expect(after.dropped - before.dropped).toBeGreaterThanOrEqual(2 * droppable());
    for (const capture of inside) {
      await capture.stop();
      // All that came out of the overlay was the bystander's.
      expect([...capture.packets()].filter(isForeign).map((p) => `${p.source} ${p.destination} ${p.protocol}`)).toEqual([]);
    }
    // The session that all this was taken from works as before.
    expect(await switchLight(world.node('viewer').host, LIGHT, false)).toBe(false);
  },
  60_000,
);

/** Everything that a viewer's start, a look-up, a light switched and a few seconds of video put on the wire. */
async function record(): Promise<Map<InternetHost, Datagram[]>> {
  const viewer = world.node('viewer');
  // A train of datagrams counts as many from here on: no host hands the kernel's super-packets to its interface.
  for (const name of ON_THE_WAY) await world.lab.host(name).exec(['ip', 'link', 'set', 'wan0', 'gso_max_segs', '1']);
  const captures = await Promise.all(ON_THE_WAY.map((name) => world.lab.capture(name, 'wan0', 'udp')));
  await viewer.start();
  expect(await switchLight(viewer.host, LIGHT, true)).toBe(true);
  const player = await Player.start(viewer.host, await viewer.lookup('camera.home.thicket', 4));
  await player.stop();
  const sent = new Map<InternetHost, Datagram[]>();
  for (const [index, name] of ON_THE_WAY.entries()) {
    await captures[index]?.stop();
    const datagrams = datagramsOf(captures[index]?.packets() ?? []);
    sent.set(
      name,
      datagrams.filter(({ source }) => source === world.lab.host(name).address),
    );
  }
  const all = [...sent.values()].flat().map(({ payload }) => payload);
  expect(all.length).toBeGreaterThan(500);
  expect(Math.max(...all.map(({ length }) => length))).toBeLessThanOrEqual(1_472);
  // Handshakes, link frames and sealed packets.
  expect([...new Set(all.map((payload) => Math.min(Buffer.from(payload).readUInt32BE(0), 256)))].sort((a, b) => a - b)).toEqual([
    1, 2, 4, 256,
  ]);
  return sent;
}

/** The same, as if the stranger had sent it. */
function fromStranger(datagrams: readonly Datagram[]): Datagram[] {
  return datagrams.map((datagram) => ({ ...datagram, source: world.lab.host('stranger').address, sourcePort: 40_000 }));
}

/** Those that a relay gets (a leaf's port is another after a restart), without first handshake messages: these are answered, and nothing comes of it. */
function droppable(): number {
  const relayed = [...captured.values()].flat().filter(({ destinationPort }) => destinationPort === 7117);
  return relayed.filter(({ payload }) => payload[0] !== 0 || payload[3] !== 1).length;
}

function isForeign({ protocol, sourcePort, destinationPort }: Packet): boolean {
  return protocol !== TCP || (sourcePort !== LINES_PORT && destinationPort !== LINES_PORT);
}

async function bystanderGoesOn(): Promise<void> {
  const lines = bystander.process.stdout.length;
  await waitFor(() => bystander.process.stdout.length > lines + 5, { what: "somebody else's flow" });
}

/** Resolves when nothing comes to the viewer's sessions any more: the last answers and the ends of connections are through. */
async function quiet(): Promise<void> {
  let [last, since] = ['', performance.now()];
  await waitFor(
    async () => {
      const { nodes } = await picture();
      const now = JSON.stringify(nodes);
      if (now !== last) [last, since] = [now, performance.now()];
      return performance.now() - since > QUIET;
    },
    { intervalMs: 250, timeoutMs: 20_000, what: 'silence' },
  );
}

interface Picture {
  readonly routes: unknown;
  /** Links, and how often they came and went; sessions, and what those of the viewer have received. */
  readonly nodes: unknown;
  readonly ages: ReadonlyMap<string, number>;
  readonly switched: readonly string[];
  readonly dropped: number;
}

async function picture(): Promise<Picture> {
  const ages = new Map<string, number>();
  const nodes: unknown[] = [];
  let dropped = 0;
  for (const node of world.nodes()) {
    const { links, sessions, drops, refused } = await node.status();
    for (const count of [...Object.values(drops), ...Object.values(refused)]) dropped += count;
    for (const { own, key, ageSeconds } of sessions) ages.set(`${node.name} ${own} ${key}`, ageSeconds);
    nodes.push({
      node: node.name,
      links: links.map(({ key, role, state }) => `${key} ${role} ${state}`).sort(),
      logged: node.log.split('\n').filter((line) => /link (up|down)/.test(line)).length,
      sessions: sessions
        .map(({ own, key, name, state, rxBytes }) => `${own} ${key} ${state} ${/viewer2|lines/.test(name) ? 'in use' : rxBytes}`)
        .sort(),
    });
  }
  const routes = await Promise.all(
    (['root', 'mid'] as const).map(async (name) => (await world.node(name).routes()).map((r) => JSON.stringify(r)).sort()),
  );
  const switched = world.devices.light1.process.stdout.filter((line) => line.startsWith('light '));
  return { routes, nodes, ages, switched, dropped };
}
