/**
 * Bad input: `thicket up` and `thicket check` say in one line what is wrong and what to do, and leave nothing behind on the host; a running node that
 * is told to reload it goes on as it was.
 */
import { chmodSync, copyFileSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { stringify } from 'yaml';
import type { StatusDocument } from '../../ts/control/documents.js';
import { decodeBundle, encodeBundle, NetworkFolder, type PublicKey, type SignedBundle, saveState } from '../../ts/trust/index.js';
import { type Host, repository, thicketProgram, waitFor } from '../lab/index.js';
import { type NetworkName, type NodeConfig, Pulse, switchLight, World, type WorldNode } from '../world/index.js';

/** A flow that doesn't notice has no longer pause than a busy machine explains. */
const PAUSE = 1_500;
const LINES = join(repository, 'test', 'fixtures', 'lines.py');

let world: World;
/** Enrolled, with an endpoint, and never up: what it leaves behind would be seen. */
let node: WorldNode;
let host: Host;
/** Contents of `certificate.json`. */
const certificates: Record<'good' | 'otherKey' | 'expired' | 'otherNetwork' | 'forged', string> = {
  good: '',
  otherKey: '',
  expired: '',
  otherNetwork: '',
  forged: '',
};

beforeAll(async () => {
  world = await World.create({
    nodes: ['root', 'gw', 'gw2', 'viewer', 'stranger'],
    idle: ['gw2', 'stranger'],
    configure: (name, config) => {
      const lines = { name: 'lines', services: [{ port: 'tcp/7', target: '192.168.1.31:7', allow: ['group:family'] }] };
      const forwards = [{ listen: '127.0.0.1:8007', to: 'lines.gw.home.thicket:7' }];
      if (name === 'viewer') return { ...config, forwards };
      return name === 'gw' ? { ...config, endpoints: [...(config.endpoints ?? []), lines] } : config;
    },
  });
  node = world.node('gw2');
  host = node.host;
  makeCertificates();
}, 120_000);

afterAll(async () => {
  await world?.destroy();
}, 30_000);

const certificateFile = (of: WorldNode): string => join(of.host.state, 'certificate.json');

function makeCertificates(): void {
  const gw = world.node('gw');
  certificates.good = readFileSync(certificateFile(gw), 'utf8');
  certificates.otherKey = readFileSync(certificateFile(node), 'utf8');
  const home = decodeBundle(readFileSync(join(world.owner().folder, '..', 'home-gw.certificate'), 'utf8'));
  const now = Math.floor(Date.now() / 1_000);
  const sign = (network: NetworkName, expiresInSeconds: number): SignedBundle =>
    NetworkFolder.open(world.owner(network).folder).sign(gw.key as PublicKey, { name: 'gw', rights: ['gateway'], expiresInSeconds, now });
  certificates.expired = stored(sign('home', 1));
  // Somebody else's network signed these, and they are passed off as ours.
  const strange = sign('strange', 3_600);
  certificates.otherNetwork = stored({ ...strange, network: home.network });
  certificates.forged = stored({ ...home, certificate: Buffer.concat([home.certificate.slice(0, -64), strange.certificate.slice(-64)]) });
}

/** As a node keeps it. */
function stored(bundle: SignedBundle): string {
  const file = world.lab.host('inet').path('certificate.json');
  saveState(file, { bundle: encodeBundle(bundle) });
  return readFileSync(file, 'utf8');
}

/** Runs `thicket ARGS`, which must end with code 1 and one line; returns that. */
async function refusal(args: readonly string[], wrapper: readonly string[] = []): Promise<string> {
  const argv = [...wrapper, process.execPath, thicketProgram, ...args];
  const { code, signal, stdout, stderr } = await host.exec(argv, { check: false, env: { THICKET_STATE: host.state } });
  expect({ code, signal, stdout, stderr }).toEqual({
    code: 1,
    signal: null,
    stdout: '',
    stderr: expect.stringMatching(/^thicket: [^\n]+$/),
  });
  return stderr.slice('thicket: '.length);
}

const up = (): string[] => ['up', '--config', node.configFile];
const check = (): string[] => ['check', '--config', node.configFile];

/** What is wrong with a configuration, and what is said of it. Its last lines stand for those of a user's file. */
interface BadConfig {
  readonly what: string;
  readonly more: readonly string[];
  /** Of the line behind the sound part that is named, counted from 1. */
  readonly line: number;
  readonly says: RegExp;
}

const BAD_CONFIGS: readonly BadConfig[] = [
  { what: 'an unknown key', more: ['listne: []'], line: 1, says: /^unknown key "listne": see thicket config example$/ },
  { what: 'an unknown key inside', more: ['log:', '  levle: debug'], line: 2, says: /^unknown key "log\.levle": see / },
  {
    what: 'a bad CIDR',
    more: ['interface:', '  ipv4: 198.18.0.0/33'],
    line: 2,
    says: /^interface\.ipv4: "198\.18\.0\.0\/33" is not a CIDR: use /,
  },
  { what: 'port 70000', more: ['dns:', '  port: 70000'], line: 2, says: /^dns\.port: .*65535/ },
  {
    what: 'port 70000 of a target',
    more: ['endpoints:', '  - name: bad', '    services:', '      - port: tcp/80', '        target: 192.168.2.31:70000'],
    line: 5,
    says: /^endpoints\.0\.services\.0\.target: "70000" is not a port: use a number from 1 to 65535$/,
  },
  {
    what: 'a missing target',
    more: ['endpoints:', '  - name: bad', '    services:', '      - port: tcp/80'],
    line: 4,
    says: /^endpoints\.0\.services\.0\.target is missing: see thicket config example$/,
  },
];

/** A node's sound configuration without what the bad part replaces. */
function soundPart(config: NodeConfig): string {
  const { endpoints: _, interface: __, dns: ___, log: ____, ...rest } = config;
  return stringify(rest);
}

function writeBad(of: WorldNode, config: NodeConfig, { more }: BadConfig): number {
  const sound = soundPart(config);
  of.host.write('thicket.yaml', `${sound}${more.join('\n')}\n`);
  return sound.split('\n').length - 1;
}

describe('up and check', () => {
  let before: string;
  let state: string[];

  beforeAll(async () => {
    // The kernel gives interfaces their link-local addresses and those their routes by and by.
    const settled = async (name: string): Promise<boolean> => {
      const { stdout } = await host.exec(['ip', '-6', 'route', 'show', 'table', 'all', 'dev', name]);
      return /^local fe80:/m.test(stdout) && /^fe80::\/64/m.test(stdout);
    };
    await waitFor(async () => (await settled('wan0')) && (await settled('lan0')), { what: 'link-local addresses' });
    before = await host.snapshot();
    state = readdirSync(host.state).sort();
  });

  afterEach(async () => {
    node.setConfig(node.config);
    await host.killAll();
    expect(await host.snapshot()).toBe(before);
    // A start makes files of its own and keeps them; it leaves no socket and nothing half-written.
    expect(readdirSync(host.state).filter((name) => /sock|tmp/.test(name))).toEqual([]);
  });

  test.each(BAD_CONFIGS)('$what: its file and line', async (bad) => {
    const from = writeBad(node, node.config, bad);
    for (const line of await Promise.all([refusal(up()), refusal(check())])) {
      const place = `${node.configFile}:${from + bad.line}: `;
      expect(line.slice(0, place.length)).toBe(place);
      expect(line.slice(place.length)).toMatch(bad.says);
    }
    expect(readdirSync(host.state).sort()).toEqual(state);
  });

  test('a key file that others can read', async () => {
    const file = join(host.state, 'node.key');
    chmodSync(file, 0o644);
    for (const line of await Promise.all([refusal(up()), refusal(check())]))
      expect(line).toBe(`${file} can be read by others: chmod 600 ${file}`);
    chmodSync(file, 0o600);
  });

  test('a certificate for another key, an expired one, and two that our network never signed', async () => {
    const gateway = world.node('gw');
    const own = readFileSync(certificateFile(node));
    const seed = readFileSync(join(host.state, 'node.key'));
    const expectRefusal = async (certificate: keyof typeof certificates, says: RegExp | string): Promise<void> => {
      writeFileSync(certificateFile(node), certificates[certificate]);
      for (const line of await Promise.all([refusal(up()), refusal(check())])) {
        expect(line).toEqual(says instanceof RegExp ? expect.stringMatching(says) : says);
      }
    };
    await expectRefusal('good', `the certificate is for ${gateway.key}, this node is ${node.key}: sign this node's request`);
    // The others are for the first gateway's key.
    copyFileSync(join(gateway.host.state, 'node.key'), join(host.state, 'node.key'));
    writeFileSync(certificateFile(node), certificates.expired);
    await waitFor(async () => (await host.thicket(check(), { check: false })).code === 1, { what: 'the end of the certificate' });
    await expectRefusal('expired', 'the certificate has expired: sign a new one with thicket network sign');
    await expectRefusal('otherNetwork', /^the certificate is signed by another network than it claims: /);
    await expectRefusal('forged', /^the certificate is damaged \(.*\): /);
    writeFileSync(join(host.state, 'node.key'), seed);
    writeFileSync(certificateFile(node), own);
  });

  test('a state directory that is not writable', async () => {
    const mount = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"';
    const wrapper = ['unshare', '-m', 'sh', '-c', mount, host.state];
    for (const line of await Promise.all([refusal(up(), wrapper), refusal(check(), wrapper)])) {
      expect(line).toBe(`${host.state} is not writable: check its owner, or choose another with --state`);
    }
  });

  describe('what only a start can find', () => {
    const occupy = async (protocol: 'udp' | 'tcp', address: string, port: number): Promise<void> => {
      const other = await host.spawn(['/usr/bin/python3', LINES, 'serve', address, String(port), protocol]);
      await other.waitForLine(/^ready$/);
    };

    test('a port in use: that of the links', async () => {
      await occupy('udp', '0.0.0.0', 7117);
      node.host.write('thicket.yaml', stringify({ ...node.config, listen: ['udp://0.0.0.0:7117'], allow_unrelayed: true }));
      expect(await refusal(up())).toMatch(/7117.*: stop what listens there, or change listen$/);
    });

    test('a port in use: that of the DNS server', async () => {
      await occupy('udp', '0.0.0.0', 53);
      expect(await refusal(up())).toMatch(/^DNS can't listen on 198\.18\.0\.1:53, another program has it: /);
    });

    test('a port in use: that of a forward', async () => {
      await occupy('tcp', '127.0.0.1', 8554);
      node.host.write(
        'thicket.yaml',
        stringify({ ...node.config, forwards: [{ listen: '127.0.0.1:8554', to: 'camera.home.thicket:554' }] }),
      );
      expect(await refusal(up())).toMatch(/^forward 127\.0\.0\.1:8554 can't listen \(.*EADDRINUSE.*\): choose another address$/);
    });

    describe.each([
      [
        'no /dev/net/tun',
        ['unshare', '-m', 'sh', '-c', 'mount -t tmpfs none /dev/net && exec "$@"', 'sh'],
        /^\/dev\/net\/tun is missing: load the tun module or give the container the device$/,
      ],
      [
        'something else in its place',
        ['unshare', '-m', 'sh', '-c', 'mount --bind /dev/null /dev/net/tun && exec "$@"', 'sh'],
        /^interface thicket0 can't be made \(.*\): check that \/dev\/net\/tun is /,
      ],
      ['no CAP_NET_ADMIN', ['setpriv', '--bounding-set', '-net_admin', '--inh-caps', '-net_admin'], /: run as root or with CAP_NET_ADMIN$/],
      [
        'no libnftables',
        ['unshare', '-m', 'sh', '-c', 'for f in /usr/lib/*/libnftables.so.1; do mount --bind /dev/null $f || exit; done; exec "$@"', 'sh'],
        /^libnftables\.so\.1 is missing: install the package libnftables1/,
      ],
    ] as const)('%s', (_, wrapper, says) => {
      test('for a node that must have an interface', async () => {
        host.write('thicket.yaml', stringify({ ...node.config, interface: { mode: 'tun' } }));
        expect(await refusal(up(), wrapper)).toMatch(says);
      });

      test('and one that need not have one goes on without, says why, and leaves the host as it is', async () => {
        await node.start({ under: wrapper });
        expect(await node.status()).toMatchObject({ mode: 'userspace', modeReason: expect.stringMatching(says), interface: null });
        expect(await host.snapshot()).toBe(before);
        expect(await node.stop()).toEqual({ code: 0, signal: null });
      });
    });

    test.each([
      ['-4', '198.18.0.0/15 via 203.0.113.25'],
      ['-4', '198.19.3.0/24 dev lan0'],
    ])('the pool routed already: ip %s route add %s', async (family, route) => {
      await host.exec(['ip', family, 'route', 'add', ...route.split(' ')]);
      const line = await refusal(up());
      await host.exec(['ip', family, 'route', 'del', ...route.split(' ')]);
      expect(line).toMatch(/^the pool 198\.18\.0\.0\/15 is in use already \(.*(wan0|lan0)\): choose another with interface\.ipv4$/);
    });

    test('an endpoint that leads into the gateway itself', async () => {
      node.host.write(
        'thicket.yaml',
        stringify({ ...node.config, endpoints: [{ name: 'self', services: [{ port: 'tcp/22', target: '192.168.2.1:22' }] }] }),
      );
      expect(await refusal(up())).toMatch(
        /^self: the target 192\.168\.2\.1 is this gateway's own address: choose a device on the LAN, or say force$/,
      );
    });
  });

  test('and with good input it comes up', async () => {
    expect((await host.thicket(check())).stdout).toBe('ok');
    await node.start();
    expect(await host.snapshot()).not.toBe(before);
    expect(await node.stop()).toEqual({ code: 0, signal: null });
  });
});

describe('reload', () => {
  let gw: WorldNode;
  let viewer: WorldNode;
  let flow: Pulse;
  let forwarded: Pulse;

  beforeAll(async () => {
    gw = world.node('gw');
    viewer = world.node('viewer');
    const server = await world.lab.host('light1').spawn(['/usr/bin/python3', LINES, 'serve', '0.0.0.0', '7', 'tcp']);
    await server.waitForLine(/^ready$/);
    const send = async (address: string, port: string): Promise<Pulse> => {
      const pulse = new Pulse(await viewer.host.spawn(['/usr/bin/python3', '-u', LINES, 'send', address, port, 'tcp']));
      await pulse.process.waitForLine(/^echo 3$/);
      return pulse;
    };
    flow = await send(await viewer.lookup('lines.gw.home.thicket', 4), '7');
    forwarded = await send('127.0.0.1', '8007');
  }, 30_000);

  afterAll(() => {
    flow?.end();
    forwarded?.end();
  });

  /** Ports that are open there, without what waits in their queues. */
  async function listening(at: Host): Promise<string[]> {
    const { stdout } = await at.exec(['ss', '-tulnH']);
    const columns = stdout.split('\n').map((line) => line.split(/\s+/));
    return columns.map(([protocol, , , , address]) => `${protocol} ${address}`).sort();
  }

  /** What doesn't change by itself while a node runs. */
  async function standing(of: WorldNode): Promise<unknown> {
    const { sessions, links, services, ...status } = await of.status();
    const { ledger: _, relay: __, trains: ___, drops: ____, refused: _____, ...rest } = status satisfies Partial<StatusDocument>;
    return {
      ...rest,
      links: links.map(({ key, role, state }) => ({ key, role, state })),
      sessions: sessions.map(({ key, own, name, state, addresses, offered, allowed }) => ({
        key,
        own,
        name,
        state,
        addresses,
        offered,
        allowed,
      })),
      services: services.map(({ payloadBytes: _p, overheadBytes: _o, state, ...service }) => ({ ...service, off: state === 'off' })),
      host: (await of.host.snapshot()).replace(/ expires [\dmsh]+/g, ''),
      listening: await listening(of.host),
    };
  }

  /** By the command and by SIGHUP: one line each, and nothing else happens. */
  async function expectUnchanged(of: WorldNode, says: RegExp, prepare: () => void): Promise<void> {
    const before = await standing(of);
    const oldest = (await of.status()).sessions.map(({ ageSeconds }) => ageSeconds);
    const { pid } = of.process;
    prepare();
    flow.forget();
    forwarded.forget();
    const { code, stdout, stderr } = await of.thicket(['reload'], { check: false });
    expect({ code, stdout, stderr }).toEqual({ code: 1, stdout: '', stderr: expect.stringMatching(/^thicket: [^\n]+$/) });
    const reason = stderr.slice('thicket: '.length);
    expect(reason).toMatch(says);
    const logged = of.process.stderr.length;
    of.process.signal('SIGHUP');
    await waitFor(() => of.process.stderr.length > logged, { what: 'an answer to SIGHUP' });
    // It is done with the signal when it answers; whatever else it would say it has said.
    expect(await standing(of)).toEqual(before);
    expect(of.process.stderr.slice(logged)).toEqual([`thicket: not reloaded, the running configuration stays: ${reason}`]);
    expect({ running: of.running, pid: of.process.pid }).toEqual({ running: true, pid });
    const ages = (await of.status()).sessions.map(({ ageSeconds }) => ageSeconds);
    for (const [index, age] of oldest.entries()) expect(ages[index]).toBeGreaterThanOrEqual(age);
    expect(flow.longestPause()).toBeLessThan(PAUSE);
    expect(forwarded.longestPause()).toBeLessThan(PAUSE);
  }

  test.each(BAD_CONFIGS)('$what', async (bad) => {
    for (const one of [gw, viewer]) {
      await expectUnchanged(one, new RegExp(`^${one.configFile}:\\d+: `), () => writeBad(one, one.config, bad));
      one.setConfig(one.config);
    }
  });

  test('a configuration that is gone', async () => {
    await expectUnchanged(gw, /thicket\.yaml can't be read /, () => rmSync(gw.configFile));
    gw.setConfig(gw.config);
  });

  test.each([
    ['a certificate for another key', 'otherKey', /^the certificate is for /],
    ['an expired certificate', 'expired', /^the certificate has expired: /],
    ['a certificate of another network than it claims', 'otherNetwork', /^the certificate is signed by another network /],
    ["a certificate with a signature that is not the network's", 'forged', /^the certificate is damaged /],
  ] as const)('%s', async (_, certificate, says) => {
    await expectUnchanged(gw, says, () => writeFileSync(certificateFile(gw), certificates[certificate]));
    writeFileSync(certificateFile(gw), certificates.good);
  });

  test('a certificate file that others can read', async () => {
    await expectUnchanged(gw, /certificate\.json can be read by others: chmod 600 /, () => chmodSync(certificateFile(gw), 0o640));
    chmodSync(certificateFile(gw), 0o600);
  });

  test('an endpoint in a group that it may not give, and a target on the gateway itself, beside other changes that would be good', async () => {
    const light = (more: object, target = '192.168.1.32:80'): NodeConfig => ({
      ...gw.config,
      // Nobody may reach anything any more, were it not for the mistake.
      forwards: [{ listen: '127.0.0.1:8556', to: 'lamp.home.thicket:80' }],
      endpoints: [
        { name: 'lines', services: [{ port: 'tcp/7', target: '192.168.1.31:7' }] },
        { name: 'fresh', ...more, services: [{ port: 'tcp/80', target }] },
      ],
    });
    const write = (config: NodeConfig) => (): void => writeFileSync(gw.configFile, stringify(config));
    await expectUnchanged(
      gw,
      /^endpoint fresh can't be in group staff: sign this gateway with --delegate staff$/,
      write(light({ groups: ['staff'] })),
    );
    await expectUnchanged(gw, /^fresh: the target 127\.0\.0\.1 is a loopback address: /, write(light({}, '127.0.0.1:80')));
    gw.setConfig(gw.config);
  });

  test("an endpoint whose key can't be written", async () => {
    const away = `${gw.host.state}.away`;
    const config = {
      ...gw.config,
      endpoints: [...(gw.config.endpoints ?? []), { name: 'fresh', services: [{ port: 'tcp/80', target: '192.168.1.32:80' }] }],
    };
    // A folder in the file's place can't be replaced by it.
    const file = join(gw.host.state, 'endpoints.json');
    await expectUnchanged(gw, /endpoints\.json can't be (read|written) \(.*\): /, () => {
      renameSync(file, away);
      mkdirSync(file, { mode: 0o700 });
      writeFileSync(gw.configFile, stringify(config));
    });
    rmSync(file, { recursive: true });
    renameSync(away, file);
    gw.setConfig(gw.config);
  });

  test('a forward to a port in use: the others stay open, and so do their connections', async () => {
    const other = await viewer.host.spawn(['/usr/bin/python3', LINES, 'serve', '127.0.0.1', '8554', 'tcp']);
    await other.waitForLine(/^ready$/);
    const wanted = [
      { listen: '127.0.0.1:8555', to: 'camera.home.thicket:554' },
      // In the place of the one that stands.
      { listen: '0.0.0.0:8007', to: 'lines.gw.home.thicket:7' },
      { listen: '127.0.0.1:8554', to: 'camera.home.thicket:554' },
    ];
    await expectUnchanged(viewer, /^forward 127\.0\.0\.1:8554 can't listen \(.*EADDRINUSE.*\): /, () =>
      writeFileSync(viewer.configFile, stringify({ ...viewer.config, forwards: wanted })),
    );
    await other.kill('SIGKILL');
    viewer.setConfig(viewer.config);
  });

  test('and a good one is applied', async () => {
    viewer.setConfig({
      ...viewer.config,
      forwards: [...(viewer.config.forwards ?? []), { listen: '127.0.0.1:8555', to: 'light2.home.thicket:80' }],
    });
    expect((await viewer.thicket(['reload'])).stdout).toBe('reloaded');
    expect(await switchLight(viewer.host, 'http://127.0.0.1:8555/light', true)).toBe(true);
    expect(forwarded.longestPause()).toBeLessThan(PAUSE);
    viewer.setConfig({ ...viewer.config, forwards: [{ listen: '0.0.0.0:8555', to: 'light1.home.thicket:80' }] });
    expect((await viewer.thicket(['reload'])).stdout).toBe('reloaded');
    expect(await switchLight(viewer.host, `http://${viewer.host.address}:8555/light`, true)).toBe(true);
    gw.setConfig({ ...gw.config, endpoints: (gw.config.endpoints ?? []).filter(({ name }) => name === 'lines') });
    expect((await gw.thicket(['reload'])).stdout).toBe('reloaded');
    expect((await gw.status()).services.map(({ name }) => name)).toEqual(['lines']);
    expect(flow.longestPause()).toBeLessThan(PAUSE);
  });
});
