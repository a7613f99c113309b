/** `thicket up` of one node in a namespace of its own: what it says, how it ends, what it refuses; and that its private key is told nobody. */
import { appendFileSync, chmodSync, existsSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join as path } from 'node:path';
import { jest } from '@jest/globals';
import { encodeBundle, NetworkFolder, NodeStore, saveState } from '../../ts/trust/index.js';
import { secretForms } from '../cli/index.js';
import { type Host, Lab, type Process, repository, thicketProgram, waitFor } from '../lab/index.js';

jest.setTimeout(60_000);

const LISTEN = 'listen: ["udp://127.0.0.1:7117"]\n';

let lab: Lab;
let host: Host;
let key: string;

beforeAll(async () => {
  lab = await Lab.create();
  host = lab.host('root');
});

afterAll(() => lab.destroy());

beforeEach(async () => {
  rmSync(host.state, { recursive: true, force: true });
  rmSync(host.path('network'), { recursive: true, force: true });
  key = (await host.thicket(['node', 'init'])).stdout.trim();
  configure(LISTEN);
});

afterEach(() => host.killAll());

const configure = (text: string): string => host.write('thicket.yaml', text);

async function up(...more: string[]): Promise<Process> {
  const node = await host.spawnThicket(['up', '--config', host.path('thicket.yaml'), ...more]);
  await node.waitForLine(/^up as /);
  return node;
}

/** `thicket up` must end with code 1 and this one line. */
async function refusal(
  argv: readonly string[] = [process.execPath, thicketProgram, 'up', '--config', host.path('thicket.yaml')],
): Promise<string> {
  const { code, stdout, stderr } = await host.exec(argv, { check: false, env: { THICKET_STATE: host.state } });
  expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
  expect(stderr).toMatch(/^thicket: [^\n]+: [^\n]+$/);
  return stderr.slice('thicket: '.length);
}

function join(store: NodeStore, expiresInSeconds = 86_400, now = Math.floor(Date.now() / 1_000)): string {
  const folder = host.path('network');
  const network = existsSync(folder) ? NetworkFolder.open(folder) : NetworkFolder.create(folder, 'home');
  return encodeBundle(network.sign(store.pair.publicKey, { name: 'n', expiresInSeconds, now }));
}

describe('a node', () => {
  test('as a relay it keeps out of memory what only a gateway or a terminal needs', async () => {
    const list = host.write('loaded', '');
    const imports = path(repository, 'test', 'fixtures', 'loaded.mjs');
    const argv = [process.execPath, '--import', imports, thicketProgram, 'up', '--config', host.path('thicket.yaml')];
    const node = await host.spawn(argv, { env: { THICKET_STATE: host.state, LOADED: list } });
    await node.waitForLine(/^up as /);
    await host.thicket(['status']);
    const files = readFileSync(list, 'utf8').match(/(?<=file:\/\/).*\/dist\/.*\.js$/gm) ?? [];
    const sources = files.flatMap((file) => (JSON.parse(readFileSync(`${file}.map`, 'utf8')) as { sources: string[] }).sources);
    const loaded = new Set(sources.map((source) => /\/node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(source)?.[1]).filter(Boolean));
    // Those that a node can't do without; another is another megabyte or more on every relay.
    expect([...loaded].sort()).toEqual([
      '@leichtgewicht/ip-codec',
      '@pinojs/redact',
      '@scure/base',
      'atomic-sleep',
      'cborg',
      'commander',
      'dns-packet',
      'ipaddr.js',
      'libsodium',
      'libsodium-wrappers',
      'on-exit-leak-free',
      'pino',
      'pino-std-serializers',
      'quick-format-unescaped',
      'safe-stable-stringify',
      'sonic-boom',
      'thread-stream',
      'yaml',
      'zod',
    ]);
    const maps = readFileSync(`/proc/${node.pid}/maps`, 'utf8');
    expect(maps).toContain('thicket_addon.node');
    expect(maps).not.toMatch(/thicket_kernel\.node|libnftables/);
  });

  /** A node's threads: what they are called, and how nice they are. */
  const threads = (pid: number): readonly { readonly name: string | undefined; readonly nice: number; readonly main: boolean }[] =>
    readdirSync(`/proc/${pid}/task`).map((task) => {
      // The name, which may hold spaces, stands in brackets; the 19th field is the 17th behind it.
      const [name, fields] = readFileSync(`/proc/${pid}/task/${task}/stat`, 'utf8')
        .split(/^\d+ \(|\) /)
        .slice(1);
      return { name, nice: Number(fields?.split(' ')[16]), main: task === String(pid) };
    });

  test('puts its own decisions before the packets of its workers, of whom it has as many as it is told', async () => {
    configure(`${LISTEN}interface: { threads: 3 }\n`);
    const node = await up();
    const all = threads(node.pid);
    expect(all.filter(({ main }) => main).map(({ nice }) => nice)).toEqual([-5]);
    expect(all.filter(({ name }) => name === 'thicket-worker').map(({ nice }) => nice)).toEqual([0, 0, 0]);
  });

  test('has one worker for one processor', async () => {
    const argv = ['taskset', '-c', '0', process.execPath, thicketProgram, 'up', '--config', host.path('thicket.yaml')];
    const node = await host.spawn(argv, { env: { THICKET_STATE: host.state } });
    await node.waitForLine(/^up as /);
    expect(threads(node.pid).filter(({ name }) => name === 'thicket-worker')).toHaveLength(1);
  });

  test('says who it is when it is up, answers the CLI, and leaves the host as it was at SIGTERM', async () => {
    const before = await host.snapshot();
    const node = await up();
    expect(node.stdout).toEqual([`up as ${key}`]);
    expect(await host.thicketJson<{ node: object }>(['status'])).toMatchObject({ state: 'up', node: { key, name: null, network: null } });
    expect((await host.thicket(['status'])).stdout).toContain(`key       ${key}`);
    expect(await node.kill('SIGTERM')).toEqual({ code: 0, signal: null });
    expect(existsSync(host.path('state/control.sock'))).toBe(false);
    expect(await host.snapshot()).toBe(before);
  });

  test('keeps the running configuration when SIGHUP or reload meets a bad one, with one line', async () => {
    const node = await up();
    configure(`${LISTEN}sesion: {}\n`);
    node.signal('SIGHUP');
    await node.waitForLine(
      /^thicket: not reloaded, the running configuration stays: .*thicket\.yaml:2: unknown key "sesion": see thicket config example$/,
    );
    const reload = await host.thicket(['reload'], { check: false });
    expect(reload).toMatchObject({ code: 1, stdout: '' });
    expect(reload.stderr).toMatch(/^thicket: \S*thicket\.yaml:2: unknown key "sesion": [^\n]+$/);
    expect(node.running).toBe(true);
  });

  test('says of every reload what still needs a restart, and goes on reporting what it runs with', async () => {
    await up();
    const unrelayed = async (): Promise<unknown> => (await host.thicketJson<{ allowUnrelayed: unknown }>(['status'])).allowUnrelayed;
    configure(`${LISTEN}allow_unrelayed: true\ndns: { ttl: 30s }\nsession: { rekey: 60s }\n`);
    for (let time = 0; time < 2; time += 1) {
      expect((await host.thicket(['reload'])).stdout).toBe('reloaded, but for allow_unrelayed, dns: restart the node to apply that');
      expect(await unrelayed()).toBe(false);
    }
    configure(LISTEN);
    expect((await host.thicket(['reload'])).stdout).toBe('reloaded');
  });

  test('tells its private key to nobody: not in documents, its log, its arguments or its environment', async () => {
    const store = NodeStore.open(host.state);
    store.join(join(store), Math.floor(Date.now() / 1_000));
    configure(`${LISTEN}log: { level: debug }\n`);
    const node = await up();
    const told: Buffer[] = [];
    for (const command of ['status', 'tree', 'routes', 'sessions', 'services']) {
      for (const args of [[command], [command, '--json']]) told.push(Buffer.from((await host.thicket(args)).stdout));
    }
    told.push(Buffer.from((await host.thicket(['trust', 'list'])).stdout));
    for (const file of ['cmdline', 'environ']) told.push(readFileSync(`/proc/${node.pid}/${file}`));
    await node.kill('SIGTERM');
    told.push(Buffer.from([...node.stdout, ...node.stderr].join('\n')));
    const all = Buffer.concat(told);
    expect(all.includes(key)).toBe(true);
    for (const form of secretForms(store.pair.exportSeed())) expect(all.includes(form)).toBe(false);
    const secret = Buffer.from(/\.([a-z2-7]{26})/.exec(readFileSync(host.path('state/certificate.json'), 'utf8'))?.[1] ?? 'none');
    expect(secret).toHaveLength(26);
    expect(all.includes(secret)).toBe(false);
  });
});

describe('refused with one line and code 1', () => {
  test('a second node on the same state, and the first goes on', async () => {
    const node = await up();
    expect(await refusal()).toMatch(/control\.sock already: stop it first$/);
    expect(node.running).toBe(true);
    expect((await host.thicket(['status'])).stdout).toContain(key);
  });

  test('a port in use', async () => {
    const script = "require('node:dgram').createSocket('udp4').bind(7117, '127.0.0.1', () => console.log('bound'))";
    const other = await host.spawn([process.execPath, '-e', script]);
    await other.waitForLine(/^bound$/);
    expect(await refusal()).toMatch(/7117/);
    await other.kill('SIGKILL');
    await up();
  });

  test('a bad configuration, with its line', async () => {
    configure(`${LISTEN}\nlisten: []\n`);
    expect(await refusal()).toMatch(/thicket\.yaml:3: /);
    configure('listen: ["udp://127.0.0.1:70000"]\n');
    expect(await refusal()).toMatch(/thicket\.yaml:1: listen\.0: "70000" is not a port: /);
    rmSync(host.path('thicket.yaml'));
    expect(await refusal()).toMatch(/thicket\.yaml can't be read /);
  });

  test('no key, a laxly readable one, a damaged one', async () => {
    const file = host.path('state/node.key');
    chmodSync(file, 0o644);
    expect(await refusal()).toMatch(/node\.key can be read by others: chmod 600 /);
    chmodSync(file, 0o600);
    appendFileSync(file, ' ');
    expect(await refusal()).toMatch(/node\.key is damaged: /);
    rmSync(file);
    expect(await refusal()).toMatch(/has no node key: run thicket node init$/);
  });

  test('a certificate for another key, an expired one, one of another network than it claims', async () => {
    const certificate = host.path('state/certificate.json');
    const store = NodeStore.open(host.state);
    const now = Math.floor(Date.now() / 1_000);
    const other = NodeStore.init(host.path('other'));
    saveState(certificate, { bundle: join(other) });
    expect(await refusal()).toBe(`the certificate is for ${other.pair.publicKey}, this node is ${key}: sign this node's request`);
    rmSync(host.path('other'), { recursive: true });
    rmSync(host.path('network'), { recursive: true });

    saveState(certificate, { bundle: join(store, 60, now - 3_600) });
    expect(await refusal()).toBe('the certificate has expired: sign a new one with thicket network sign');

    const bundle = JSON.parse(join(store)) as { network: string };
    const third = NetworkFolder.create(host.path('third'), 'third').ref.key;
    saveState(certificate, { bundle: JSON.stringify({ ...bundle, network: third }) });
    expect(await refusal()).toMatch(/^the certificate is signed by another network than it claims: /);
    rmSync(host.path('third'), { recursive: true });
  });

  test('a state directory that is a file, or mounted read-only', async () => {
    const mount = `mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"`;
    const node = [process.execPath, thicketProgram, 'up', '--config', host.path('thicket.yaml')];
    expect(await refusal(['unshare', '-m', 'sh', '-c', mount, host.state, ...node])).toMatch(
      /(is not writable|can't be (written|made) ).*: \S/,
    );
    renameSync(host.state, host.path('old'));
    writeFileSync(host.state, '');
    expect(await refusal()).toMatch(/state can't be made \(.*\): choose another with --state$/);
    rmSync(host.state);
    rmSync(host.path('old'), { recursive: true });
  });
});

test('SIGTERM while it starts stops it once it is up', async () => {
  const node = await host.spawnThicket(['up', '--config', host.path('thicket.yaml')]);
  await waitFor(() => existsSync(host.path('state/control.sock')) || !node.running, { intervalMs: 1 });
  node.signal('SIGTERM');
  expect(await node.exit).toEqual({ code: 0, signal: null });
});
