/** A whole overlay in one program, over loopback, without privileges: a root, a node that answers, and one that dials. */

import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { ControlClient } from '../../ts/control/client.js';
import { type Caller, isThicketError, Network, Node, type NodeConfig, OverlayError } from '../../ts/index.js';
import { waitFor } from '../lab/index.js';

let folder: string;
let network: Network;
let root: Node;
let gw: Node;
let app: Node;
let gwConfig: NodeConfig;
let warnings: string[] = [];

async function freePort(): Promise<number> {
  const socket = createSocket('udp4').bind(0, '127.0.0.1');
  await once(socket, 'listening');
  const { port } = socket.address();
  socket.close();
  await once(socket, 'close');
  return port;
}

async function enrol(name: string, endpoints: readonly string[] = [], groups: readonly string[] = []): Promise<string> {
  const state = join(folder, name);
  const { key, request } = await Node.init({ state });
  const certificate = await network.certify(request, { name, endpoints, groups, dateOk: true, rights: name === 'root' ? ['relay'] : [] });
  await Node.join({ state, certificate });
  return key;
}

const open = (name: string, config: NodeConfig): Promise<Node> =>
  Node.open({ state: join(folder, name), config, onLog: ({ level, message }) => level !== 'info' && warnings.push(`${name}: ${message}`) });

/** What a dialled stream fails with. */
async function failure(stream: Duplex): Promise<string> {
  const [error] = (await once(stream, 'error')) as [unknown];
  expect(error).toBeInstanceOf(OverlayError);
  return error instanceof OverlayError ? error.code : '';
}

async function code(work: Promise<unknown>): Promise<string> {
  try {
    await work;
    return 'done';
  } catch (error) {
    return isThicketError(error) ? error.code : String(error);
  }
}

/** Says nothing. */
const closes = (stream: Duplex): void => void stream.on('error', () => {}).end();

describe.each(['native', 'wasm'] as const)('with the %s backend', (backend) => {
  beforeAll(async () => {
    process.env['THICKET_BACKEND'] = backend;
    warnings = [];
    folder = mkdtempSync(join(tmpdir(), 'thicket-api-'));
    network = await Network.create({ folder: join(folder, 'home'), name: 'home' });
    const key = await enrol('root');
    await enrol('gw', ['door', 'other']);
    await enrol('app', [], ['family']);
    const port = await freePort();
    root = await open('root', { listen: [`udp://127.0.0.1:${port}`], relay: { for: 'any' } });
    const leaf = { parents: [`udp://127.0.0.1:${port}#${key}`], networks: { home: network.id } };
    gwConfig = { ...leaf, endpoints: [{ name: 'other', services: [{ port: 'tcp/80', target: '192.0.2.1:80' }] }] };
    [gw, app] = await Promise.all([open('gw', gwConfig), open('app', leaf)]);
    // So that the door is there all the time; who asks too early is told so for some seconds.
    await gw.listen({ endpoint: 'door', port: 6_999 }, closes);
    await waitFor(() => app.resolve('door.home.thicket'), { timeoutMs: 15_000, what: 'the door, announced' });
  });

  afterAll(async () => {
    delete process.env['THICKET_BACKEND'];
    await Promise.all([root, gw, app].map((node) => node?.close()));
    await Promise.all([root, gw, app].map((node) => node?.closed));
    rmSync(folder, { recursive: true });
  });

  describe('a service of a program', () => {
    test('is dialled by name, and knows its caller', async () => {
      const callers: Caller[] = [];
      const listener = await gw.listen({ endpoint: 'door', port: 7_000, allow: ['group:family'] }, (stream, caller) => {
        callers.push(caller);
        stream.on('error', () => {});
        stream.pipe(stream);
      });
      const stream = app.dial('door.home.thicket:7000');
      stream.end('there and back');
      let heard = '';
      stream.on('data', (data: Buffer) => {
        heard += data.toString();
      });
      await once(stream, 'end');
      expect(heard).toBe('there and back');
      expect(callers).toEqual([{ key: app.key, name: 'app', network: network.id, groups: ['family'] }]);
      await listener.close();
    });

    test('is open to nobody unless it says to whom', async () => {
      const listener = await gw.listen({ endpoint: 'door', port: 7_001 }, closes);
      expect(await failure(app.dial('door.home.thicket:7001'))).toBe('ECONNREFUSED');
      await listener.close();
    });

    test('has its port alone, and may be taken up again', async () => {
      const first = await gw.listen({ endpoint: 'door', port: 7_002, allow: ['group:family'] }, closes);
      expect(await code(gw.listen({ endpoint: 'door', port: 7_002 }, () => {}))).toBe('EXISTS');
      expect(await code(gw.listen({ endpoint: 'other', port: 80 }, () => {}))).toBe('EXISTS');
      expect(await code(gw.listen({ endpoint: 'not a label', port: 80 }, () => {}))).not.toBe('done');
      expect(await code(gw.listen({ endpoint: 'door', port: 7_003, allow: ['somebody'] }, () => {}))).not.toBe('done');
      await first.close();
      await first.close();
      const again = await gw.listen({ endpoint: 'door', port: 7_002, allow: ['group:family'] }, closes);
      await again.close();
    });

    test('ends with its listener: streams are reset, and nobody gets in any more', async () => {
      const incoming: Duplex[] = [];
      const listener = await gw.listen({ endpoint: 'door', port: 7_004, allow: ['group:family'] }, (stream) => {
        stream.on('error', () => {});
        incoming.push(stream);
      });
      const stream = app.dial('door.home.thicket:7004');
      await once(stream, 'connect');
      await waitFor(() => incoming.length === 1);
      const failed = failure(stream);
      await listener.close();
      await waitFor(() => incoming[0]?.destroyed);
      stream.write('is anybody there?');
      expect(await failed).toBe('ECONNRESET');
      const other = await gw.listen({ endpoint: 'door', port: 7_005, allow: ['group:family'] }, () => {});
      expect(await failure(app.dial('door.home.thicket:7004'))).toBe('ECONNREFUSED');
      await other.close();
    });

    test('outlives another configuration, which a bad one is not', async () => {
      const listener = await gw.listen({ endpoint: 'door', port: 7_006, allow: ['group:family'] }, (stream) =>
        stream.on('error', () => {}).end('still'),
      );
      expect(await code(gw.configure({ parents: [] }))).toBe('BAD_CONFIG');
      // What `thicket reload` reads is still the good one.
      const control = new ControlClient(join(folder, 'gw', 'control.sock'));
      expect(await control.call('POST', '/v1/reload')).toMatchObject({ restart: [] });
      await control.close();
      // A file that takes the port is refused: the program has it.
      const taken = { name: 'door', services: [{ port: 'tcp/7006', target: '192.0.2.1:80' }] };
      expect(await code(gw.configure({ ...gwConfig, endpoints: [taken] }))).toBe('EXISTS');
      expect(await gw.configure({ ...gwConfig, endpoints: [], interface: { threads: 1 } })).toEqual(['interface']);
      const stream = app.dial('door.home.thicket:7006');
      const [data] = (await once(stream, 'data')) as [Buffer];
      expect(data.toString()).toBe('still');
      stream.destroy();
      await listener.close();
    });
  });

  describe('dialling', () => {
    test("is refused where there is nobody, no way, or no interface of one's own", async () => {
      expect(await failure(app.dial('nobody.home.thicket:1'))).toBe('ENOTFOUND');
      expect(await failure(app.dial('camera.elsewhere.thicket:1'))).toBe('ENOTFOUND');
      expect(await failure(app.dial(`${app.key}.thicket:1`))).toBe('EACCES');
      expect(await failure(root.dial('gw.home.thicket:1'))).toBe('EACCES');
      expect(() => app.dial('no port')).toThrow(/is not a service/);
      expect(() => app.dial({ name: 'door.home.thicket', port: 0 })).toThrow(/is not a port/);
    });

    test('is given up by its signal, before and after it is connected', async () => {
      const incoming: Duplex[] = [];
      const listener = await gw.listen({ endpoint: 'door', port: 7_007, allow: ['group:family'] }, (stream) => {
        stream.on('error', () => {});
        stream.resume();
        incoming.push(stream);
      });
      const abort = new AbortController();
      const [one, two] = ['door.home.thicket:7007', 'door.home.thicket:7007'].map((target) =>
        app.dial(target, { signal: abort.signal }),
      ) as [Duplex, Duplex];
      await Promise.all([once(one, 'connect'), once(two, 'connect')]);
      const three = app.dial('door.home.thicket:7007', { signal: abort.signal });
      const errors = Promise.all([one, two, three].map((stream) => once(stream, 'error').then(([error]) => (error as Error).name)));
      abort.abort();
      expect(await errors).toEqual(['AbortError', 'AbortError', 'AbortError']);
      await waitFor(() => incoming.every(({ destroyed }) => destroyed));
      await listener.close();
    });
  });

  test('a node that closes ends its streams at both ends, and does nothing more', async () => {
    const state = join(folder, 'late');
    await enrol('late', [], ['family']);
    const config: NodeConfig = { parents: gwConfig.parents, networks: gwConfig.networks };
    const late = await Node.open({ state, config });
    // The state directory is one node's.
    expect(await code(Node.open({ state, config }))).toBe('ALREADY_RUNNING');
    const incoming: Duplex[] = [];
    const listener = await gw.listen({ endpoint: 'door', port: 7_008, allow: ['group:family'] }, (stream) => {
      stream.on('error', () => {});
      stream.resume();
      incoming.push(stream);
    });
    const stream = late.dial('door.home.thicket:7008');
    await once(stream, 'connect');
    await waitFor(() => incoming.length === 1);
    const failed = failure(stream);
    await late.close();
    await late.closed;
    expect(await failed).toBe('ECONNRESET');
    expect(await failure(late.dial('door.home.thicket:7008'))).toBe('ECANCELED');
    expect(await code(late.listen({ endpoint: 'door', port: 1 }, () => {}))).toBe('CLOSING');
    await expect(late.resolve('door.home.thicket')).rejects.toMatchObject({ code: 'ECANCELED' });
    await listener.close();
    // One whose parent never answers: who waits for the tree is told at once that it will not be.
    const lonely = await Node.open({ state, config: { parents: [`udp://127.0.0.1:9#${root.key}`] } });
    const vain = failure(lonely.dial('door.home.thicket:7008'));
    await lonely.close();
    expect(await vain).toBe('ECANCELED');
  });

  test('nothing of all that was worth a warning, but what was to be expected', () => {
    expect(warnings.filter((warning) => !/backend moves packets: THICKET_BACKEND/.test(warning))).toEqual([]);
  });
});
