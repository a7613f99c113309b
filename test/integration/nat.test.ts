/** A gateway's NAT on a real kernel: another host's stack stands for the core and the viewers behind it. */
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, jest, test } from '@jest/globals';
import { applies, call, dropped, type Service, start, steps } from '../fixtures/host-net.js';
import { type Host, Lab, type Process, repository, startLight, waitFor } from '../lab/index.js';

const lines = join(repository, 'test', 'fixtures', 'lines.py');
const ENDPOINT4 = '198.18.1.1';
const ENDPOINT6 = 'fd12:3456:789a:1::101';
const PEER = '198.18.0.9';
const PEER6 = 'fd12:3456:789a:1::9';
const OTHER = '198.18.0.10';
const LIGHT6 = 'fd00:1::31';

interface Flow {
  readonly original: { readonly source: string; readonly destination: string; readonly protocol: number; readonly destinationPort: number };
  readonly reply: { readonly source: string; readonly destination: string };
}

jest.setTimeout(30_000);

let lab: Lab;
let gw: Host;
let viewer: Host;
let light: Host;
let node: Process;
let overlay: Process;
const running: Process[] = [];

const service = (port: number, host: string, target: number, protocol: 'tcp' | 'udp' = 'tcp'): Service => ({
  endpoint4: ENDPOINT4,
  endpoint6: ENDPOINT6,
  protocol,
  port,
  target: { host, port: target },
});

const SERVICES = [
  service(80, '192.168.1.31', 80),
  service(7000, '192.168.1.31', 7001),
  service(7000, '192.168.1.31', 7001, 'udp'),
  service(7100, LIGHT6, 7101),
  service(7200, '192.168.1.1', 7201),
  service(7300, '127.0.0.1', 7301),
];

async function connectOverlay(): Promise<void> {
  overlay = await lab
    .host('gw')
    .spawn(['/usr/bin/python3', join(repository, 'test', 'fixtures', 'wire.py'), gw.netns, 'thicket0', viewer.netns, 'over0']);
  await overlay.waitForLine(/^ready$/);
  for (const address of [PEER, OTHER]) await viewer.exec(['ip', 'addr', 'add', `${address}/15`, 'dev', 'over0']);
  await viewer.exec(['ip', '-6', 'addr', 'add', `${PEER6}/64`, 'dev', 'over0', 'nodad']);
  await viewer.exec(['ip', 'link', 'set', 'over0', 'up']);
}

async function startNode(services: readonly Service[] = SERVICES): Promise<void> {
  node = await start(gw, ['prepare', 'tun', 'attach', applies(services), 'hold'], /^prepare$/);
  await connectOverlay();
  await node.waitForLine(/^holding$/);
}

async function spawn(host: Host, ...args: readonly string[]): Promise<Process> {
  const program = await host.spawn(['/usr/bin/python3', lines, ...args]);
  running.push(program);
  return program;
}

async function serve(host: Host, address: string, port: number, protocol: 'tcp' | 'udp' = 'tcp'): Promise<Process> {
  const server = await spawn(host, 'serve', address, String(port), protocol);
  await server.waitForLine(/^ready$/);
  return server;
}

const send = (address: string, port: number, protocol: 'tcp' | 'udp' = 'tcp', source = PEER): Promise<Process> =>
  spawn(viewer, 'send', address, String(port), protocol, source);

const flows = (source: string): Promise<Flow[]> => call<Flow[]>(gw, 'flows', [{ source, destination: ENDPOINT4 }]);

beforeAll(async () => {
  lab = await Lab.create();
  gw = lab.host('gw');
  viewer = lab.host('viewer');
  light = lab.host('light1');
  await startLight(lab, 'light1');
  await light.exec(['sysctl', '-qw', 'net.ipv6.conf.eth0.disable_ipv6=0']);
  await light.exec(['ip', '-6', 'addr', 'add', `${LIGHT6}/64`, 'dev', 'eth0', 'nodad']);
  await gw.exec(['ip', '-6', 'addr', 'add', 'fd00:1::1/64', 'dev', 'lan0', 'nodad']);
}, 60_000);
afterAll(async () => {
  await lab.destroy();
}, 60_000);
beforeEach(() => startNode(), 30_000);
afterEach(async () => {
  for (const process of [...running.splice(0), overlay, node]) await process.kill('SIGKILL');
  await steps(gw, ['prepare', 'detach']);
  await gw.exec(['conntrack', '-F']);
}, 30_000);

describe('a service', () => {
  test('leads to its device, which sees the gateway', async () => {
    const { stdout } = await viewer.exec([
      'curl',
      '-sf',
      '--interface',
      PEER,
      '-X',
      'PUT',
      `http://${ENDPOINT4}/light`,
      '-d',
      '{"on":true}',
    ]);
    expect(stdout).toContain('"on":true');
    const [flow] = await flows(PEER);
    expect(flow?.reply).toMatchObject({ source: '192.168.1.31', destination: '192.168.1.1' });
  });

  test('of TCP and one of UDP lead from one port to another', async () => {
    for (const protocol of ['tcp', 'udp'] as const) {
      const server = await serve(light, '192.168.1.31', 7001, protocol);
      const client = await send(ENDPOINT4, 7000, protocol);
      await client.waitForLine(/^echo 2$/);
      await server.waitForLine(/^from 192\.168\.1\.1 2$/);
    }
  });

  test('with an IPv6 target is reached by the IPv6 address of the endpoint', async () => {
    const server = await serve(light, LIGHT6, 7101);
    const client = await send(ENDPOINT6, 7100, 'tcp', PEER6);
    await client.waitForLine(/^echo 1$/);
    await server.waitForLine(/^from fd00:1::1 1$/);
  });

  test('may be one of the gateway itself, on its LAN address or on loopback', async () => {
    for (const [address, port] of [
      ['192.168.1.1', 7201],
      ['127.0.0.1', 7301],
    ] as const) {
      const server = await serve(gw, address, port);
      const client = await send(ENDPOINT4, port - 1);
      await client.waitForLine(/^echo 1$/);
      await server.waitForLine(new RegExp(`^from ${PEER.replaceAll('.', '\\.')} 1$`));
    }
  });

  test('brings echo to its device', async () => {
    await viewer.exec(['ping', '-c', '1', '-W', '3', '-I', PEER, ENDPOINT4]);
    expect((await flows(PEER)).filter((flow) => flow.original.protocol === 1)[0]?.reply.source).toBe('192.168.1.31');
    await viewer.exec(['ping', '-c', '1', '-W', '3', '-I', PEER6, ENDPOINT6]);
  });

  test('is gone at once when it is applied no more', async () => {
    expect((await viewer.exec(['curl', '-sf', '-m', '5', `http://${ENDPOINT4}/light`])).code).toBe(0);
    // `ip netns exec` became the program, so signals reach it.
    node.signal('SIGUSR2');
    await node.waitForLine(/^emptied$/);
    expect((await viewer.exec(['curl', '-sf', '-m', '1', `http://${ENDPOINT4}/light`], { check: false })).code).toBe(28);
  });
});

describe('nothing else', () => {
  test.each([
    ['a port of the endpoint that is no service', ENDPOINT4, 'overlay to the LAN'],
    ['an address that is no endpoint', '198.18.1.2', 'overlay to the LAN'],
    ["the gateway's own address", '198.18.0.1', 'overlay to this host'],
    ['a neighbour of the device', '192.168.1.32', 'not between local addresses'],
    ["the gateway's LAN address", '192.168.1.1', 'not between local addresses'],
  ])('is reached from the overlay: %s', async (_, address, comment) => {
    await viewer.exec(['ip', 'route', 'replace', '192.168.1.0/24', 'dev', 'over0']);
    await serve(gw, '0.0.0.0', 8080);
    const before = await dropped(gw, comment);
    const client = await send(address, 8080);
    await waitFor(async () => (await dropped(gw, comment)) > before, { what: `a drop: ${comment}` });
    expect(client.stdout).toEqual([]);
  });

  test('is opened from the LAN into the overlay', async () => {
    await light.exec(['ip', 'route', 'replace', '198.18.0.0/15', 'via', '192.168.1.1']);
    const server = await serve(viewer, PEER, 8081);
    await spawn(light, 'send', PEER, '8081', 'tcp');
    await waitFor(async () => (await dropped(gw, 'to the pool from elsewhere')) > 0, { what: 'a drop' });
    expect(server.stdout).toEqual(['ready']);
  });

  test('is forwarded between the LAN and the Internet, though forwarding is on for the LAN now', async () => {
    await light.exec(['ip', 'route', 'replace', 'default', 'via', '192.168.1.1']);
    const capture = await lab.capture('inet', 'gw', 'host 192.168.1.31');
    await light.exec(['ping', '-c', '1', '-W', '1', '203.0.113.5'], { check: false });
    expect(await dropped(gw, 'forwarding was off')).toBe(1);
    await capture.stop();
    expect([...capture.packets()]).toEqual([]);
  });
});

describe('flows', () => {
  test('of one pair are cut, exactly', async () => {
    await serve(light, '192.168.1.31', 7001);
    const cut = await send(ENDPOINT4, 7000);
    const kept = await send(ENDPOINT4, 7000, 'tcp', OTHER);
    await viewer.exec(['ping', '-c', '1', '-W', '3', '-I', PEER, ENDPOINT4]);
    await cut.waitForLine(/^echo 1$/);
    await kept.waitForLine(/^echo 1$/);
    expect((await flows(PEER)).map((flow) => flow.original.protocol).sort()).toEqual([1, 6]);
    // Without the map the kernel would take the rest of the connection for a new one and translate it again: in life the core stops it.
    await gw.exec(['nft', 'flush', 'map', 'inet', 'thicket', 'services4']);
    expect((await steps(gw, [`cut:${JSON.stringify([{ peer: PEER, endpoint: ENDPOINT4 }])}`])).stdout).toBe('cut');
    expect((await flows(PEER)).filter((flow) => flow.reply.source === '192.168.1.31')).toEqual([]);
    expect(await flows(OTHER)).toHaveLength(1);
    const last = kept.stdout.length;
    await waitFor(() => kept.stdout.length > last + 3, { what: 'the other flow going on' });
    const stopped = cut.stdout.length;
    await waitFor(() => kept.stdout.length > last + 8, { what: 'the other flow going on' });
    expect(cut.stdout.length).toBe(stopped);
  });

  test('of one port of a pair are cut, and its other ports stay', async () => {
    await serve(light, '192.168.1.31', 7001);
    await serve(light, '192.168.1.31', 7001, 'udp');
    const tcp = await send(ENDPOINT4, 7000);
    const udp = await send(ENDPOINT4, 7000, 'udp');
    await Promise.all([tcp, udp].map((client) => client.waitForLine(/^echo 1$/)));
    await udp.kill('SIGKILL');
    const before = (await flows(PEER)).map((flow) => flow.original.protocol).sort((a, b) => a - b);
    expect(before).toEqual([6, 17]);
    await steps(gw, [`cut:${JSON.stringify([{ peer: PEER, endpoint: ENDPOINT4, protocol: 'udp', port: 7000 }])}`]);
    expect((await flows(PEER)).map((flow) => flow.original.protocol)).toEqual([6]);
  });

  test('go on after kill -9 of the node and another start, on the same connection', async () => {
    await serve(light, '192.168.1.31', 7001);
    const client = await send(ENDPOINT4, 7000);
    await client.waitForLine(/^echo 3$/);
    await node.kill('SIGKILL');
    await overlay.kill('SIGKILL');
    // The device goes on sending meanwhile; the gateway resets nothing.
    const before = client.stdout.length;
    await startNode();
    await waitFor(() => client.stdout.length > before + 5, { what: 'the connection going on' });
    expect(client.running).toBe(true);
  });
});

test('a thousand services are one transaction; how long it takes is printed', async () => {
  await node.kill('SIGKILL');
  await overlay.kill('SIGKILL');
  const { stdout } = await steps(gw, ['prepare', 'time:1', 'time:1000']);
  const [one, thousand] = [...stdout.matchAll(/^time (.*)$/gm)].map((match) => Number(match[1]));
  expect(thousand).toBeGreaterThan(0);
  process.stdout.write(`nft: 1 service ${one?.toFixed(1)} ms, 1,000 services ${thousand?.toFixed(1)} ms\n`);
});
