/** What Thicket does to a host, on real kernels' tables: fencing its pools off, giving way to others, leaving nothing behind. */
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, jest, test } from '@jest/globals';
import { call, dropped, OWN4, OWN6, POOL4, POOL6, start, steps } from '../fixtures/host-net.js';
import { type Host, Lab, type Process, repository, waitFor } from '../lab/index.js';

const lines = join(repository, 'test', 'fixtures', 'lines.py');
const SERVICE = { endpoint4: '198.18.1.1', protocol: 'tcp', port: 80, target: { host: '192.168.1.31', port: 80 } } as const;

jest.setTimeout(30_000);

let lab: Lab;
let gw: Host;
const running: Process[] = [];
/** `ip` commands that take back what a test did to gw. */
const undo: string[] = [];

const ip = (text: string): Promise<unknown> => gw.exec(['ip', ...text.split(' ')]);

/** A node on gw that holds its interface. */
async function up(more: readonly string[] = []): Promise<{ node: Process; tun: Process }> {
  const node = await start(gw, ['prepare', 'tun', 'attach', ...more, 'hold'], /^prepare$/);
  const wire = [
    '/usr/bin/python3',
    join(repository, 'test', 'fixtures', 'wire.py'),
    gw.netns,
    'thicket0',
    lab.host('viewer').netns,
    'over0',
  ];
  const tun = await lab.host('gw').spawn(wire);
  running.push(node, tun);
  await node.waitForLine(/^holding$/);
  const viewer = lab.host('viewer');
  await viewer.exec(['ip', 'addr', 'add', '198.18.0.9/15', 'dev', 'over0']);
  await viewer.exec(['ip', '-6', 'addr', 'add', 'fd12:3456:789a:1::9/64', 'dev', 'over0', 'nodad']);
  await viewer.exec(['ip', 'link', 'set', 'over0', 'up']);
  return { node, tun };
}

beforeAll(async () => {
  lab = await Lab.create();
  gw = lab.host('gw');
  // The kernel gives interfaces their link-local addresses and those their routes by and by; snapshots are for later changes.
  const settled = async (name: string): Promise<boolean> => {
    const { stdout } = await gw.exec(['ip', '-6', 'route', 'show', 'table', 'all', 'dev', name]);
    return /^local fe80:/m.test(stdout) && /^fe80::\/64/m.test(stdout);
  };
  await waitFor(async () => (await settled('wan0')) && (await settled('lan0')), { what: 'link-local addresses' });
}, 60_000);
afterAll(async () => {
  await lab.destroy();
}, 60_000);
afterEach(async () => {
  for (const process of running.splice(0)) await process.kill('SIGKILL');
  for (const text of undo.splice(0).reverse()) await ip(text);
  await steps(gw, ['prepare', 'detach']);
}, 30_000);

describe('a pool in use', () => {
  test.each([
    ['route', `route add ${POOL4} via 203.0.113.5`, `route del ${POOL4}`, `${POOL4} is routed through wan0`],
    ['more specific route', 'route add 198.19.7.0/24 dev lan0', 'route del 198.19.7.0/24', '198.19.7.0/24 is routed through lan0'],
    ['covering route', 'route add 198.16.0.0/12 dev lan0', 'route del 198.16.0.0/12', '198.16.0.0/12 is routed through lan0'],
    ['address', 'addr add 198.18.200.1/32 dev lan0', 'addr del 198.18.200.1/32 dev lan0', '198.18.200.1 is an address of lan0'],
    ['blackhole of others', `route add blackhole ${POOL4}`, `route del blackhole ${POOL4}`, `${POOL4} is a blackhole route`],
    [
      'route in another table',
      'route add 198.18.0.0/16 dev lan0 table 77',
      'route del 198.18.0.0/16 table 77',
      '198.18.0.0/16 is routed through lan0 in table 77',
    ],
    ['IPv6 route', `-6 route add ${POOL6} dev wan0`, `-6 route del ${POOL6} dev wan0`, `${POOL6} is routed through wan0`],
  ])('is refused, naming who uses it: %s', async (_, add, remove, by) => {
    await ip(add);
    undo.push(remove);
    const before = await gw.snapshot();
    const { stdout, code } = await steps(gw, ['prepare']);
    expect(stdout).toMatch(/^error POOL_ROUTED the pool [0-9a-f.:/]+ is in use already \(.*\): choose another with interface\.ipv[46]$/);
    expect(stdout).toContain(`(${by})`);
    expect(code).toBe(1);
    expect(await gw.snapshot()).toBe(before);
  });

  test('default routes and their halves leave it free', async () => {
    await ip('route add 128.0.0.0/1 via 203.0.113.5');
    undo.push('route del 128.0.0.0/1');
    expect((await steps(gw, ['prepare', 'detach'])).stdout).toBe('prepare\ndetach');
  });

  test('an interface of our name is refused', async () => {
    await ip('tuntap add dev thicket0 mode tun');
    undo.push('link del thicket0');
    expect((await steps(gw, ['prepare'])).stdout).toBe(
      'error EXISTS interface thicket0 exists: stop the program that holds it, or change interface.name',
    );
  });
});

describe('a host that lacks something', () => {
  const run = (wrapper: readonly string[]): Promise<string> => {
    const script = `import('${join(repository, 'build/programs/ts/kernel/index.js')}').then(({ HostNet, loadKernel }) =>
      HostNet.open(loadKernel(), ${JSON.stringify({ interface: 'thicket0', pool4: POOL4, own4: OWN4, mtu: 1500, stateFolder: '/tmp', dnsPort: 53 })})
        .prepare()).catch((error) => console.log(error.code, error.message))`;
    return gw.exec([...wrapper, process.execPath, '-e', script]).then(({ stdout }) => stdout);
  };

  test('has no CAP_NET_ADMIN', async () => {
    const before = await gw.snapshot();
    const said = await run(['setpriv', '--bounding-set', '-net_admin', '--inh-caps', '-net_admin']);
    expect(said).toMatch(/^NO_PRIVILEGE can't add the route blackhole 198\.18\.0\.0\/15: run as root or with CAP_NET_ADMIN$/);
    expect(await gw.snapshot()).toBe(before);
  });

  test('has no libnftables, and is left as it was', async () => {
    const before = await gw.snapshot();
    const hide = 'for f in /usr/lib/*/libnftables.so.1; do mount --bind /dev/null $f; done; exec "$@"';
    const said = await run(['unshare', '-m', 'sh', '-c', hide, 'sh']);
    expect(said).toBe('NFT_MISSING libnftables.so.1 is missing: install the package libnftables1, or set interface.mode to userspace');
    expect(await gw.snapshot()).toBe(before);
  });
});

describe('stopping', () => {
  test('leaves the host as it was', async () => {
    const before = await gw.snapshot();
    const { node, tun } = await up([
      `apply:${JSON.stringify([SERVICE, { ...SERVICE, port: 81, target: { host: '127.0.0.1', port: 81 } }])}`,
    ]);
    const during = await gw.snapshot();
    expect(during).toContain('net.ipv4.conf.lan0.forwarding = 1');
    expect(during).toContain('net.ipv4.conf.thicket0.route_localnet = 1');
    expect(during).toContain('net.ipv4.conf.wan0.forwarding = 0');
    expect(during).toMatch(/thicket0 +inet 198\.18\.0\.1\/32/);
    expect(during).not.toMatch(/thicket0 .*fe80/);
    await tun.kill('SIGKILL');
    expect(await node.kill('SIGTERM')).toMatchObject({ code: 0 });
    expect(await gw.snapshot()).toBe(before);
  });

  test('leaves the host as it was with the interface still there, too', async () => {
    const { stdout: before } = await gw.exec(['sh', '-c', 'ip route; ip -6 route; nft list ruleset']);
    const { node } = await up();
    await node.kill('SIGTERM');
    const { stdout: after } = await gw.exec(['sh', '-c', 'ip route; ip -6 route; nft list ruleset']);
    expect(after).toBe(before);
    expect((await gw.exec(['ip', '-o', 'addr', 'show', 'thicket0'])).stdout).toBe('');
  });

  test('after a crash and another start leaves the host as it was before the first', async () => {
    const before = await gw.snapshot();
    const first = await up([`apply:${JSON.stringify([SERVICE])}`]);
    await first.node.kill('SIGKILL');
    await first.tun.kill('SIGKILL');
    const left = await gw.snapshot();
    expect(left).toContain('blackhole 198.18.0.0/15');
    expect(left).toContain('table inet thicket');
    expect(left).toContain('net.ipv4.conf.lan0.forwarding = 1');

    const second = await up();
    // Forwarding is still on, and the table that replaced the old one knows it though no service was applied yet.
    expect(await gw.snapshot()).toContain('iifname "lan0" counter packets 0 bytes 0 drop comment "forwarding was off"');
    await second.tun.kill('SIGKILL');
    await second.node.kill('SIGTERM');
    expect(await gw.snapshot()).toBe(before);
  });

  test('turns forwarding off when the last service goes', async () => {
    const before = await gw.exec(['sysctl', 'net.ipv4.conf.lan0.forwarding']);
    await up([`apply:${JSON.stringify([SERVICE])}`, 'apply:[]']);
    expect((await gw.exec(['sysctl', 'net.ipv4.conf.lan0.forwarding'])).stdout).toBe(before.stdout);
    expect(await gw.snapshot()).not.toContain('drop comment "forwarding was off"');
  });
});

describe("the interface's super-packets", () => {
  const segments = async (): Promise<number> => {
    const { stdout } = await gw.exec(['ip', '-d', '-j', 'link', 'show', 'thicket0']);
    return (JSON.parse(stdout) as readonly { readonly gso_max_segs: number }[])[0]?.gso_max_segs ?? Number.NaN;
  };

  test('are one train each, unless they may come from another interface', async () => {
    await up();
    expect(await segments()).toBe(44);
  });

  test('are taken as they are at a gateway', async () => {
    await up([`apply:${JSON.stringify([SERVICE])}`]);
    expect(await segments()).toBe(65_535);
  });

  test('are one train each again when no service is left', async () => {
    await up([`apply:${JSON.stringify([SERVICE])}`, 'apply:[]']);
    expect(await segments()).toBe(44);
  });
});

test("the interface's queue takes a burst of many cameras", async () => {
  await up();
  const { stdout } = await gw.exec(['ip', '-j', 'link', 'show', 'thicket0']);
  expect((JSON.parse(stdout) as readonly { readonly txqlen: number }[])[0]?.txqlen).toBe(1_000);
});

describe('the fence', () => {
  test('keeps packets in while the node is down after kill -9', async () => {
    const capture = await lab.capture('inet', 'gw', 'net 198.18.0.0/15');
    const send = (): Promise<unknown> => gw.exec(['ping', '-c', '1', '-W', '1', '198.18.5.5'], { check: false });
    await send();
    const { node, tun } = await up();
    await node.kill('SIGKILL');
    await tun.kill('SIGKILL');
    await send();
    await send();
    await capture.stop();
    // The first, before the node was ever started, went to the Internet: the capture sees such packets.
    expect([...capture.packets()].map((packet) => packet.destination)).toEqual(['198.18.5.5']);
  });

  test('keeps packets in against somebody else’s policy routing', async () => {
    await up();
    await ip('route add default via 203.0.113.5 table 99');
    await ip('rule add to 198.18.7.0/24 lookup 99 pref 50');
    undo.push('route del default table 99', 'rule del pref 50');
    const capture = await lab.capture('inet', 'gw', 'net 198.18.0.0/15');
    await gw.exec(['ping', '-c', '1', '-W', '1', '198.18.7.7'], { check: false });
    expect(await dropped(gw, 'to the pool by elsewhere')).toBe(1);
    await capture.stop();
    expect([...capture.packets()]).toEqual([]);
  });

  test('answers for no local address on other interfaces', async () => {
    await up();
    const server = await gw.spawn(['/usr/bin/python3', lines, 'serve', '0.0.0.0', '5300', 'udp']);
    running.push(server);
    await server.waitForLine(/^ready$/);
    const inet = lab.host('inet');
    await inet.exec(['ip', 'route', 'add', '198.18.0.0/15', 'via', gw.address]);
    const reachable = await inet.spawn(['/usr/bin/python3', lines, 'send', gw.address, '5300', 'udp']);
    const pool = await inet.spawn(['/usr/bin/python3', lines, 'send', OWN4, '5300', 'udp']);
    running.push(reachable, pool);
    await reachable.waitForLine(/^echo 3$/);
    await waitFor(async () => (await dropped(gw, 'to the pool from elsewhere')) >= 3, { what: 'drops' });
    expect(pool.stdout).toEqual(['connected']);

    // A neighbour that says it speaks from the pool.
    await inet.exec(['ip', 'addr', 'add', '198.18.0.77/32', 'dev', 'lo']);
    const forged = await inet.spawn(['/usr/bin/python3', lines, 'send', gw.address, '5300', 'udp', '198.18.0.77']);
    running.push(forged);
    await waitFor(async () => (await dropped(gw, 'from the pool by elsewhere')) >= 3, { what: 'drops' });
    expect(server.stdout.some((line) => line.startsWith('from 198.18.0.77'))).toBe(false);
    await inet.exec(['ip', 'addr', 'del', '198.18.0.77/32', 'dev', 'lo']);
    await inet.exec(['ip', 'route', 'del', '198.18.0.0/15']);
  });

  test.each([
    [OWN4, '198.18.0.9'],
    [OWN6, 'fd12:3456:789a:1::9'],
  ])("keeps the overlay from this host's ports, DNS first, and lets programs here reach them: %s", async (own, far) => {
    await up();
    const viewer = lab.host('viewer');
    for (const port of ['53', '8080']) {
      const server = await gw.spawn(['/usr/bin/python3', lines, 'serve', own, port, 'tcp']);
      running.push(server);
      await server.waitForLine(/^ready$/);
      const local = await gw.spawn(['/usr/bin/python3', lines, 'send', own, port, 'tcp']);
      running.push(local);
      await local.waitForLine(/^echo 1$/);
      running.push(await viewer.spawn(['/usr/bin/python3', lines, 'send', own, port, 'tcp', far]));
      await waitFor(async () => (await dropped(gw, port === '53' ? 'DNS' : 'overlay to this host')) >= 1, { what: 'drops' });
      expect(server.stdout.some((line) => line.includes(far))).toBe(false);
    }
  });

  test('drops what the TUN brings that is not between local addresses', async () => {
    await up();
    const viewer = lab.host('viewer');
    await viewer.exec(['ip', 'route', 'add', '192.168.1.0/24', 'dev', 'over0']);
    await viewer.exec(['ping', '-c', '1', '-W', '1', '-I', '198.18.0.9', '192.168.1.1'], { check: false });
    expect(await dropped(gw, 'not between local addresses')).toBe(1);
    await viewer.exec(['ip', 'route', 'del', '192.168.1.0/24']);
  });

  test('lets replies in, and media of a peer that a program here talks to over TCP, from before a crash too', async () => {
    const viewer = lab.host('viewer');
    const { node, tun } = await up();
    const media = await gw.spawn(['/usr/bin/python3', lines, 'serve', OWN4, '6100', 'udp']);
    const sender = await viewer.spawn(['/usr/bin/python3', lines, 'send', OWN4, '6100', 'udp', '198.18.0.9']);
    running.push(media, sender);
    await waitFor(async () => (await dropped(gw, 'overlay to this host')) >= 3, { what: 'drops' });
    expect(media.stdout).toEqual(['ready']);

    const server = await viewer.spawn(['/usr/bin/python3', lines, 'serve', '198.18.0.9', '554', 'tcp']);
    running.push(server);
    await server.waitForLine(/^ready$/);
    const player = await gw.spawn(['/usr/bin/python3', lines, 'send', '198.18.0.9', '554', 'tcp']);
    running.push(player);
    await player.waitForLine(/^echo 1$/);
    await media.waitForLine(/^from 198\.18\.0\.9/);

    await node.kill('SIGKILL');
    await tun.kill('SIGKILL');
    expect((await steps(gw, ['prepare'])).stdout).toBe('prepare');
    expect((await gw.exec(['nft', 'list', 'set', 'inet', 'thicket', 'dialled4'])).stdout).toContain('198.18.0.9');
  });
});

describe('the kernel addon', () => {
  test('adds, lists and deletes policy rules', async () => {
    const rule = { family: 4, priority: 77, from: '10.2.0.0/16', mark: 5, table: 99, protocol: 116, action: 'lookup' };
    const six = { family: 6, priority: 78, to: 'fd00::/8', input: 'lan0', action: 'blackhole', table: 0, protocol: 116 };
    expect(await call(gw, 'addRule', rule)).toBe(true);
    expect(await call(gw, 'addRule', six)).toBe(true);
    expect(await call(gw, 'addRule', rule)).toBe(false);
    expect(await call(gw, 'rules')).toEqual(expect.arrayContaining([rule, six]));
    expect((await gw.exec(['ip', 'rule'])).stdout).toMatch(/77:\s+from 10\.2\.0\.0\/16 fwmark 0x5 lookup 99 proto 116/);
    for (const one of [rule, six, rule]) await call(gw, 'deleteRule', one);
    expect(await call<unknown[]>(gw, 'rules')).not.toEqual(expect.arrayContaining([expect.objectContaining({ protocol: 116 })]));
  });

  test('finds the source address and the interface for a destination', async () => {
    expect(await call(gw, 'routeTo', '192.168.1.31')).toEqual({ source: '192.168.1.1', interface: 'lan0' });
    expect(await call(gw, 'routeTo', '8.8.8.8')).toEqual({ source: gw.address, interface: 'wan0', gateway: '203.0.113.5' });
    expect(await call(gw, 'routeTo', '192.168.1.1')).toEqual({ source: '192.168.1.1', interface: 'lo' });
    const { stdout } = await steps(lab.host('camera'), ['routeTo:["8.8.8.8"]']);
    expect(stdout).toMatch(/^error NO_ROUTE can't find a route to 8\.8\.8\.8: check this host's routes with ip route$/m);
  });

  test('lists addresses and routes as ip does', async () => {
    const addresses = await call<{ interface: string; address: string }[]>(gw, 'addresses');
    expect(addresses).toContainEqual({ interface: 'lan0', address: '192.168.1.1', prefix: 24 });
    const routes = await call(gw, 'routes', ['192.168.1.0/24']);
    expect(routes).toContainEqual(
      expect.objectContaining({ destination: '192.168.1.0/24', type: 'unicast', interface: 'lan0', table: 254, source: '192.168.1.1' }),
    );
  });
});
