/** The node's DNS server among real nodes: what it answers, whom, what becomes of its addresses, and how the host's resolver gets to it. */
import { existsSync, mkdirSync } from 'node:fs';
import type { StatusDocument } from '../../ts/control/documents.js';
import { KeyPair } from '../../ts/trust/index.js';
import { dropped } from '../fixtures/host-net.js';
import { type Host, type Process, waitFor } from '../lab/index.js';
import { type Dug, dig, World, type WorldNode } from '../world/index.js';

const DNS4 = '198.18.0.1';
/** Of the node with the small pool. */
const TTL = 5_000;
const NO_ANSWER = 'NONE';
const NOBODY = KeyPair.generate().publicKey;

let world: World;
let gw: WorldNode;
let viewer: WorldNode;
/** Has a /29: five addresses to give. */
let small: WorldNode;

beforeAll(async () => {
  world = await World.create({
    nodes: ['root', 'mid', 'gw', 'viewer', 'viewer2', 'gw2'],
    configure: (name, config) =>
      name === 'viewer2' ? { ...config, interface: { ipv4: '198.18.0.0/29' }, dns: { ttl: `${TTL / 1_000}s` } } : config,
  });
  gw = world.node('gw');
  viewer = world.node('viewer');
  small = world.node('viewer2');
}, 120_000);

afterAll(async () => {
  await world?.destroy();
}, 30_000);

const ask = (node: WorldNode, ...question: string[]): Promise<Dug> => dig(node.host, DNS4, question);

async function address(node: WorldNode, name: string, type: 'A' | 'AAAA' = 'A'): Promise<string> {
  const { status, answers, text } = await ask(node, name, type);
  expect({ status, answers: answers.length, text }).toEqual({ status: 'NOERROR', answers: 1, text });
  return (answers[0] ?? '').slice(type.length + 1);
}

/** The IPv6 address of a node's own, where its DNS server listens too. */
async function dns6(node: WorldNode): Promise<string> {
  const { dns } = await node.status();
  const own = dns?.addresses.find((one) => one.includes(':'));
  expect(own).toMatch(/^fd[0-9a-f:]+::1$/);
  return own ?? '';
}

describe('dig', () => {
  test.each(['camera.home.thicket', 'camera.gw.home.thicket', 'KEY'])(
    '%s has an A and an AAAA record, both of which lead back to it',
    async (written) => {
      const { services } = await gw.status();
      const key = services.find(({ name }) => name === 'camera')?.key ?? '';
      const name = written === 'KEY' ? `${key}.thicket` : written;
      for (const server of [DNS4, await dns6(viewer)]) {
        for (const [type, pattern] of [
          ['A', /^A 198\.1[89]\.\d+\.\d+$/],
          ['AAAA', /^AAAA fd[0-9a-f:]+$/],
        ] as const) {
          const { status, answers, ttl } = await dig(viewer.host, server, [name, type]);
          expect({ status, answers, ttl }).toEqual({ status: 'NOERROR', answers: [expect.stringMatching(pattern)], ttl: 60 });
          const back = await dig(viewer.host, server, ['-x', (answers[0] ?? '').slice(type.length + 1)]);
          expect(back).toMatchObject({ status: 'NOERROR', answers: [`PTR ${name}.`] });
        }
      }
      // Over TCP as well.
      expect((await ask(viewer, name, 'A', '+tcp')).answers).toEqual((await ask(viewer, name, 'A')).answers);
    },
  );

  test("a node's own names are its own addresses, its gateway's those that it gave it", async () => {
    expect(await address(viewer, 'viewer.home.thicket')).toBe(DNS4);
    expect(await address(viewer, `${viewer.key}.thicket`, 'AAAA')).toBe(await dns6(viewer));
    expect(await ask(viewer, '-x', DNS4)).toMatchObject({ answers: [`PTR ${viewer.key}.thicket.`] });
    expect(await address(gw, 'camera.home.thicket')).not.toBe(await address(viewer, 'camera.home.thicket'));
  });

  test.each([
    ['NXDOMAIN', 'an unknown name', 'nobody.home.thicket'],
    ['NXDOMAIN', 'an unknown endpoint of a known gateway', 'nobody.gw.home.thicket'],
    ['NXDOMAIN', 'a name in an unknown network', 'camera.nowhere.thicket'],
    ['NXDOMAIN', 'a key that is in no tree', `${NOBODY}.thicket`],
    ['NXDOMAIN', 'a key that is no point of the curve', `${'a'.repeat(52)}.thicket`],
    ['NXDOMAIN', 'a pool address of nobody', '198.18.255.254 -x'],
    ['REFUSED', 'another domain', 'site.example'],
    ['REFUSED', 'the root', '. NS'],
    ['REFUSED', 'an address outside the pool', '192.0.2.80 -x'],
    ['REFUSED', 'a domain that only ends like ours', 'camera.home.nothicket'],
  ])('%s: %s', async (status, _, question) => {
    const [name = '', option = 'A'] = question.split(' ');
    const { text, ...said } = await (option === '-x' ? ask(viewer, '-x', name) : ask(viewer, name, option));
    expect(said).toEqual({ status, answers: [], ttl: undefined });
    // How long a "no" may be remembered stands in the SOA record; a server that isn't asked for its own domain says nothing of the kind.
    expect(/AUTHORITY SECTION:\n\S+\s+5\s+IN\s+SOA/.test(text)).toBe(status === 'NXDOMAIN');
  });

  test('NODATA: a name that exists, of a type that it lacks', async () => {
    for (const name of ['camera.home.thicket', 'camera.gw.home.thicket', `${gw.key}.thicket`, 'viewer.home.thicket', 'home.thicket']) {
      const { status, answers, text } = await ask(viewer, name, 'MX');
      expect({ name, status, answers }).toEqual({ name, status: 'NOERROR', answers: [] });
      expect(text).toMatch(/AUTHORITY SECTION:\n\S+\s+5\s+IN\s+SOA/);
    }
  });

  test('services are listed as DNS-SD lists them, and lead to where they are', async () => {
    await waitFor(
      async () => (await ask(viewer, '_rtsp._tcp.camera.home.thicket', 'SRV')).answers[0] === 'SRV 0 0 554 camera.home.thicket.',
    );
    expect((await ask(viewer, '_mqtt._tcp.camera.home.thicket', 'SRV')).status).toBe('NXDOMAIN');
  });
});

describe("questions that don't come from this host get no answer", () => {
  const transports = ['+notcp', '+tcp'];

  /** Asks over UDP and TCP; at the server `count` tells that something came as far as to it. */
  async function expectSilence(from: Host, server: string, count: () => Promise<number>): Promise<void> {
    const before = await count();
    const answers = await Promise.all(transports.map((transport) => dig(from, server, ['camera.home.thicket', 'A', transport], 1)));
    for (const { status, text } of answers) expect({ status, text }).toEqual({ status: NO_ANSWER, text });
    expect(await count()).toBeGreaterThanOrEqual(before + transports.length);
  }

  const fenced = (): Promise<number> => dropped(gw.host, 'to the pool from elsewhere');
  const refused = async (): Promise<number> => Object.values((await gw.status()).drops).reduce((sum, count) => sum + count, 0);

  test('while this host does', async () => {
    for (const server of [DNS4, await dns6(gw)]) {
      for (const transport of transports) {
        expect(await dig(gw.host, server, ['camera.home.thicket', 'A', transport])).toMatchObject({ status: 'NOERROR' });
      }
    }
  });

  const linkLocal = async (host: Host, device: string): Promise<string> => {
    const { stdout } = await host.exec(['ip', '-6', '-o', 'addr', 'show', 'dev', device, 'scope', 'link']);
    const found = /inet6 (fe80:[0-9a-f:]+)/.exec(stdout)?.[1];
    expect(found).toBeDefined();
    return found ?? '';
  };

  test("from the gateway's LAN", async () => {
    const light = world.lab.host('light2');
    await light.exec(['ip', 'route', 'add', `${DNS4}/32`, 'via', '192.168.1.1']);
    await expectSilence(light, DNS4, fenced);
    const own = await dns6(gw);
    await light.exec(['sysctl', '-qw', 'net.ipv6.conf.lo.disable_ipv6=0', 'net.ipv6.conf.eth0.disable_ipv6=0']);
    await light.exec(['ip', '-6', 'addr', 'add', 'fd00:1::32/64', 'dev', 'eth0', 'nodad']);
    await gw.host.exec(['ip', '-6', 'addr', 'add', 'fd00:1::1/64', 'dev', 'lan0', 'nodad']);
    await light.exec(['ip', '-6', 'route', 'add', `${own}/128`, 'via', 'fd00:1::1']);
    await expectSilence(light, own, fenced);
  });

  test('from another host on the Internet, whose provider routes our pool to us', async () => {
    const stranger = world.lab.host('stranger');
    const inet = world.lab.host('inet');
    await inet.exec(['ip', 'route', 'add', `${DNS4}/32`, 'via', gw.host.address]);
    await expectSilence(stranger, DNS4, fenced);
    const own = await dns6(gw);
    await inet.exec(['ip', '-6', 'route', 'add', `${own}/128`, 'via', await linkLocal(gw.host, 'wan0'), 'dev', 'gw']);
    await expectSilence(inet, own, fenced);
  });

  test('from the overlay, by a node that has a session with it', async () => {
    for (const type of ['A', 'AAAA'] as const) {
      const at = await address(viewer, 'gw.home.thicket', type);
      expect((await viewer.json<{ received: number }>(['ping', 'gw.home.thicket', '-c', '1'])).received).toBe(1);
      await expectSilence(viewer.host, at, refused);
    }
  });
});

describe('a pool of a /29', () => {
  const NAMES = ['broker', 'files', 'light1', 'light2', 'camera'].map((name) => `${name}.home.thicket`);
  const OTHERS = ['lamp.home', 'camera.gw.home', 'files.gw.home', 'light1.gw.home', 'light2.gw.home', 'lamp.gw2.home'].map(
    (name) => `${name}.thicket`,
  );
  /** Whose an address is, and until when that may be cached somewhere. */
  const owners = new Map<string, { name: string; until: number }>();
  let busy: string;
  let subscriber: Process;

  /** Asks for a name; an address that was another's may be given only when nobody remembers that any more. */
  async function resolve(name: string): Promise<string | undefined> {
    const asked = performance.now();
    const { status, answers, ttl, text } = await ask(small, name, 'A');
    if (status === 'SERVFAIL') return undefined;
    expect({ status, ttl, text }).toEqual({ status: 'NOERROR', ttl: TTL / 1_000, text });
    const given = (answers[0] ?? '').slice('A '.length);
    const before = owners.get(given);
    if (before !== undefined && before.name !== name) {
      expect(performance.now()).toBeGreaterThan(before.until);
      expect(before.name).not.toBe(NAMES[0]);
    }
    // The answer was given somewhere between the question and now.
    owners.set(given, { name, until: asked + TTL });
    return given;
  }

  /** The addresses of all of them: each gets one in the end. */
  async function resolveAll(names: readonly string[]): Promise<string[]> {
    const all: string[] = [];
    for (const name of names)
      all.push(await waitFor(() => resolve(name), { timeoutMs: 5 * TTL, intervalMs: 100, what: `an address for ${name}` }));
    return all;
  }

  async function message(): Promise<void> {
    const text = `still there at ${performance.now()}`;
    const broker = world.lab.host('broker');
    await broker.exec(['mosquitto_pub', '-h', '192.168.1.21', '-t', 'dns', '-q', '1', '-m', text]);
    await subscriber.waitForLine(new RegExp(`^${text}$`));
    // What the broker sends again to a gateway that has stopped is answered by that host's own TCP, with a reset.
    const unacknowledged = async (): Promise<boolean> =>
      /^\d+ +[1-9]/m.test((await broker.exec(['ss', '-tnH', 'state', 'established', 'sport', '= :1883'])).stdout);
    await waitFor(async () => !(await unacknowledged()), { what: 'the acknowledgement' });
  }

  test('when it runs out the answer is SERVFAIL, and says why', async () => {
    for (const name of NAMES) expect(await resolve(name)).toMatch(/^198\.18\.0\.[2-6]$/);
    expect(owners.size).toBe(5);
    const { status, answers, text } = await ask(small, 'lamp.home.thicket', 'A');
    expect({ status, answers }).toEqual({ status: 'SERVFAIL', answers: [] });
    expect(text).toMatch(/EDE: .*the pool 198\.18\.0\.0\/29 has no address left/);
    // Those that have one keep it, and an unknown name is still an unknown name.
    expect(await address(small, NAMES[4] ?? '')).toMatch(/^198\.18\.0\.[2-6]$/);
    expect((await ask(small, 'nobody.home.thicket', 'A')).status).toBe('NXDOMAIN');
  });

  test('an address passes on after its TTL, but not while a connection is open, however idle', async () => {
    busy = (await resolve(NAMES[0] ?? '')) ?? '';
    subscriber = await small.host.spawn(['stdbuf', '-oL', 'mosquitto_sub', '-h', busy, '-t', 'dns', '-k', '3600', '-d']);
    await subscriber.waitForLine(/^Subscribed/);
    // It was used before all others, so it would be the first to go.
    for (const name of NAMES.slice(1)) await resolve(name);
    expect(await resolveAll(OTHERS)).not.toContain(busy);
    await message();
    expect(await resolve(NAMES[0] ?? '')).toBe(busy);
  }, 60_000);

  test('after kill -9 and start every name has the address that it had, and a connection from before keeps its own', async () => {
    const before = [...owners].map(([given, { name }]) => [name, given] as const);
    const six = await address(small, NAMES[0] ?? '', 'AAAA');
    await small.killHard();
    await small.start();
    // Whatever was cached before may still be.
    for (const owner of owners.values()) owner.until = performance.now();
    expect(before).toHaveLength(5);
    for (const [name, given] of before) expect([name, await resolve(name)]).toEqual([name, given]);
    expect(await address(small, NAMES[0] ?? '', 'AAAA')).toBe(six);
    const names = before.map(([name]) => name);
    expect(await resolveAll([...NAMES, ...OTHERS].filter((name) => !names.includes(name)))).not.toContain(busy);
    await message();
    expect(subscriber.running).toBe(true);
  }, 60_000);

  test('nor does it pass on when the session is over and the connection waits for another', async () => {
    await gw.stop();
    await waitFor(async () => (await small.status()).sessions.every(({ name }) => name !== 'broker'), { what: 'the end of the session' });
    expect(await resolveAll(['lamp.home.thicket', 'lamp.gw2.home.thicket', 'gw2.home.thicket', 'mid.home.thicket'])).not.toContain(busy);
    await gw.start();
    await world.settled();
    expect(await resolveAll([...NAMES.slice(1), ...OTHERS])).not.toContain(busy);
    expect(await resolve(NAMES[0] ?? '')).toBe(busy);
    await message();
  }, 60_000);

  test('once the connection has ended, its address is as good as any other', async () => {
    await subscriber.kill('SIGTERM');
    // What is unacknowledged when the node is killed would be sent again after its start, and take the address as its connection's.
    await waitFor(async () => !(await small.host.exec(['ss', '-tanH', 'dst', busy])).stdout.match(/^(?!TIME-WAIT)\S/m), {
      what: 'the last acknowledgement',
    });
    // Late packets of an ended connection may come for a minute, says the core, for two, says the kernel: they needn't be waited for here.
    await small.killHard();
    await small.host.exec(['conntrack', '-D', '-d', busy]);
    await small.start();
    for (const owner of owners.values()) owner.until = performance.now();
    owners.set(busy, { name: 'nobody', until: 0 });
    expect(await resolveAll([...NAMES.slice(1), ...OTHERS])).toContain(busy);
  }, 60_000);
});

describe("the system's resolver", () => {
  const getent = async (database: string, name: string): Promise<string> =>
    (await viewer.host.exec(['getent', database, name], { check: false })).stdout.replace(/\s+/g, ' ');

  async function expectBoth(): Promise<void> {
    expect(await getent('ahostsv4', 'camera.home.thicket')).toMatch(/^198\.1[89]\.\d+\.\d+ STREAM/);
    expect(await getent('ahostsv6', 'camera.home.thicket')).toMatch(/^fd[0-9a-f:]+ STREAM/);
    expect(await getent('hosts', await address(viewer, 'camera.home.thicket'))).toMatch(/ camera\.home\.thicket$/);
    expect(await getent('hosts', 'nobody.home.thicket')).toBe('');
    expect(await getent('ahostsv4', 'site.example')).toMatch(/^192\.0\.2\.80 STREAM/);
  }

  test('resolv.conf, Thicket before the site: glibc goes on after REFUSED, and c-ares does not', async () => {
    viewer.host.etc('resolv.conf', `nameserver ${world.siteDns}\n`);
    expect(await getent('ahostsv4', 'camera.home.thicket')).toBe('');
    const { stdout } = await viewer.thicket(['dns', 'install', '--how', 'resolv.conf']);
    expect(stdout).toMatch(/c-ares/);
    await expectBoth();

    // c-ares as Node.js has it, asked the same way.
    const script = `require('node:dns').resolve4(process.argv[1], (error, found) => console.log(error ? error.code : found.join()))`;
    const cares = async (name: string): Promise<string> => (await viewer.host.exec([process.execPath, '-e', script, name])).stdout;
    expect(await cares('camera.home.thicket')).toBe(await address(viewer, 'camera.home.thicket'));
    expect(await cares('site.example')).toBe('EREFUSED');

    await viewer.thicket(['dns', 'remove']);
    expect(await getent('ahostsv4', 'camera.home.thicket')).toBe('');
    expect(await getent('ahostsv4', 'site.example')).toMatch(/^192\.0\.2\.80 /);
  });

  test('dnsmasq, which dns install tells to send our names to Thicket: everybody gets everything', async () => {
    viewer.host.etc('resolv.conf', 'nameserver 127.0.0.1\n');
    const folder = viewer.host.path('dnsmasq.d');
    mkdirSync(folder);
    const lines = ['no-resolv', 'no-hosts', 'interface=lo', 'bind-interfaces', 'user=root', `server=${world.siteDns}`];
    const file = viewer.host.write('dnsmasq.conf', `${lines.join('\n')}\n`);
    const start = async (): Promise<Process> => {
      const dnsmasq = await viewer.host.spawn(['dnsmasq', '--no-daemon', '--pid-file=', '-C', file, `--conf-dir=${folder},*.conf`]);
      await dnsmasq.waitForLine(/started, version/);
      return dnsmasq;
    };
    let dnsmasq = await start();
    expect(await getent('ahostsv4', 'camera.home.thicket')).toBe('');
    await viewer.thicket(['dns', 'install', '--how', 'dnsmasq']);
    await dnsmasq.kill();
    dnsmasq = await start();
    await expectBoth();
    const script = `require('node:dns').resolve4(process.argv[1], (error, found) => console.log(error ? error.code : found.join()))`;
    for (const name of ['site.example', 'camera.home.thicket']) {
      expect((await viewer.host.exec([process.execPath, '-e', script, name])).stdout).toMatch(/^(192\.0\.2\.80|198\.1[89]\.[\d.]+)$/);
    }
    await viewer.thicket(['dns', 'remove']);
    expect(existsSync(`${folder}/thicket.conf`)).toBe(false);
    await dnsmasq.kill();
  });
});

describe('a tree out of reach is SERVFAIL, never NXDOMAIN', () => {
  const state = async (): Promise<StatusDocument['state']> => (await viewer.status()).state;

  /** All at once, as a browser asks; each within the time that resolvers wait. */
  async function expectFailures(...names: readonly string[]): Promise<void> {
    const said = await Promise.all(names.map((name) => dig(viewer.host, DNS4, [name], 5)));
    expect(said.map(({ status, answers }) => ({ status, answers }))).toEqual(names.map(() => ({ status: 'SERVFAIL', answers: [] })));
  }

  test('with the parent cut off from the root, whether it has noticed or not', async () => {
    const { services } = await gw.status();
    const far = services.find(({ name }) => name === 'light2')?.key ?? '';
    await world.node('root').killHard();
    await expectFailures('unheard-of.home.thicket', 'light1.home.thicket', `${KeyPair.generate().publicKey}.thicket`);
    await waitFor(async () => (await world.node('mid').status()).state === 'connecting', { timeoutMs: 20_000, what: 'mid to notice' });
    expect(await state()).toBe('up');
    await expectFailures('unknown.home.thicket', 'light1.home.thicket', `${far}.thicket`, `${KeyPair.generate().publicKey}.thicket`);
    // What is in reach still resolves.
    expect(await address(viewer, 'lamp.home.thicket')).toMatch(/^198\./);
  });

  test('with the parent down, whether this node has noticed or not', async () => {
    await world.node('mid').killHard();
    await expectFailures('not-heard-of.home.thicket', 'files.home.thicket', `${KeyPair.generate().publicKey}.thicket`);
    await waitFor(async () => (await state()) === 'connecting', { timeoutMs: 20_000, what: 'the viewer to notice' });
    await expectFailures('unasked.home.thicket', 'light1.home.thicket', 'lamp.home.thicket', `${KeyPair.generate().publicKey}.thicket`);
    // What needs no tree is told as ever.
    expect(await ask(viewer, 'site.example')).toMatchObject({ status: 'REFUSED' });
    expect(await address(viewer, 'viewer.home.thicket')).toBe(DNS4);
    await world.node('root').start();
    await world.node('mid').start();
    await waitFor(async () => (await ask(viewer, 'light1.home.thicket')).status === 'NOERROR', { timeoutMs: 20_000 });
    expect((await ask(viewer, 'nobody.home.thicket')).status).toBe('NXDOMAIN');
  });
});
