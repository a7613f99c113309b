/**
 * Nobody on the way learns what is said, and nobody but a leaf's parent learns where the leaf is. Captures run on every link, a relay in the
 * middle of the tree remembers all that it is told, and every node shows all that it can show:
 *
 *     gw ─ root ─ observer ─ mid ─ viewer, viewer2, gw2
 */
import { randomBytes } from 'node:crypto';
import { statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import ipaddr from 'ipaddr.js';
import { ControlClient } from '../../ts/control/client.js';
import type { ServiceDocument } from '../../ts/control/documents.js';
import { controlKind } from '../../ts/node/session-control.js';
import { decodeFrame } from '../../ts/routing/frames.js';
import { keyBytes, type PublicKey } from '../../ts/trust/index.js';
import { type Heard, ImpoliteClient } from '../impolite/index.js';
import { type Capture, type Packet, startBroker, startCamera, startFiles, startLight, waitFor } from '../lab/index.js';
import { decode, type NodeName, startWatching, type Video, World, type WorldNode, watched } from '../world/index.js';

/** Leaves, and who alone may know where they are. */
const PARENTS = { gw: 'root', viewer: 'mid', viewer2: 'mid', gw2: 'mid' } as const;
type Leaf = keyof typeof PARENTS;
const LEAVES = Object.keys(PARENTS) as Leaf[];
/** Runs on the stranger's host, as a relay of the home network. */
const OBSERVER = 'stranger';
const SECONDS = 3;

/** 16 bytes that occur nowhere else, of letters and digits that every name may hold. */
const marker = (): string => `m${randomBytes(8).toString('hex')}`.slice(0, 16);

describe.each([
  ['IPv4', false],
  ['IPv6', true],
] as const)('over %s', (_, ipv6) => {
  const markers = { url: marker(), message: marker(), content: marker(), file: marker(), host: marker() };
  const canary = marker();
  let world: World;
  let observer: ImpoliteClient;
  let wan: Capture[];
  let lan: Capture[];
  let tuns: Capture[];
  /** The viewer's loopback, where it asks its own name server. */
  let loopback: Capture;
  let videos: Video[];
  let heard: readonly Heard[];
  /** All that each node printed, answered and logged. */
  const shown = new Map<NodeName, string>();

  beforeAll(async () => {
    world = await createWorld(ipv6, markers.host);
    const { lab } = world;
    wan = await lab.captureInternet();
    lan = [await lab.capture('gw', 'lan0'), await lab.capture('gw2', 'lan0')];
    loopback = await lab.capture('viewer', 'lo');
    const [files] = await Promise.all([
      startFiles(lab),
      startCamera(lab, [`/${markers.url}`]),
      startBroker(lab),
      startLight(lab, 'light1'),
      startLight(lab, 'lamp'),
    ]);
    writeFileSync(join(files.dir, `${markers.file}.txt`), `${markers.content}\n`);
    observer = await startTree(world, ipv6);
    tuns = await Promise.all(LEAVES.map((name) => lab.capture(name, 'thicket0')));
    videos = await useAll(world, markers);
    await talkToObserver(world, observer);
    await disturb(world, markers.host);
    await Promise.all(
      [...world.nodes()].filter(({ running }) => running).map(async (node) => shown.set(node.name, await show(world, node))),
    );
    heard = await observer.order({ do: 'heard' });
    await sayInClear(world, canary);
    await waitFor(() => wan.some((capture) => capture.host === 'root' && capture.contains(canary)), { what: 'the canary' });
    for (const node of world.nodes()) shown.set(node.name, `${shown.get(node.name) ?? ''}\n${node.log}`);
    for (const capture of [...wan, ...lan, ...tuns, loopback]) await capture.stop();
  }, 150_000);

  afterAll(async () => {
    await observer?.stop();
    await world?.destroy();
  }, 30_000);

  const at = (host: NodeName): Needle => new Needle(world.node(host).host.address);
  const hostsOf = (captures: readonly Capture[]): string[] => [...new Set(captures.map(({ host }) => host))];

  test('what is said is seen on the LAN, and on no link of the Internet', () => {
    for (const [what, text] of Object.entries(markers)) {
      expect([what, hostsOf(lan.filter((capture) => capture.contains(text)))]).toEqual([what, ['gw']]);
      expect([what, hostsOf(wan.filter((capture) => capture.contains(text)))]).toEqual([what, []]);
    }
    // The question for the host name stays inside the viewer.
    expect(loopback.contains(markers.host)).toBe(true);
    // The same search finds what was said in clear between two hosts.
    expect(hostsOf(wan.filter((capture) => capture.contains(canary)))).toEqual(['root', 'mid']);
  }, 30_000);

  test('the video came through all this, over TCP and over UDP', async () => {
    expect(videos).toHaveLength(2);
    for (const { file } of videos) expect((await decode(world.node('viewer').host, file)).frames).toBeGreaterThan((SECONDS - 1) * 25);
  }, 30_000);

  test("a leaf's address stands in no packet header but on its link to its parent", () => {
    for (const leaf of LEAVES) {
      const packets = wan.flatMap((capture) => [...capture.packets()].filter((p) => at(leaf).isEndOf(p)).map((p) => ({ capture, p })));
      const own = packets.filter(({ capture, p }) => isOwnLink(world, leaf, capture, p));
      expect([leaf, hostsOf(own.map(({ capture }) => capture)).sort()]).toEqual([leaf, [leaf, PARENTS[leaf]].sort()]);
      expect(own.length).toBeGreaterThan(100);
      const strays = packets.filter((packet) => !own.includes(packet));
      expect(
        strays.map(({ capture, p }) => `${leaf}'s, at ${capture.host}: ${p.source} to ${p.destination}, protocol ${p.protocol}`),
      ).toEqual([]);
      for (const capture of [...lan, ...tuns]) expect([...capture.packets()].filter((p) => at(leaf).isEndOf(p))).toEqual([]);
    }
  }, 60_000);

  test("a leaf's address stands in nothing that packets carry, raw or as text", () => {
    for (const capture of [...wan, ...lan, ...tuns]) {
      for (const p of capture.packets()) {
        for (const leaf of LEAVES) {
          const own = at(leaf).isEndOf(p) && isOwnLink(world, leaf, capture, p);
          if (own && (isNeighbourDiscovery(p) || isIcmpError(p))) continue;
          const bytes = own ? p.payload : p.bytes;
          // Four bytes occur by chance in as much video as this; sixteen don't.
          if (ipv6 ? at(leaf).isIn(bytes) : at(leaf).isWrittenIn(bytes)) {
            throw new Error(`${leaf}'s address at ${capture.host}, from ${p.source} to ${p.destination}: ${p.bytes.toString('hex')}`);
          }
        }
      }
    }
  }, 60_000);

  test('no node but itself and its parent prints, answers or logs where a leaf is', () => {
    for (const [name, text] of shown) {
      if (name === OBSERVER) continue;
      expect([name, text.length > 3_000]).toEqual([name, true]);
      for (const leaf of LEAVES) {
        if (name === leaf || name === PARENTS[leaf]) continue;
        expect(linesWith(text, at(leaf))).toEqual([]);
      }
      // Nor what only a gateway knows: its devices.
      if (name !== 'gw') expect(text.split('\n').filter((line) => line.includes('192.168.1.'))).toEqual([]);
      if (name !== 'gw2') expect(text.split('\n').filter((line) => line.includes('192.168.2.'))).toEqual([]);
    }
    expect([...shown.values()].filter((text) => text.includes('"level":20')).length).toBeGreaterThan(1);
    // The same search finds what a node may show.
    expect(shown.get('gw')).toContain('192.168.1.20');
    expect(shown.get('viewer')).toContain('198.18.');
  });

  test('no control frame between others tells where a leaf is', () => {
    const frames = heard.filter((h) => h.in === 'link').map((h) => inside(Buffer.from(h.bytes, 'hex')));
    const kinds = new Set(frames.map((frame) => decodeFrame(frame)?.kind));
    for (const kind of ['setup', 'answer', 'close', 'announce', 'withdraw', 'lookup', 'found', 'probe', 'probed', 'edgeHalf'] as const) {
      expect([...kinds]).toContain(kind);
    }
    const controls = new Set(heard.filter((h) => h.in === 'session').map((h) => Number.parseInt(h.bytes.slice(0, 2), 16)));
    for (const kind of [controlKind.hello, controlKind.ping, controlKind.close]) expect([...controls]).toContain(kind);
    // All keys are told up the tree, so the same search finds them.
    const key = Buffer.from(keyBytes(world.node('viewer').key as PublicKey));
    expect(heard.some(({ bytes }) => Buffer.from(bytes, 'hex').includes(key))).toBe(true);
    for (const leaf of LEAVES) {
      const telling = heard.filter(({ bytes }) => at(leaf).isIn(Buffer.from(bytes, 'hex')));
      expect([leaf, telling]).toEqual([leaf, []]);
    }
  });
});

/** An IP address to look for. */
class Needle {
  readonly #text: string;
  readonly #bytes: Buffer;
  /** As it may be written: as usual, with all its groups, without colons. */
  readonly #written: readonly string[];

  constructor(address: string) {
    const parsed = ipaddr.parse(address);
    this.#text = parsed.toString();
    this.#bytes = Buffer.from(parsed.toByteArray());
    const six = parsed.kind() === 'ipv6' ? [parsed.toNormalizedString(), this.#bytes.toString('hex')] : [];
    this.#written = [...new Set([address, this.#text, ...six])];
  }

  isEndOf(packet: Packet): boolean {
    return packet.source === this.#text || packet.destination === this.#text;
  }

  isWrittenIn(bytes: Buffer | string): boolean {
    return this.#written.some((text) => bytes.includes(text));
  }

  /** As text or as 4 or 16 bytes. */
  isIn(bytes: Buffer): boolean {
    return bytes.includes(this.#bytes) || this.isWrittenIn(bytes);
  }
}

const linesWith = (text: string, needle: Needle): string[] => text.split('\n').filter((line) => needle.isWrittenIn(line));

/** A numbered frame's body, any other as it is. */
function inside(bytes: Buffer): Uint8Array {
  const frame = decodeFrame(bytes);
  return frame?.kind === 'numbered' ? frame.body : bytes;
}

/** On a leaf's uplink or its parent's: between the two; and what a leaf's kernel says to its router. */
function isOwnLink(world: World, leaf: Leaf, capture: Capture, packet: Packet): boolean {
  const parent = new Needle(world.node(PARENTS[leaf]).host.address);
  if (capture.host === leaf && isNeighbourDiscovery(packet)) return true;
  return (capture.host === leaf || capture.host === PARENTS[leaf]) && parent.isEndOf(packet);
}

const isNeighbourDiscovery = ({ protocol, payload }: Packet): boolean => protocol === 58 && (payload[0] === 135 || payload[0] === 136);

/** Holds the header of a packet that its sender could not deliver: what a dead program's parent is told by the kernel. */
const isIcmpError = ({ protocol, payload }: Packet): boolean => protocol === 58 && (payload[0] ?? 255) < 128;

async function createWorld(ipv6: boolean, hostName: string): Promise<World> {
  return World.create({
    ipv6,
    devices: false,
    idle: ['mid', 'viewer', 'viewer2', 'gw2', OBSERVER],
    configure: (_, config) => ({ ...config, log: { level: 'debug' } }),
    plan: (name, plan) => {
      if (name === OBSERVER) return { ...plan, network: 'home', rights: ['relay'], groups: [] };
      if (name !== 'gw') return plan;
      const named = { name: hostName, services: [{ port: 'tcp/80', target: '192.168.1.31:80', allow: ['group:family'] }] };
      return { ...plan, grants: [...plan.grants, hostName], endpoints: [...plan.endpoints, named] };
    },
  });
}

/** The observer under the root, mid under the observer, all others under mid. */
async function startTree(world: World, ipv6: boolean): Promise<ImpoliteClient> {
  const { host } = world.node(OBSERVER);
  const root = world.node('root');
  const parent = `${root.host.url()}#${root.key}`;
  const listen = ipv6 ? 'udp://[::]:7117' : 'udp://0.0.0.0:7117';
  const observer = await ImpoliteClient.start({ state: host.state, parent, netns: host.netns, listen });
  const mid = world.node('mid');
  mid.setConfig({ ...mid.config, parents: [`${host.url()}#${observer.key}`] });
  await mid.start();
  await Promise.all((['viewer', 'viewer2', 'gw2'] as const).map((name) => world.node(name).start()));
  await world.settled();
  return observer;
}

/** Video, messages, files and lights, each with a marker in it. */
async function useAll(world: World, markers: Readonly<Record<'url' | 'message' | 'content' | 'file' | 'host', string>>): Promise<Video[]> {
  const viewer = world.node('viewer').host;
  const viewer2 = world.node('viewer2').host;
  const url = `rtsp://camera.home.thicket:554/${markers.url}`;
  const overTcp = await startWatching(viewer, { url, transport: 'tcp', seconds: SECONDS });
  // The camera refuses whoever wants to play while it is still starting.
  await waitFor(() => statSync(overTcp.file).size > 0, { what: 'a picture', timeoutMs: 20_000 });
  const overUdp = await startWatching(viewer, { url, transport: 'udp', seconds: SECONDS });
  const videos = await Promise.all([overTcp, overUdp].map(watched));
  const curl = ['curl', '-sSf', '--max-time', '10'];
  expect((await viewer.exec([...curl, `http://files.home.thicket/${markers.file}.txt`])).stdout).toBe(markers.content);
  for (const name of [markers.host, 'lamp']) await viewer.exec([...curl, `http://${name}.home.thicket/light`]);
  await viewer2.exec([...curl, 'http://lamp.home.thicket/light']);
  const broker = ['-h', 'broker.home.thicket', '-t', 'privacy', '-q', '1'];
  const subscriber = await viewer.spawn(['stdbuf', '-oL', 'mosquitto_sub', ...broker, '-d']);
  await subscriber.waitForLine(/^Subscribed/);
  await viewer2.exec(['mosquitto_pub', ...broker, '-m', markers.message]);
  await subscriber.waitForLine(new RegExp(`^${markers.message}$`));
  await subscriber.kill();
  return videos;
}

/** It calls others, and others call it: what they tell each other in their sessions it reads. */
async function talkToObserver(world: World, observer: ImpoliteClient): Promise<void> {
  const [service] = await world.node('gw').json<readonly ServiceDocument[]>(['services']);
  const keys = [service?.key ?? '', world.node('gw').key, world.node('viewer').key];
  for (const peer of keys) await observer.order({ do: 'dial', peer: peer as PublicKey });
  await Promise.all((['gw', 'viewer', 'gw2'] as const).map((name) => world.node(name).thicket(['ping', observer.key, '-c', '1'])));
}

/** New handshakes, lost links, dead paths, an endpoint that comes and goes, and a call that fails. */
async function disturb(world: World, hostName: string): Promise<void> {
  const viewer = world.node('viewer');
  await Promise.all([world.node('gw').restart(), viewer.killHard().then(() => viewer.start())]);
  await world.settled();
  await viewer.host.exec(['curl', '-sSf', '--max-time', '10', `http://${hostName}.home.thicket/light`]);
  const closed = await viewer.host.exec(['curl', '-sS', '--max-time', '5', `http://${hostName}.home.thicket:81/`], { check: false });
  expect(closed.code).not.toBe(0);
  const gw2 = world.node('gw2');
  await gw2.thicket(['expose', 'spare', '192.168.2.31:80']);
  const spare = (await gw2.json<readonly ServiceDocument[]>(['services'])).find(({ name }) => name.startsWith('spare'))?.key;
  const isKnown = async (): Promise<boolean> => (await world.node('root').routes()).some(({ key }) => key === spare);
  await waitFor(isKnown, { what: 'the new endpoint at the root' });
  await gw2.thicket(['unexpose', 'spare']);
  await waitFor(async () => !(await isKnown()), { what: 'the end of the new endpoint at the root' });
}

/** All that a node tells whoever asks it. */
async function show(world: World, node: WorldNode): Promise<string> {
  const texts: string[] = [];
  const client = new ControlClient(join(node.host.state, 'control.sock'));
  try {
    for (const path of ['status', 'tree', 'routes', 'sessions', 'services', 'trust']) {
      texts.push(JSON.stringify(await client.call<object>('GET', `/v1/${path}`)));
    }
    for (const name of ['camera.home.thicket', world.node('gw').key, world.node('viewer').key]) {
      for (const question of ['ping', 'trace', 'resolve']) {
        texts.push(await client.call<object>('POST', `/v1/${question}`, { name }).then(JSON.stringify, String));
      }
    }
  } finally {
    await client.close();
  }
  for (const command of ['status', 'tree', 'routes', 'sessions', 'services']) texts.push((await node.thicket([command])).stdout);
  if (node.plan.listens) return texts.join('\n');
  const dig = (...question: string[]): Promise<unknown> =>
    node.host.exec(['dig', '+time=2', '+tries=1', ...question], { check: false }).then(({ stdout }) => texts.push(stdout));
  for (const type of ['A', 'AAAA', 'TXT', 'SRV', 'ANY']) await dig('camera.home.thicket', type);
  await dig('_rtsp._tcp.camera.home.thicket', 'SRV');
  await dig('-x', '198.18.0.1');
  return texts.join('\n');
}

/** Between two relays. */
async function sayInClear(world: World, text: string): Promise<void> {
  const say = [
    'import socket, sys',
    'family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET',
    'socket.socket(family, socket.SOCK_DGRAM).sendto(sys.argv[2].encode(), (sys.argv[1], 9))',
  ];
  await world.node('mid').host.exec(['/usr/bin/python3', '-c', say.join('\n'), world.node('root').host.address, text]);
}
