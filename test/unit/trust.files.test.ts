/** What must survive on disk: the network's folder, a node's state, and files cut short, lax, or left behind. */
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, jest, test } from '@jest/globals';
import fc from 'fast-check';
import { isThicketError } from '../../ts/errors.js';
import { BUILD_TIME } from '../../ts/trust/build-time.js';
import { decodeCertificate, decodeGrant, loadState, NetworkFolder, NodeStore, saveState, verifyChain } from '../../ts/trust/index.js';

const NOW = BUILD_TIME + 1_000_000;
let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'thicket-trust-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const code = (run: () => unknown): string => {
  try {
    run();
  } catch (error) {
    if (isThicketError(error)) {
      expect(error.message).not.toContain('\n');
      return error.code;
    }
    throw error;
  }
  return 'none';
};

function member(): { network: NetworkFolder; store: NodeStore } {
  const network = NetworkFolder.create(join(folder, 'network'), 'home');
  const store = NodeStore.init(join(folder, 'state'));
  const bundle = network.sign(store.pair.publicKey, {
    name: 'gw',
    rights: ['gateway'],
    delegable: ['cameras'],
    endpoints: ['camera'],
    expiresInSeconds: 86_400,
    now: NOW,
  });
  store.join(bundleText(bundle), NOW);
  return { network, store };
}

function bundleText(bundle: ReturnType<NetworkFolder['sign']>): string {
  const b64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64');
  return JSON.stringify({
    thicketCertificate: 1,
    network: bundle.network.key,
    certificate: b64(bundle.certificate),
    grants: bundle.grants.map(b64),
  });
}

/** Copies of every file of a folder, to be put back. */
const snapshot = (path: string): Map<string, Buffer> => new Map(readdirSync(path).map((name) => [name, readFileSync(join(path, name))]));

describe('a state file', () => {
  test('is read as it was written, whatever it holds', () => {
    const file = join(folder, 'value.json');
    fc.assert(
      fc.property(fc.jsonValue(), (value) => {
        saveState(file, value);
        expect(JSON.stringify(loadState(file))).toBe(JSON.stringify(value));
        expect(statSync(file).mode & 0o777).toBe(0o600);
      }),
      { numRuns: 30 },
    );
  });

  test('cut short at any length, or bent anywhere, is damaged, never another value', () => {
    const file = join(folder, 'value.json');
    saveState(file, { seed: 'abc', nested: [1, 2, { three: 'sha256:' }] });
    const whole = readFileSync(file);
    for (let length = 0; length < whole.length; length += 1) {
      truncateSync(file, length);
      expect(code(() => loadState(file))).toBe('BAD_STATE');
      writeFileSync(file, whole);
    }
    for (let at = 0; at < whole.length; at += 1) {
      const bent = Buffer.from(whole);
      bent[at] = (bent[at] ?? 0) ^ 1;
      writeFileSync(file, bent);
      expect(code(() => loadState(file))).toBe('BAD_STATE');
    }
  });

  test('that others can read, that is a folder, or that is not there, is told apart', () => {
    const file = join(folder, 'value.json');
    expect(loadState(file)).toBeUndefined();
    saveState(file, 1);
    for (const mode of [0o640, 0o604, 0o660, 0o644]) {
      chmodSync(file, mode);
      expect(code(() => loadState(file))).toBe('LAX_PERMISSIONS');
    }
    rmSync(file);
    mkdirSync(file, { mode: 0o700 });
    expect(code(() => loadState(file))).toBe('BAD_STATE');
  });

  test('that cannot be written leaves the old one, and no leftovers', () => {
    const file = join(folder, 'sub', 'value.json');
    expect(code(() => saveState(file, 1))).toBe('NOT_WRITABLE');
    const taken = join(folder, 'taken');
    mkdirSync(join(taken, 'x'), { recursive: true });
    expect(code(() => saveState(taken, 1))).toBe('NOT_WRITABLE');
    expect(readdirSync(folder).filter((name) => name.endsWith('.tmp'))).toEqual([]);
  });

  test('is written whole even when the system takes less at a time', async () => {
    const fs = await import('node:fs');
    const half = (fd: number, data: string): number => fs.writeSync(fd, data.slice(0, data.length >> 1));
    jest.unstable_mockModule('node:fs', () => ({ ...fs, writeSync: half }));
    jest.resetModules();
    const { saveState: save, loadState: load } = await import('../../ts/trust/files.js');
    jest.unstable_unmockModule('node:fs');
    const file = join(folder, 'value.json');
    save(file, { key: 'x'.repeat(1_000) });
    expect(load(file)).toEqual({ key: 'x'.repeat(1_000) });
  });
});

describe("a node's state", () => {
  test('is kept, or its start is refused, at whatever length any of its files is cut', () => {
    const { store } = member();
    store.nextEpoch();
    store.raiseFloor(NOW + 10_000);
    store.raiseGeneration('net', 'camera', 4);
    const membership = store.membership(NOW);
    if (membership === undefined) throw new RangeError('no membership');
    const camera = store.endpoint('camera', [], membership, NOW).pair.publicKey;
    const files = snapshot(store.folder);
    for (const [name, whole] of files) {
      for (let length = 0; length < whole.length; length += 1) {
        truncateSync(join(store.folder, name), length);
        const result = code(() => {
          const opened = NodeStore.open(store.folder);
          expect(opened.pair.publicKey).toBe(store.pair.publicKey);
          const joined = opened.membership(NOW);
          expect(joined?.name).toBe('gw');
          opened.nextEpoch();
          if (joined !== undefined) expect(opened.endpoint('camera', [], joined, NOW).pair.publicKey).toBe(camera);
        });
        expect([name, result]).toEqual([name, 'BAD_STATE']);
        writeFileSync(join(store.folder, name), whole);
      }
    }
    expect(NodeStore.open(store.folder).pair.publicKey).toBe(store.pair.publicKey);
  });

  test('counts boots on disk, and jumps ahead only as far as is believable', () => {
    const store = NodeStore.init(join(folder, 'state'));
    expect([store.nextEpoch(), store.nextEpoch()]).toEqual([1n, 2n]);
    expect(NodeStore.open(store.folder).nextEpoch()).toBe(3n);
    expect(store.jumpEpoch(3n, 2n)).toBe(3n);
    expect(store.jumpEpoch(3n, 3n + (1n << 16n))).toBe(4n + (1n << 16n));
    expect(NodeStore.open(store.folder).nextEpoch()).toBe(5n + (1n << 16n));
    expect(code(() => store.jumpEpoch(3n, 4n + (1n << 16n)))).toBe('BAD_STATE');
  });

  test('raises its floor in memory at once, on disk hourly at most, and never lowers it', () => {
    const store = NodeStore.init(join(folder, 'state'));
    expect(store.floor).toBe(BUILD_TIME);
    // Many small steps reach the disk as well.
    for (let step = 1; step <= 100; step += 1) store.raiseFloor(BUILD_TIME + step * 100);
    expect(store.floor).toBe(BUILD_TIME + 10_000);
    const again = NodeStore.open(store.folder);
    expect(again.floor).toBeGreaterThan(BUILD_TIME + 10_000 - 3_600);
    again.raiseFloor(5);
    expect(again.floor).toBeGreaterThan(BUILD_TIME);
  });

  test('remembers the highest generation of a name', () => {
    const store = NodeStore.init(join(folder, 'state'));
    expect(store.raiseGeneration('n', 'camera', 2)).toBe(true);
    expect(store.raiseGeneration('n', 'camera', 2)).toBe(false);
    expect(store.raiseGeneration('n', 'camera', 1)).toBe(false);
    expect(NodeStore.open(store.folder).generationOf('n', 'camera')).toBe(2);
    expect(store.generationOf('m', 'camera')).toBe(0);
  });

  test('takes no certificate for another key, expired, of another network than said, damaged, or with a foreign grant', () => {
    const network = NetworkFolder.create(join(folder, 'network'), 'home');
    const other = NetworkFolder.create(join(folder, 'other'), 'other');
    const store = NodeStore.init(join(folder, 'state'));
    const sign = { name: 'gw', expiresInSeconds: 1_000, now: NOW };
    const good = network.sign(store.pair.publicKey, sign);
    const stranger = NodeStore.init(join(folder, 'stranger')).pair.publicKey;
    const joined = (bundle: Parameters<typeof bundleText>[0], now = NOW): string => code(() => store.join(bundleText(bundle), now));
    expect(joined(network.sign(stranger, sign))).toBe('WRONG_KEY');
    expect(joined(good, NOW + 1_001)).toBe('EXPIRED');
    expect(joined({ ...good, network: other.ref })).toBe('UNKNOWN_NETWORK');
    expect(joined({ ...good, certificate: good.certificate.map((byte, i) => (i === 50 ? byte ^ 1 : byte)) })).toBe('BAD_CERTIFICATE');
    expect(joined({ ...good, certificate: good.certificate.subarray(1) })).toBe('BAD_CERTIFICATE');
    const foreign = network.sign(stranger, { ...sign, rights: ['gateway'], endpoints: ['camera'] });
    expect(joined({ ...good, grants: foreign.grants })).toBe('BAD_CERTIFICATE');
    expect(code(() => store.join('hello', NOW))).toBe('BAD_CERTIFICATE');
    expect(store.membership(NOW)).toBeUndefined();
    expect(joined(good)).toBe('none');
    // A clock at 1970 neither refuses it nor lowers anything; one far ahead refuses, for as long as it is ahead.
    expect(NodeStore.open(store.folder).membership(0)?.name).toBe('gw');
    expect(code(() => NodeStore.open(store.folder).membership(NOW + 5_000))).toBe('EXPIRED');
    expect(NodeStore.open(store.folder).membership(NOW)?.name).toBe('gw');
  });

  test('makes no first signature by a clock that is years off, unless told that it is right', () => {
    const key = NodeStore.init(join(folder, 'state')).pair.publicKey;
    const sign = (now: number, dateOk: boolean): string => {
      const network = NetworkFolder.create(join(folder, `network ${now} ${dateOk}`), 'home');
      return code(() => network.sign(key, { name: 'gw', expiresInSeconds: 1_000, now, dateOk }));
    };
    expect(sign(1_000, false)).toBe('BAD_ARGUMENT');
    expect(sign(BUILD_TIME + 6 * 365 * 86_400, false)).toBe('BAD_ARGUMENT');
    expect(sign(BUILD_TIME + 6 * 365 * 86_400, true)).toBe('none');
    expect(sign(BUILD_TIME - 60, false)).toBe('none');
  });

  test('clears away what killed programs left, and nothing that is still being written', () => {
    const store = NodeStore.init(join(folder, 'state'));
    const [old, young, other] = ['.0123456789ab.tmp', '.ba9876543210.tmp', '.mine.tmp'].map((name) => join(store.folder, name));
    for (const file of [old, young, other]) writeFileSync(file ?? '', 'x', { mode: 0o600 });
    utimesSync(old ?? '', 1_000, 1_000);
    utimesSync(other ?? '', 1_000, 1_000);
    NodeStore.open(store.folder);
    expect(
      readdirSync(store.folder)
        .filter((name) => name.endsWith('.tmp'))
        .sort(),
    ).toEqual(['.ba9876543210.tmp', '.mine.tmp']);
  });

  test('is refused where the folder is open to others, and its key is made once only', () => {
    const store = NodeStore.init(join(folder, 'state'));
    expect(code(() => NodeStore.init(store.folder))).toBe('EXISTS');
    chmodSync(store.folder, 0o755);
    expect(code(() => NodeStore.open(store.folder))).toBe('LAX_PERMISSIONS');
    expect(code(() => NodeStore.open(join(folder, 'nowhere')))).toBe('NO_KEY');
  });

  test('gives an endpoint the same key at every start, and a chain that verifies for sessions only', () => {
    const { store } = member();
    const membership = store.membership(NOW);
    if (membership === undefined) throw new RangeError('no membership');
    const first = store.endpoint('camera', ['cameras'], membership, NOW);
    const again = NodeStore.open(store.folder).endpoint('camera', ['cameras'], membership, NOW + 5);
    expect(again.pair.publicKey).toBe(first.pair.publicKey);
    const check = { floor: store.floor, now: NOW };
    const identity = verifyChain(again.chain, again.grant, again.pair.publicKey, { ...check, kind: 'session' });
    expect(identity).toMatchObject({ name: 'camera.gw', shortName: 'camera', groups: ['cameras'], serial: 2, rights: [] });
    expect(code(() => verifyChain(again.chain, again.grant, again.pair.publicKey, { ...check, kind: 'link' }))).toBe('BAD_CERTIFICATE');
    expect(code(() => store.endpoint('door', ['guards'], membership, NOW))).toBe('BAD_CONFIG');
    expect(store.endpoint('door', [], membership, NOW).grant).toBeUndefined();
  });
});

describe("a network's folder", () => {
  test('is kept, or refused, at whatever length it is cut, and never made over', () => {
    const network = NetworkFolder.create(folder, 'home');
    const file = join(folder, 'network.json');
    const whole = readFileSync(file);
    for (let length = 0; length < whole.length; length += 1) {
      truncateSync(file, length);
      expect(code(() => NetworkFolder.open(folder))).toBe('BAD_STATE');
      expect(code(() => NetworkFolder.create(folder, 'home'))).toBe('EXISTS');
      writeFileSync(file, whole);
    }
    expect(NetworkFolder.open(folder).ref).toEqual(network.ref);
    saveState(file, { name: 'x' });
    expect(code(() => NetworkFolder.open(folder))).toBe('BAD_STATE');
    expect(code(() => NetworkFolder.open(join(folder, 'none')))).toBe('NO_KEY');
  });

  test('gives each signature a serial of its own, also after a restart', () => {
    const network = NetworkFolder.create(folder, 'home');
    const key = NodeStore.init(join(folder, 'state')).pair.publicKey;
    const sign = (folderNow: NetworkFolder): number =>
      decodeCertificate(folderNow.sign(key, { name: 'gw', expiresInSeconds: 10, now: NOW }).certificate).serial;
    expect([sign(network), sign(network), sign(NetworkFolder.open(folder))]).toEqual([1, 2, 3]);
  });

  test('never dates a signature back, and asks before it dates one far ahead', () => {
    const network = NetworkFolder.create(folder, 'home');
    const key = NodeStore.init(join(folder, 'state')).pair.publicKey;
    const sign = (now: number, dateOk = false): number =>
      decodeCertificate(network.sign(key, { name: 'gw', expiresInSeconds: 10, now, dateOk }).certificate).issuedAt;
    expect(sign(NOW)).toBe(NOW);
    expect(sign(NOW - 5_000)).toBe(NOW);
    expect(code(() => sign(NOW + 86_401))).toBe('BAD_ARGUMENT');
    expect(sign(NOW + 86_401, true)).toBe(NOW + 86_401);
  });

  test('raises the generation of a short name with each grant, and keeps it with --add', () => {
    const network = NetworkFolder.create(folder, 'home');
    const key = NodeStore.init(join(folder, 'state')).pair.publicKey;
    const sign = (endpoints: string[], add: boolean): number[] =>
      network
        .sign(key, { name: 'gw', expiresInSeconds: 10, now: NOW, endpoints, add })
        .grants.map((grant) => decodeGrant(grant).generation);
    expect(sign(['camera', 'door'], false)).toEqual([1, 1]);
    expect(sign(['camera'], false)).toEqual([2]);
    expect(sign(['camera', 'door'], true)).toEqual([2, 1]);
    expect(sign(['constructor', 'constructor'], true)).toEqual([1]);
    const many = Array.from({ length: 65 }, (_, n) => `d${n}`);
    expect(code(() => sign(many, false))).toBe('BAD_ARGUMENT');
  });
});
