/**
 * The packages in their places: here, on other processors and with musl, by Node.js built for them, under qemu where this machine can't run it
 * (scripts/package/foreign.sh). Those of which scripts/package.sh made packages.
 */
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import type { DoctorDocument } from '../../ts/doctor/index.js';
import { type CertifyOptions, Network, Node } from '../../ts/index.js';
import { Process, repository, run, waitFor } from '../lab/index.js';
import { made, tarball, version } from '../packages/shop.js';

const { FOREIGN = '' } = process.env;
const places = made();
const nodeOf = (triple: string): string => (triple === 'linux-x64-gnu' ? process.execPath : join(FOREIGN, triple, 'run'));

test('there are places to try', () => {
  expect(places).toContain('linux-x64-gnu');
  expect(places.length).toBeGreaterThan(1);
});

/** What test/packages/vectors.mjs prints. */
interface Sealed {
  readonly arch: string;
  readonly cases: number;
  readonly kernels: readonly {
    readonly name: string;
    readonly chosen: string;
    readonly wrong: readonly number[];
    readonly train: string;
    readonly opened: number;
  }[];
}
const parse = (text: string): Sealed => JSON.parse(text) as Sealed;

describe.each(places)('%s', (triple) => {
  let folder: string;
  let node: (args: readonly string[]) => Promise<string>;
  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'thicket-foreign-'));
    for (const [name, place] of [
      ['thicket', 'thicket'],
      [`@thicket/${triple}`, join('@thicket', triple)],
    ] as const) {
      const target = join(folder, 'node_modules', place);
      mkdirSync(target, { recursive: true });
      await run(['tar', '-xzf', tarball(name), '-C', target, '--strip-components=1']);
    }
    const options = {
      cwd: folder,
      timeoutMs: 60_000,
      check: false,
      env: { NODE_OPTIONS: undefined, THICKET_STATE: join(folder, 'state') },
    };
    node = async (args) => {
      const { stdout, stderr } = await run([nodeOf(triple), ...args], options);
      if (stdout === '') throw new Error(`nothing printed: ${stderr}`);
      return stdout;
    };
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  const program = 'node_modules/thicket/dist/cli/main.js';

  test('loads both addons of its own package', async () => {
    expect(await node([program, '--version'])).toBe(`thicket ${version}\naddon ${version}\nkernel ${version}`);
  });

  test('its doctor names the backend and the C library', async () => {
    const document = JSON.parse(await node([program, 'doctor', '--json'])) as DoctorDocument;
    expect(document.backend).toEqual({ name: 'native', from: `@thicket/${triple}`, shortfall: null });
    const libc = document.checks.find(({ name }) => name === 'libc');
    expect(libc).toMatchObject({
      state: 'ok',
      text: expect.stringMatching(triple.endsWith('musl') ? /^musl/ : /^glibc 2\.\d+, as the process/),
    });
  });

  test('seals and opens the vectors with all its kernels, and trains as this machine does', async () => {
    const vectors = join(repository, 'test/vectors/wycheproof/chacha20_poly1305_test.json');
    const script = join(repository, 'test/packages/vectors.mjs');
    const theirs = parse(await node([script, join(folder, `node_modules/@thicket/${triple}/thicket_addon.node`), vectors]));
    const ours = parse((await run([process.execPath, script, join(repository, 'build/Release/thicket_addon.node'), vectors])).stdout);
    expect(theirs.arch).toBe(/^linux-(\w+)-/.exec(triple)?.[1]);
    expect(theirs.cases).toBeGreaterThan(300);
    expect(theirs.kernels.at(-1)?.name).toBe('ring');
    const train = ours.kernels[0]?.train;
    for (const kernel of theirs.kernels) expect(kernel).toEqual({ name: kernel.name, chosen: kernel.name, wrong: [], train, opened: 40 });
  });

  test('its C++ addon asks the kernel', async () => {
    const kernel = `require('@thicket/${triple}/thicket_kernel.node')`;
    expect(await node(['-e', `${kernel}.links().then((links) => console.log(links[0].name))`])).toBe('lo');
  });

  test('a node in user-space mode with the package answers one of this machine, through a root of this machine', async () => {
    const state = (name: string): string => join(folder, 'overlay', name);
    const network = await Network.create({ folder: state('home'), name: 'home' });
    const enrol = async (name: string, as: Omit<CertifyOptions, 'name'>): Promise<string> => {
      const { key, request } = await Node.init({ state: state(name) });
      await Node.join({ state: state(name), certificate: await network.certify(request, { name, dateOk: true, ...as }) });
      return key;
    };
    const key = await enrol('root', { rights: ['relay'] });
    await enrol('gw', { endpoints: ['door'] });
    await enrol('app', { groups: ['family'] });
    const port = await freePort();
    const leaf = { parents: [`udp://127.0.0.1:${port}#${key}`], networks: { home: network.id } };
    writeFileSync(join(folder, 'gw.json'), JSON.stringify(leaf));
    // Copied, so that what it imports is the package.
    copyFileSync(join(repository, 'test/fixtures/embedded.mjs'), join(folder, 'embedded.mjs'));
    const root = await Node.open({ state: state('root'), config: { listen: [`udp://127.0.0.1:${port}`], relay: { for: 'any' } } });
    const env = { NODE_OPTIONS: undefined, THICKET_BACKEND: 'native' };
    const steps = ['listen', 'door', '7000', 'group:family', 'hold'];
    const gw = await Process.start([nodeOf(triple), 'embedded.mjs', state('gw'), 'gw.json', ...steps], { cwd: folder, env });
    const app = await Node.open({ state: state('app'), config: leaf });
    try {
      await gw.waitForLine(/"listening"/, 40_000);
      await waitFor(() => app.resolve('door.home.thicket'), { timeoutMs: 20_000, what: 'the door, announced' });
      const said = 'there and back, '.repeat(20_000);
      const stream = app.dial('door.home.thicket:7000');
      stream.end(said);
      expect(await text(stream)).toBe(`app of family: ${said.toUpperCase()}`);
    } finally {
      await gw.kill('SIGKILL');
      await Promise.all([app.close(), root.close()]);
      await Promise.all([app.closed, root.closed]);
    }
  });
});

async function freePort(): Promise<number> {
  const socket = createSocket('udp4').bind(0, '127.0.0.1');
  await once(socket, 'listening');
  const { port } = socket.address();
  socket.close();
  await once(socket, 'close');
  return port;
}
