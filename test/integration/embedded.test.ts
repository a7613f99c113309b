/** A node inside another program (`import { Node } from 'thicket'`): it dials, resolves and answers, without an interface or privileges. */
import { join } from 'node:path';
import { type FileServer, type Process, repository, startFiles, waitFor } from '../lab/index.js';
import { type NodeConfig, World, type WorldNode } from '../world/index.js';

const PROGRAM = join(repository, 'test', 'fixtures', 'embedded.mjs');
const LINES = join(repository, 'test', 'fixtures', 'lines.py');

let world: World;
let files: FileServer;
/** Who embeds the node: enrolled, but never started as a program of its own. */
let host: WorldNode;
let viewer: WorldNode;

beforeAll(async () => {
  const service = (port: string): { port: string; target: string; allow: string[] } => {
    return { port, target: `192.168.1.22:${port.split('/')[1]}`, allow: ['group:family'] };
  };
  world = await World.create({
    nodes: ['root', 'gw', 'viewer', 'viewer2'],
    idle: ['viewer2'],
    devices: false,
    configure: (name, config) =>
      name === 'gw' ? { ...config, endpoints: [{ name: 'files', services: ['tcp/7', 'tcp/80', 'tcp/81'].map(service) }] } : config,
    plan: (name, plan) => (name === 'viewer2' ? { ...plan, rights: ['gateway'], grants: ['door'] } : plan),
  });
  files = await startFiles(world.lab);
  const echo = await world.lab.host('files').spawn(['/usr/bin/python3', LINES, 'serve', '192.168.1.22', '7', 'tcp']);
  await echo.waitForLine(/^ready$/);
  host = world.node('viewer2');
  viewer = world.node('viewer');
}, 120_000);

afterAll(async () => {
  await world?.destroy();
}, 30_000);

type Backend = 'native' | 'wasm';

/** As nobody, with no capabilities: what user-space mode is for. */
const unprivileged = (argv: readonly string[]): string[] => [
  'setpriv',
  '--bounding-set=-all',
  '--inh-caps=-all',
  '--no-new-privs',
  ...argv,
];

async function start(steps: readonly string[], backend: Backend, config: NodeConfig = host.config): Promise<Process> {
  const file = host.host.write('config.json', JSON.stringify(config));
  const argv = [process.execPath, PROGRAM, host.host.state, file, ...steps];
  return host.host.spawn(unprivileged(argv), { cwd: repository, env: { THICKET_BACKEND: backend } });
}

/** Runs the steps; what each printed. */
async function run(backend: Backend, ...steps: readonly (readonly string[])[]): Promise<unknown[]> {
  const program = await start(steps.flat(), backend);
  const exit = await program.exit;
  expect({ exit, stderr: program.stderr }).toEqual({ exit: { code: 0, signal: null }, stderr: [] });
  return program.stdout.map((line) => Object.values(JSON.parse(line) as Record<string, unknown>)[0]);
}

const dial = (target: string, text = ''): string[] => ['dial', target, text];

/** What the door says to who asks there. */
async function ask(node: WorldNode, port: number): Promise<string> {
  const client = `
import socket
with socket.create_connection(("door.home.thicket", ${port}), 5) as door:
    door.sendall(b"let me in")
    door.shutdown(socket.SHUT_WR)
    print(door.makefile().read())`;
  const { stdout } = await node.host.exec(['/usr/bin/python3', '-c', client], { check: false });
  return stdout;
}

describe.each<Backend>(['native', 'wasm'])('with the %s backend', (backend) => {
  test('dials by name, writes before it is connected, finishes, and hears the rest', async () => {
    expect(await run(backend, dial('files.home.thicket:7', 'one\ntwo\n'), dial('files.gw.home:7', 'three\n'))).toEqual([
      'one\ntwo\n',
      'three\n',
    ]);
  });

  test('carries a hundred megabytes, whole', async () => {
    expect(await run(backend, ['fetch', 'files.home:80', '/big.bin'])).toEqual([files.bigSha256]);
  });

  test('resolves to who it is, by what is certified', async () => {
    const [found, nobody] = (await run(backend, ['resolve', 'files.home.thicket'], ['resolve', 'nobody.home.thicket'])) as Record<
      string,
      unknown
    >[];
    expect(found).toMatchObject({ name: 'files', network: world.owner().id });
    expect(found?.['key']).toMatch(/^[a-z2-7]{52}$/);
    expect(found?.['ipv4']).toMatch(/^198\.1[89]\./);
    expect(nobody).toMatchObject({ name: 'OverlayError', code: 'ENOTFOUND' });
  });

  test('fails with the codes of sockets', async () => {
    expect(
      await run(
        backend,
        dial('files.home:81'),
        dial('files.home:22'),
        dial('nobody.home:80'),
        dial('viewer2.home:80'),
        dial('not a name:80'),
      ),
    ).toMatchObject([
      // Nothing listens on the device; the policy doesn't allow it; nobody has the name; it is our own; it is none.
      { name: 'OverlayError', code: 'ECONNREFUSED' },
      { name: 'OverlayError', code: 'ECONNREFUSED' },
      { name: 'OverlayError', code: 'ENOTFOUND' },
      { name: 'OverlayError', code: 'EACCES' },
      { name: 'ThicketError', code: 'BAD_ARGUMENT' },
    ]);
  });

  test('answers for a service of its own: whom it allows, and only while it does', async () => {
    const program = await start(['listen', 'door', '7000', `name:viewer`, 'hold'], backend);
    await program.waitForLine(/"listening"/);
    await waitFor(() => viewer.thicket(['resolve', 'door.home.thicket']), { what: 'the door, announced' });
    expect(await ask(viewer, 7_000)).toBe('viewer of family: LET ME IN');
    // A port of it that nobody answers on, and somebody who isn't allowed.
    expect(await ask(viewer, 7_001)).toBe('');
    expect(await ask(world.node('gw'), 7_000)).toBe('');
    const status = await host.thicket(['services']);
    expect(status.stdout).toMatch(/door +tcp\/7000 .*this program/);
    program.signal('SIGTERM');
    expect(await program.exit).toEqual({ code: 0, signal: null });
  });
});

test('with an interface it dials through that, and answers for nothing', async () => {
  const file = host.host.write('config.json', JSON.stringify({ ...host.config, interface: { mode: 'tun' } }));
  const steps = [
    ...dial('files.home:7', 'one\n'),
    ...dial('files.home:81'),
    ...dial('nobody.home:80'),
    'listen',
    'door',
    '7000',
    'name:viewer',
  ];
  const { stdout } = await host.host.exec([process.execPath, PROGRAM, host.host.state, file, ...steps], { cwd: repository });
  expect(stdout.split('\n').map((line) => JSON.parse(line) as unknown)).toMatchObject([
    { dial: 'one\n' },
    { dial: { name: 'OverlayError', code: 'ECONNREFUSED' } },
    { dial: { name: 'OverlayError', code: 'ENOTFOUND' } },
    { listen: { name: 'ThicketError', code: 'REFUSED' } },
  ]);
});
