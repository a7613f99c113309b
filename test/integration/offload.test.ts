/** Offloads, each switched off in its turn as an older kernel would: streams and datagrams arrive whole, and status and log say what is on. */
import { join } from 'node:path';
import { repository, run } from '../lab/index.js';
import { type NodeConfig, type NodeName, World } from '../world/index.js';

const TARGET4 = '192.168.1.22';
const TARGET6 = 'fd00:1::22';
const PORTS = { 4: 7004, 6: 7006 } as const;
const FIXTURE = join(repository, 'test', 'fixtures', 'bounds.py');
const NODES = ['root', 'gw', 'viewer'] as const;

/** What an end lacks, as test/shims/old-kernel.c names it, or `off`: told not to use it. And what its TUN then offloads. */
interface End {
  readonly lacks: string;
  readonly offload: string;
}

const NEW: End = { lacks: '', offload: 'csum,tso,uso' };
const NO_USO: End = { lacks: 'no-uso', offload: 'csum,tso' };
const NO_TSO: End = { lacks: 'no-uso,no-tso', offload: 'csum' };
const NO_VNET: End = { lacks: 'no-vnet', offload: 'off' };
const NO_CALL: End = { lacks: 'no-offload', offload: 'off' };
const OFF: End = { lacks: 'off', offload: 'off' };

/** Two TUNs, and what the sockets of relay and gateway lack: to the relay come trains that it can't send on. Streams and datagrams go both ways, so that each end sends and receives. */
const STEPS: readonly (readonly [string, { readonly viewer: End; readonly gw: End; readonly sockets: string }])[] = [
  ['a kernel that has all', { viewer: NEW, gw: NEW, sockets: '' }],
  ['no USO at one end, no TSO at the other, no UDP_GRO', { viewer: NO_USO, gw: NO_TSO, sockets: 'no-udp-gro' }],
  ['no TSO at one end, no USO at the other, no UDP_SEGMENT', { viewer: NO_TSO, gw: NO_USO, sockets: 'no-udp-segment' }],
  ['no virtio header at one end, all at the other, no checksums in devices', { viewer: NO_VNET, gw: NEW, sockets: 'no-checksum' }],
  ['all at one end, no TUNSETOFFLOAD at the other', { viewer: NEW, gw: NO_CALL, sockets: '' }],
  ['offload: off at both, and sockets that can do nothing', { viewer: OFF, gw: OFF, sockets: 'no-udp-segment,no-udp-gro' }],
];

interface Seen {
  readonly tcp: string;
  readonly expected: string;
  readonly udp: readonly string[];
}

let world: World;
let shim: string;
let configs: ReadonlyMap<NodeName, NodeConfig>;

beforeAll(async () => {
  world = await World.create({
    nodes: NODES,
    idle: NODES,
    devices: false,
    siteDns: false,
    configure: (name, config) => ({
      ...config,
      log: { level: 'debug' },
      ...(name === 'gw' ? { endpoints: [{ name: 'files', services: [...services(4), ...services(6)] }] } : {}),
    }),
  });
  configs = new Map(world.nodes().map((node) => [node.name, node.config]));
  shim = join(world.lab.dir, 'old-kernel.so');
  await run(['gcc', '-Wall', '-Werror', '-shared', '-fPIC', '-o', shim, join(repository, 'test', 'shims', 'old-kernel.c')]);
  const [files, gw] = [world.lab.host('files'), world.lab.host('gw')];
  await files.exec(['sysctl', '-qw', 'net.ipv6.conf.eth0.disable_ipv6=0']);
  await files.exec(['ip', '-6', 'addr', 'add', `${TARGET6}/64`, 'dev', 'eth0', 'nodad']);
  await gw.exec(['ip', '-6', 'addr', 'add', 'fd00:1::1/64', 'dev', 'lan0', 'nodad']);
  // What leaves for the LAN is cut and summed there, by the kernel: it finds each mistake in what the node began.
  await gw.exec(['python3', FIXTURE, 'wire', 'lan0']);
  for (const [family, target] of [
    [4, TARGET4],
    [6, TARGET6],
  ] as const) {
    const server = await files.spawn(['python3', FIXTURE, 'serve', target, String(PORTS[family])]);
    await server.waitForLine(/^ready$/);
  }
}, 60_000);

afterAll(async () => {
  await world?.destroy();
}, 30_000);

test.each(STEPS)('%s: all arrives as it was sent', async (_, { viewer, gw, sockets }) => {
  await restart('root', { lacks: '', offload: '' }, sockets);
  await Promise.all([restart('gw', gw, sockets), restart('viewer', viewer, '')]);
  await world.settled();
  for (const [name, end] of [
    ['viewer', viewer],
    ['gw', gw],
  ] as const) {
    expect((await world.node(name).status()).interface?.offload).toBe(end.offload);
  }
  const lan = await world.lab.capture('files', 'eth0', 'src host 192.168.1.1 or src host fd00:1::1');
  for (const family of [4, 6] as const) {
    const address = await world.node('viewer').lookup('files.home.thicket', family);
    const { stdout } = await world.lab
      .host('viewer')
      .exec(['python3', FIXTURE, 'call', address, String(PORTS[family])], { timeoutMs: 60_000 });
    const { here, there } = JSON.parse(stdout) as { here: Seen; there: Seen };
    for (const seen of [here, there]) expect(seen).toEqual({ tcp: seen.expected, expected: seen.expected, udp: [] });
  }
  if (sockets.includes('no-checksum'))
    for (const name of ['root', 'gw'] as const) expect(world.node(name).log).toContain('old kernel: no-checksum');
  await lan.stop();
  const sums = await checksums(lan.file);
  expect(sums.bad).toEqual([]);
  expect(sums.good).toBeGreaterThan(5_000);
});

/** A service of either protocol that leads to a target of this family. */
function services(family: 4 | 6): NonNullable<NonNullable<NodeConfig['endpoints']>[number]['services']> {
  const target = family === 4 ? TARGET4 : `[${TARGET6}]`;
  return (['tcp', 'udp'] as const).map((protocol) => ({
    port: `${protocol}/${PORTS[family]}`,
    target: `${target}:${PORTS[family]}`,
    allow: ['group:family'],
  }));
}

/** Starts a node anew on such a kernel, and sees that the kernel was such a one, and that the node says so. */
async function restart(name: NodeName, { lacks }: End, sockets: string): Promise<void> {
  const node = world.node(name);
  const config = configs.get(name) ?? {};
  if (node.running) await node.stop();
  node.setConfig(lacks === 'off' ? { ...config, interface: { ...config.interface, offload: 'off' } } : config);
  const kinds = [...(lacks === 'off' ? [] : lacks.split(',')), ...sockets.split(',')].filter((kind) => kind !== '');
  await node.start({ env: { LD_PRELOAD: shim, OLD_KERNEL: kinds.join(',') } });
  // Trains are refused only when there are some.
  for (const kind of kinds.filter((k) => k !== 'no-checksum')) await node.process.waitForLine(new RegExp(`^old kernel: ${kind}$`));
  const trains = (lacking: string): string => (sockets.includes(lacking) ? 'one by one' : 'in trains');
  await node.process.waitForLine(new RegExp(`received ${trains('no-udp-gro')}, sent ${trains('no-udp-segment')}`));
}

/** What tcpdump finds of checksums of TCP and UDP in a capture. */
async function checksums(file: string): Promise<{ readonly good: number; readonly bad: readonly string[] }> {
  const { stdout } = await run(['tcpdump', '-vv', '-n', '-r', file], { timeoutMs: 60_000 });
  const lines = stdout.split('\n');
  const bad = lines.filter((line) => /bad udp cksum|incorrect|bad cksum|bad-len/.test(line));
  return { good: lines.filter((line) => /udp sum ok|cksum 0x[0-9a-f]+ \(correct\)/.test(line)).length, bad: bad.slice(0, 3) };
}
