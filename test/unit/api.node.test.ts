/** Networks and nodes in one program: made, certified, joined; and what is refused is told with a code. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { OverlayError, overlayError } from '../../ts/api/errors.js';
import { isThicketError, Network, Node, ThicketError } from '../../ts/index.js';

let folder: string;
const path = (...names: string[]): string => join(folder, ...names);

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'thicket-api-'));
});

afterEach(() => {
  rmSync(folder, { recursive: true });
});

async function code(work: Promise<unknown>): Promise<string> {
  try {
    await work;
    return 'done';
  } catch (error) {
    return isThicketError(error) ? error.code : String(error);
  }
}

describe('a network', () => {
  test('is made once, kept, and certifies what nodes ask for', async () => {
    const network = await Network.create({ folder: path('home'), name: 'home' });
    expect(network.id).toMatch(/^[a-z2-7]{52}$/);
    expect(network.withNamingSecret).toMatch(new RegExp(`^${network.id}\\.[a-z2-7]{26}$`));
    expect(await code(Network.create({ folder: path('home'), name: 'home' }))).toBe('EXISTS');
    expect((await Network.open({ folder: path('home') })).id).toBe(network.id);
    expect(await code(Network.open({ folder: path('nowhere') }))).toBe('NO_KEY');

    const { key, request } = await Node.init({ state: path('state') });
    expect(await Node.init({ state: path('state') })).toEqual({ key, request });
    const certificate = await network.certify(request, {
      name: 'gw',
      groups: ['family'],
      endpoints: ['camera'],
      expires: '1d',
      dateOk: true,
    });
    const { notAfter, ...joined } = await Node.join({ state: path('state'), certificate });
    expect(joined).toEqual({ name: 'gw', network: network.id });
    expect(Math.abs(notAfter.getTime() - Date.now() - 86_400_000)).toBeLessThan(600_000);
  });

  test('certifies nothing that is no request, for no such time or right', async () => {
    const network = await Network.create({ folder: path('home'), name: 'home' });
    const { request } = await Node.init({ state: path('state') });
    expect(await code(network.certify('{}', { name: 'gw' }))).toBe('BAD_REQUEST');
    expect(await code(network.certify(request, { name: 'gw', expires: 'soon' }))).toBe('BAD_ARGUMENT');
    expect(await code(network.certify(request, { name: 'gw', rights: ['root' as 'relay'] }))).toBe('BAD_ARGUMENT');
    const other = await Node.init({ state: path('other') });
    const certificate = await network.certify(other.request, { name: 'other', dateOk: true });
    expect(await code(Node.join({ state: path('state'), certificate }))).toBe('WRONG_KEY');
  });
});

describe('a node', () => {
  const parents = ['udp://127.0.0.1:9#2awhwlq7kn33nz6cbzlikqsxxwuf6lnlapattmee44jlbfskkj4q'];

  test('is not opened without a key, or with a configuration that is none: the line says where', async () => {
    expect(await code(Node.open({ state: path('state'), config: { parents } }))).toBe('NO_KEY');
    await Node.init({ state: path('state') });
    const open = async (config: object): Promise<string> => {
      const error: unknown = await Node.open({ state: path('state'), config }).catch((reason: unknown) => reason);
      return error instanceof ThicketError ? `${error.code} ${error.message}` : String(error);
    };
    expect(await open({})).toMatch(/^BAD_CONFIG the configuration: neither listen nor parents: /);
    expect(await open({ parent: [] })).toMatch(/^BAD_CONFIG the configuration: unknown key "parent": /);
    expect(await open({ parents: ['udp://nowhere'] })).toMatch(
      /^BAD_CONFIG the configuration: parents\.0: .*: use udp:\/\/host:port#<parent key>$/,
    );
    expect(await open({ parents, forwards: [{ listen: '1', to: 'a:1' }] })).toMatch(/^BAD_CONFIG the configuration: forwards\.0: /);
    // And it left nothing behind that would keep another from opening.
    expect(await open({})).toMatch(/^BAD_CONFIG/);
  });
});

test('errors have the codes that programs know, and what Thicket says as their cause', () => {
  const cause = new ThicketError('NOT_FOUND', 'nobody is called camera: is its gateway up?');
  const error = overlayError(cause, 'connect', 'camera.home:554');
  expect(error).toBeInstanceOf(OverlayError);
  expect(error).toMatchObject({ code: 'ENOTFOUND', syscall: 'connect', cause, message: `camera.home:554: ${cause.message}` });
  expect(overlayError(error, 'resolve', 'again')).toBe(error);
  const codes = (['UNTRUSTED', 'UNREACHABLE', 'TIMEOUT', 'CLOSING', 'BAD_ARGUMENT', 'INTERNAL'] as const).map(
    (of) => overlayError(new ThicketError(of, 'x: y'), 'connect', 'z').code,
  );
  expect(codes).toEqual(['EACCES', 'ENETUNREACH', 'ETIMEDOUT', 'ECANCELED', 'EINVAL', 'EFAULT']);
  expect(overlayError(Object.assign(new Error('no'), { code: 'ECONNREFUSED' }), 'connect', 'z').code).toBe('ECONNREFUSED');
  expect(overlayError(Object.assign(new Error('no'), { code: 'EWHATEVER' }), 'connect', 'z').code).toBe('EFAULT');
});
