/** `thicket proxy`: what curl and PySocks reach through it, and what they don't. */
import { join } from 'node:path';
import type { ResolveDocument } from '../../ts/control/documents.js';
import { type Process, type Result, repository, startFiles, waitFor } from '../lab/index.js';
import { type NodeConfig, type NodeName, World, type WorldNode } from '../world/index.js';

const DIG = join(repository, 'test', 'fixtures', 'socks_dig.py');
/** On the Internet, where the viewer itself reaches it. */
const OUTSIDE = '198.51.100.53';

let world: World;
let fileSha256: string;

beforeAll(async () => {
  const service = (port: string, allow: readonly string[] = ['group:family']) => ({
    port,
    target: `192.168.1.22:${port.split('/')[1]}`,
    allow,
  });
  const endpoints: NodeConfig['endpoints'] = [
    {
      name: 'files',
      services: [service('tcp/80'), service('tcp/81'), service('tcp/53', []), service('udp/53')].map((s) => ({
        ...s,
        allow: [...s.allow],
      })),
    },
  ];
  world = await World.create({
    nodes: ['root', 'gw', 'viewer', 'viewer2', 'gw2'],
    idle: ['gw2'],
    devices: false,
    configure: (name: NodeName, config: NodeConfig) => {
      if (name === 'viewer2' || name === 'gw2') return { ...config, interface: { mode: 'userspace' }, endpoints: [] };
      return name === 'gw' ? { ...config, endpoints } : config;
    },
    // One more viewer.
    plan: (name, plan) => (name === 'gw2' ? { ...plan, groups: ['family'] } : plan),
  });
  await world.node('gw2').start({ env: { THICKET_BACKEND: 'wasm' } });
  const files = await startFiles(world.lab);
  fileSha256 = files.bigSha256;
  const options = ['--no-daemon', '--conf-file=/dev/null', '--no-resolv', '--no-hosts', '--user=root', '--pid-file=', '--log-facility=-'];
  const records = ['--host-record=one.example,192.0.2.1', '--host-record=two.example,192.0.2.2'];
  const names = await world.lab.host('files').spawn(['dnsmasq', ...options, ...records]);
  await names.waitForLine(/started, version/);
}, 120_000);

afterAll(async () => {
  await world?.destroy();
}, 30_000);

async function start(node: WorldNode, ...args: readonly string[]): Promise<Process> {
  const proxy = await node.host.spawnThicket(['proxy', ...args]);
  await proxy.waitForLine(/^SOCKS5 on /);
  return proxy;
}

const curl = (node: WorldNode, args: readonly string[], check = true): Promise<Result> =>
  node.host.exec(['curl', '-sS', '--max-time', '60', ...args], { check, timeoutMs: 90_000 });

/** The reply to CONNECT, as curl names it. */
async function refusal(node: WorldNode, url: string, how = '--socks5-hostname'): Promise<number> {
  const { code, stderr } = await curl(node, [how, '127.0.0.1:1080', url], false);
  expect(code).toBe(97);
  return Number(/\((\d+)\)\s*$/.exec(stderr)?.[1]);
}

describe.each([
  ['an interface', 'viewer'],
  ['user-space mode', 'viewer2'],
  ['user-space mode in WebAssembly', 'gw2'],
] as const)('with %s', (_mode, name) => {
  let node: WorldNode;
  let proxy: Process;

  beforeAll(async () => {
    node = world.node(name);
    proxy = await start(node);
  });
  afterAll(async () => {
    await proxy?.kill('SIGTERM');
  });

  test('curl fetches a hundred megabytes from a name, whole', async () => {
    const file = node.host.path('fetched');
    await curl(node, ['--socks5-hostname', '127.0.0.1:1080', '-f', '-o', file, 'http://files.home.thicket/big.bin']);
    const { stdout } = await node.host.exec(['sha256sum', file]);
    expect(stdout.slice(0, 64)).toBe(fileSha256);
  });

  test('a key, and an address that the node gave, lead there too', async () => {
    const { key, ipv4, ipv6 } = await node.json<ResolveDocument>(['resolve', 'files.home.thicket']);
    for (const host of [`${key}.thicket`, ipv4, `[${ipv6}]`]) {
      const { stdout } = await curl(node, ['--socks5-hostname', '127.0.0.1:1080', '-f', `http://${host}/hello.txt`]);
      expect(stdout).toBe('hello from the file server');
    }
  });

  test('it is no way to the Internet, to the LAN, or to the host itself', async () => {
    const server = await world.lab.host('inet').spawn(['/usr/bin/python3', '-m', 'http.server', '--bind', OUTSIDE, '8080']);
    await waitFor(() => curl(node, ['-f', '-o', '/dev/null', `http://${OUTSIDE}:8080/`]), { what: 'a server on the Internet' });
    for (const host of [
      `${OUTSIDE}:8080`,
      '127.0.0.1:1080',
      '192.168.1.22',
      '198.18.0.1:53',
      '198.19.255.255',
      'site.example',
      'localhost',
    ]) {
      expect([host, await refusal(node, `http://${host}/`)]).toEqual([host, 2]);
    }
    await server.kill('SIGKILL');
  });

  test('what fails is told as what it is: nobody of that name, no such service, forbidden', async () => {
    expect(await refusal(node, 'http://nobody.home.thicket/')).toBe(4);
    // Allowed, but nothing listens there: the device's own reset.
    expect(await refusal(node, 'http://files.home.thicket:81/')).toBe(5);
    // Not allowed: told by the gateway, sealed.
    expect(await refusal(node, 'http://files.home.thicket:53/')).toBe(5);
  });

  test('UDP reaches a service by name, several times by one association', async () => {
    const { stdout } = await node.host.exec([
      '/usr/bin/python3',
      DIG,
      '1080',
      'files.home.thicket',
      'one.example',
      'two.example',
      'one.example',
    ]);
    expect(stdout.trim().split('\n')).toEqual(['192.0.2.1', '192.0.2.2', '192.0.2.1']);
  });

  test('a proxy that ends takes its connections with it', async () => {
    const other = await start(node, '127.0.0.1:1090');
    const url = 'http://files.home.thicket/big.bin';
    const slow = await node.host.spawn([
      'curl',
      '-sS',
      '--limit-rate',
      '1M',
      '--socks5-hostname',
      '127.0.0.1:1090',
      '-o',
      '/dev/null',
      url,
    ]);
    await waitFor(async () => /ESTAB/.test((await node.host.exec(['ss', '-Htn', 'dport', '=', ':1090'])).stdout));
    await other.kill('SIGTERM');
    expect((await slow.exit).code).not.toBe(0);
  });

  test('UDP reaches nothing else', async () => {
    const direct = await node.host.exec(['dig', '+short', `@${OUTSIDE}`, 'site.example']);
    expect(direct.stdout.trim()).toBe('192.0.2.80');
    const { stdout } = await node.host.exec(['/usr/bin/python3', DIG, '1080', OUTSIDE, 'site.example']);
    expect(stdout.trim()).toBe('no answer');
  });
});

describe('where it listens', () => {
  let viewer: WorldNode;

  beforeAll(() => {
    viewer = world.node('viewer');
  });

  const listening = async (): Promise<string[]> => {
    const { stdout } = await viewer.host.exec(['ss', '-Hltn']);
    return stdout
      .split('\n')
      .map((line) => line.split(/\s+/)[3] ?? '')
      .filter((address) => /:10[89]\d$/.test(address));
  };

  test('on loopback, unless it is said that others may use it', async () => {
    const refused = await viewer.thicket(['proxy', '0.0.0.0:1081'], { check: false });
    expect([refused.code, refused.stderr.split('\n').length]).toEqual([1, 1]);
    expect(refused.stderr).toMatch(/^thicket: other hosts could use a proxy on 0\.0\.0\.0, which asks for no password: /);
    const open = await start(viewer, '0.0.0.0:1081', '--open');
    expect(await listening()).toEqual(['0.0.0.0:1081']);
    await open.kill('SIGTERM');
    await waitFor(async () => (await listening()).length === 0);
  });

  test('as the configuration says, which a reload changes; a connection through one that stays goes on', async () => {
    const proxies = (...ports: readonly number[]): NodeConfig => ({
      ...viewer.config,
      proxies: ports.map((port) => ({ listen: `127.0.0.1:${port}` })),
    });
    viewer.setConfig(proxies(1080, 1081));
    await viewer.thicket(['reload']);
    expect((await listening()).sort()).toEqual(['127.0.0.1:1080', '127.0.0.1:1081']);
    const slow = await viewer.host.spawn([
      'curl',
      '-sS',
      '-f',
      '--limit-rate',
      '40M',
      '--socks5-hostname',
      '127.0.0.1:1080',
      '-o',
      '/dev/null',
      '-w',
      '%{size_download}',
      'http://files.home.thicket/big.bin',
    ]);
    await waitFor(async () => (await viewer.host.exec(['ss', '-Htn', 'dport', '=', ':1080'])).stdout !== '');
    viewer.setConfig(proxies(1080, 1082));
    await viewer.thicket(['reload']);
    expect((await listening()).sort()).toEqual(['127.0.0.1:1080', '127.0.0.1:1082']);
    expect(await slow.exit).toEqual({ code: 0, signal: null });
    expect(slow.stdout.join('')).toBe('100000000');
    const { stdout } = await curl(viewer, ['--socks5-hostname', '127.0.0.1:1082', '-f', 'http://files.home.thicket/hello.txt']);
    expect(stdout).toBe('hello from the file server');
  });
});
