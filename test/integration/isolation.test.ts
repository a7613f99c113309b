/** What one neighbour or a stranger does to a relay, the others hardly notice; and what queues there are, they are short and fair. */
import { join } from 'node:path';
import { keyBytes, type PublicKey } from '../../ts/trust/index.js';
import { type Host, type Process, repository, waitFor } from '../lab/index.js';
import { World, type WorldNode } from '../world/index.js';

const fixture = (name: string): string => join(repository, 'test', 'fixtures', name);
const NUMBERED = 9_001;
const ECHO = 9_002;
const ECN = 9_003;
/** Second addresses of hosts on the Internet. */
const MOVED = { viewer: '198.51.100.77', mid: '198.51.100.78' } as const;

let world: World;
let mid: WorldNode;
let viewer: WorldNode;
let other: WorldNode;
let at: string;

beforeAll(async () => {
  const services = [NUMBERED, ECHO, ECN].map((port) => ({ port: `udp/${port}`, target: `192.168.1.22:${port}`, allow: ['group:family'] }));
  world = await World.create({
    nodes: ['root', 'mid', 'gw', 'viewer', 'viewer2', 'stranger'],
    idle: ['viewer2'],
    devices: false,
    siteDns: false,
    plan: (name, plan) => {
      if (name === 'stranger') return { ...plan, network: 'home' };
      return name === 'gw' ? { ...plan, grants: ['files'], endpoints: [{ name: 'files', services }] } : plan;
    },
  });
  mid = world.node('mid');
  viewer = world.node('viewer');
  other = world.node('stranger');
  const files = world.lab.host('files');
  for (const argv of [
    ['numbered.py', 'serve', files.address, String(NUMBERED)],
    ['lines.py', 'serve', files.address, String(ECHO), 'udp'],
    ['ecn.py', 'serve', files.address, String(ECN)],
  ]) {
    await (await python(files, argv)).waitForLine(/^ready$/);
  }
  at = await viewer.lookup('files.home.thicket', 4);
  await other.lookup('files.home.thicket', 4);
}, 120_000);

afterAll(async () => {
  await world?.destroy();
}, 30_000);

const python = (host: Host, [name = '', ...args]: readonly string[]): Promise<Process> =>
  host.spawn(['/usr/bin/python3', fixture(name), ...args]);

/** Sends numbered datagrams to the device; how many were sent, and how many of these didn't come (300 stands for all above). */
async function numbered(node: WorldNode, flow: number, mbit: number, seconds: number): Promise<{ sent: number; missing: number }> {
  const to = await node.lookup('files.home.thicket', 4);
  const process = await python(node.host, ['numbered.py', 'send', to, String(NUMBERED), String(flow), String(mbit), String(seconds)]);
  const [, sent] = await process.waitForLine(/^sent (\d+) /, 30_000);
  const [, missing = ''] = await process.waitForLine(/^missing ?(.*)$/, 30_000);
  return { sent: Number(sent), missing: missing.split(' ').filter((one) => one !== '').length };
}

/** Gives a host another address, which its packets leave from now on. */
async function move(host: 'viewer' | 'mid'): Promise<void> {
  const machine = world.lab.host(host);
  await world.lab.host('inet').exec(['ip', 'route', 'add', `${MOVED[host]}/32`, 'via', machine.ip4]);
  await machine.exec(['ip', 'addr', 'add', `${MOVED[host]}/32`, 'dev', 'wan0']);
  const { stdout } = await machine.exec(['ip', 'route', 'show', 'default']);
  await machine.exec(['ip', 'route', 'replace', ...stdout.trim().split(/\s+/), 'src', MOVED[host]]);
}

test('marks of congestion arrive as the sender set them, both ways', async () => {
  const sender = await python(viewer.host, ['ecn.py', 'send', at, String(ECN)]);
  expect(await sender.exit).toMatchObject({ code: 0 });
  // What comes back was echoed with the mark that the device's own host saw it ask for.
  expect(sender.stdout).toEqual(['0 0', '1 1', '2 2', '3 3']);
}, 30_000);

test('in a flood of handshakes from nowhere a flow goes on, and a new child joins', async () => {
  const key = Buffer.from(keyBytes(mid.key as PublicKey)).toString('hex');
  const flood = await python(world.lab.host('root'), ['flood.py', mid.host.ip4, '7117', key, '20000', '8']);
  await flood.waitForLine(/^flooding/);
  await waitFor(async () => ((await mid.status()).drops['cookieWanted'] ?? 0) > 1_000, { what: 'the gate is closed to whom nobody knows' });
  const [flow] = await Promise.all([numbered(viewer, 1, 4, 3), world.node('viewer2').start()]);
  expect(flood.running).toBe(true);
  expect(flow.missing).toBeLessThan(flow.sent / 5);
  await flood.exit;
}, 60_000);

test('where a line is slower than what comes, whoever sends most loses', async () => {
  await mid.host.exec(['tc', 'qdisc', 'add', 'dev', 'wan0', 'root', 'tbf', 'rate', '20mbit', 'burst', '32k', 'limit', '16m']);
  const before = (await mid.status()).drops['queueFull'] ?? 0;
  // The line is full when the modest one begins.
  const greedy = numbered(other, 2, 60, 6);
  await waitFor(async () => ((await mid.status()).drops['queueFull'] ?? 0) > before, { what: 'the queue is full' });
  const modest = await numbered(viewer, 3, 4, 2);
  expect(modest.missing).toBeLessThan(modest.sent / 10);
  expect((await greedy).missing).toBe(300);
  await mid.host.exec(['tc', 'qdisc', 'del', 'dev', 'wan0', 'root']);
}, 60_000);

test('a child that moves keeps its flow, and its relay too when that moves', async () => {
  const sender = await python(viewer.host, ['lines.py', 'send', at, String(ECHO), 'udp']);
  await sender.waitForLine(/^echo 1$/);
  const atMid = await world.lab.capture('mid', 'wan0', 'udp');
  const came = (address: string, key: 'source' | 'destination'): number =>
    [...atMid.packets()].filter((packet) => packet[key] === address).length;
  await move('viewer');
  await waitFor(() => came(MOVED.viewer, 'destination') > 5, { what: 'mid sends to the new address' });
  await viewer.host.exec(['ip', 'addr', 'del', `${viewer.host.ip4}/30`, 'dev', 'wan0']);
  await move('mid');
  await waitFor(() => came(MOVED.mid, 'source') > 5, { what: 'mid sends from its new address' });
  const echoes = sender.stdout.length;
  await waitFor(() => sender.stdout.length > echoes + 10, { what: 'echoes after both moved' });
}, 60_000);
