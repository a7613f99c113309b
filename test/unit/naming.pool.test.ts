import { mkdirSync, mkdtempSync, readFileSync, rmdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { type FileHandle, open as openFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, jest, test } from '@jest/globals';
import fc from 'fast-check';
import { pino } from 'pino';
import { AddressPool, type AddressPoolOptions, randomUla, type Subject } from '../../ts/naming/index.js';
import { KeyPair } from '../../ts/trust/index.js';

const TTL = 60_000;
const network = KeyPair.fromSeed(new Uint8Array(32).fill(1)).publicKey;
const other = KeyPair.fromSeed(new Uint8Array(32).fill(2)).publicKey;
const name = (text: string, of = network): Subject => ({ kind: 'name', name: text, network: of });

let folder: string;
let time: number;
let used: Set<string>;
let lines: string[];
let open: AddressPool[];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'thicket-pool-'));
  time = 1_000;
  used = new Set();
  lines = [];
  open = [];
});

afterEach(async () => {
  await Promise.all(open.map((pool) => pool.close()));
  rmSync(folder, { recursive: true });
});

function openPool(options: Partial<AddressPoolOptions> = {}): AddressPool {
  const log = pino({}, { write: (line: string) => void lines.push((JSON.parse(line) as { msg: string }).msg) });
  const pool = AddressPool.open({
    folder,
    ipv4: '198.18.0.0/29',
    ipv6: 'fd00:1:2:3::/64',
    ttlMs: TTL,
    now: () => time,
    inUse: async () => (subject) => subject.kind === 'name' && used.has(subject.name),
    log,
    ...options,
  });
  open.push(pool);
  return pool;
}

const logFile = (): string => join(folder, 'addresses.log');

describe('giving addresses', () => {
  test('a /29 has five to give, none of them the network, first or broadcast address', async () => {
    const pool = openPool();
    const given = await Promise.all(['a', 'b', 'c', 'd', 'e'].map((text) => pool.assign(name(text))));
    expect(given.map(({ v4 }) => v4).sort()).toEqual([2, 3, 4, 5, 6].map((last) => `198.18.0.${last}`));
    expect(pool.first).toEqual({ v4: '198.18.0.1', v6: 'fd00:1:2:3::1' });
    await expect(pool.assign(name('f'))).rejects.toMatchObject({ code: 'POOL_EXHAUSTED' });
  });

  test('the same subject always gets the same pair; the address leads back to it in any notation', async () => {
    const pool = openPool();
    const subjects: Subject[] = [
      name('camera'),
      name('camera.gw'),
      name('camera', other),
      { kind: 'key', key: network },
      { kind: 'own', key: network },
    ];
    const given = await Promise.all(subjects.map((subject) => pool.assign(subject)));
    expect(new Set(given.flatMap(({ v4, v6 }) => [v4, v6])).size).toBe(10);
    for (const [index, subject] of subjects.entries()) {
      expect(await pool.assign(subject)).toEqual(given[index]);
      expect(pool.get(subject)).toEqual(given[index]);
      expect(pool.lookup(given[index]?.v4 ?? '')).toEqual(subject);
      const { v6 = '' } = given[index] ?? {};
      expect(pool.lookup(v6.toUpperCase().replace('FD00:1:2:3:', 'fd00:0001:2:03:'))).toEqual(subject);
    }
    for (const address of ['198.18.0.1', '198.18.0.0', '198.18.0.8', '10.0.0.1', 'fd00:1:2:3::1', 'fd00::5', 'nonsense', '']) {
      expect(pool.lookup(address)).toBeUndefined();
    }
  });

  test('without an IPv6 pool there is no IPv6 address, and it is the same when the pool is back', async () => {
    const before = await openPool().assign(name('camera'));
    const without = openPool({ ipv6: undefined });
    expect(without.get(name('camera'))).toEqual({ v4: before.v4 });
    expect(without.first).toEqual({ v4: '198.18.0.1' });
    await without.assign(name('light'));
    expect(openPool().get(name('camera'))).toEqual(before);
    expect(openPool({ ipv6: 'fd00:9:9:9::/64' }).get(name('camera'))?.v6).toBe(before.v6?.replace('fd00:1:2:3', 'fd00:9:9:9'));
  });

  test('when all are given, the least recently used goes, but not within its TTL', async () => {
    const pool = openPool();
    for (const text of ['a', 'b', 'c', 'd', 'e']) {
      await pool.assign(name(text));
      time += 1_000;
    }
    const b = pool.get(name('b'));
    time += 10_000;
    pool.touch(name('a'));
    time += TTL - 15_000;
    await expect(pool.assign(name('f'))).rejects.toMatchObject({ code: 'POOL_EXHAUSTED' });
    time += 2_000;
    expect((await pool.assign(name('f'))).v4).toBe(b?.v4);
    expect(pool.get(name('b'))).toBeUndefined();
    expect(pool.get(name('a'))).toBeDefined();
  });

  test('what a flow uses is never taken', async () => {
    const pool = openPool();
    for (const text of ['a', 'b', 'c', 'd', 'e']) await pool.assign(name(text));
    used = new Set(['a', 'b', 'c', 'd']);
    time += 10 * TTL;
    const e = pool.get(name('e'));
    expect((await pool.assign(name('f'))).v4).toBe(e?.v4);
    used.add('f');
    time += 10 * TTL;
    await expect(pool.assign(name('g'))).rejects.toMatchObject({ code: 'POOL_EXHAUSTED' });
  });

  test('whether flows use addresses is asked only when all are given; who waits for the answer together still gets addresses of their own', async () => {
    let asked = 0;
    const pool = openPool({
      inUse: async () => {
        asked += 1;
        await new Promise((resolve) => setImmediate(resolve));
        return (_, { v4 }) => v4 === first?.v4;
      },
    });
    for (const text of ['a', 'b', 'c', 'd', 'e']) await pool.assign(name(text));
    const first = pool.get(name('a'));
    expect(asked).toBe(0);
    time += TTL;
    const given = await Promise.allSettled(['f', 'g', 'f', 'h', 'i', 'j'].map((text) => pool.assign(name(text))));
    const addresses = given.map((one) => (one.status === 'fulfilled' ? one.value.v4 : (one.reason as { code: string }).code));
    expect(addresses[2]).toBe(addresses[0]);
    expect(addresses[5]).toBe('POOL_EXHAUSTED');
    expect(new Set(addresses).size).toBe(5);
    expect(addresses).not.toContain(first?.v4);
    expect(pool.get(name('a'))).toEqual(first);
    expect(asked).toBe(6);
  });

  test('a released address waits for its TTL, goes first then, and stays whose it was until then', async () => {
    const pool = openPool();
    for (const text of ['a', 'b', 'c', 'd', 'e']) {
      await pool.assign(name(text));
      time += 1_000;
    }
    const c = pool.get(name('c'));
    await pool.release(name('c'));
    expect(pool.get(name('c'))).toBeUndefined();
    expect(pool.lookup(c?.v4 ?? '')).toBeUndefined();
    expect(pool.all()).toHaveLength(4);
    await expect(pool.assign(name('f'))).rejects.toMatchObject({ code: 'POOL_EXHAUSTED' });
    expect(await pool.assign(name('c'))).toEqual(c);
    await pool.release(name('c'));
    time += TTL;
    expect((await pool.assign(name('f'))).v4).toBe(c?.v4);
    expect(pool.get(name('a'))).toBeDefined();
  });

  test('one network cannot take more than its quota', async () => {
    const pool = openPool({ ipv4: '198.18.0.0/24', quota: 3 });
    for (const text of ['a', 'b', 'c']) await pool.assign(name(text, other));
    await expect(pool.assign(name('d', other))).rejects.toMatchObject({ code: 'POOL_EXHAUSTED' });
    await pool.assign(name('d'));
    await pool.assign({ kind: 'own', key: network });
    time += TTL;
    await pool.assign(name('d', other));
    expect(pool.get(name('a', other))).toBeUndefined();
    expect(pool.get(name('d'))).toBeDefined();
  });

  test('whatever happens, no address has two owners, none passes on within its TTL or in use, and each is on disk', async () => {
    const subject = fc.constantFrom('a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i');
    const step = fc.oneof(
      { weight: 10, arbitrary: fc.record({ do: fc.constant('assign' as const), subject }) },
      { weight: 4, arbitrary: fc.record({ do: fc.constant('touch' as const), subject }) },
      fc.record({ do: fc.constant('release' as const), subject }),
      fc.record({ do: fc.constant('use' as const), subject }),
      fc.record({ do: fc.constant('unuse' as const), subject }),
      fc.record({ do: fc.constant('wait' as const), ms: fc.integer({ min: 1, max: TTL }) }),
      fc.record({ do: fc.constant('reopen' as const) }),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 60 }), async (steps) => {
        rmSync(logFile(), { force: true });
        used = new Set();
        let pool = openPool();
        /** Whose an address was last, and until when an answer with it may be cached. */
        const owners = new Map<string, { text: string; until: number }>();
        for (const one of steps) {
          switch (one.do) {
            case 'assign':
              try {
                const { v4 } = await pool.assign(name(one.subject));
                const before = owners.get(v4);
                if (before !== undefined && before.text !== one.subject) {
                  expect(time).toBeGreaterThanOrEqual(before.until);
                  expect(used.has(before.text)).toBe(false);
                }
                for (const [address, owner] of owners) if (owner.text === one.subject && address !== v4) owner.text = '';
                owners.set(v4, { text: one.subject, until: time + TTL });
                expect(readFileSync(logFile(), 'utf8')).toContain(`"subject":"name:${network}:${one.subject}","v4":"${v4}"`);
              } catch (error) {
                expect(error).toMatchObject({ code: 'POOL_EXHAUSTED' });
                const free = [2, 3, 4, 5, 6]
                  .map((last) => owners.get(`198.18.0.${last}`))
                  .filter((o) => o === undefined || (time >= o.until && !used.has(o.text)));
                expect(free).toEqual([]);
              }
              break;
            case 'touch': {
              pool.touch(name(one.subject));
              const owner = owners.get(pool.get(name(one.subject))?.v4 ?? '');
              if (owner !== undefined) owner.until = time + TTL;
              break;
            }
            case 'release':
              await pool.release(name(one.subject));
              break;
            case 'use':
              if (pool.get(name(one.subject)) !== undefined) used.add(one.subject);
              break;
            case 'unuse':
              used.delete(one.subject);
              break;
            case 'wait':
              time += one.ms;
              break;
            case 'reopen': {
              const before = pool.all();
              // As after kill -9: without closing.
              pool = openPool();
              expect(new Set(pool.all().map((e) => JSON.stringify(e)))).toEqual(new Set(before.map((e) => JSON.stringify(e))));
              for (const owner of owners.values()) owner.until = time + TTL;
              break;
            }
          }
          const all = pool.all().flatMap(({ addresses: { v4, v6 } }) => [v4, v6]);
          expect(new Set(all).size).toBe(all.length);
        }
      }),
      { numRuns: 60 },
    );
  }, 60_000);
});

describe("the pool's file", () => {
  test('addresses survive a kill at any moment, with TTLs that count from the start', async () => {
    const pool = openPool();
    const given = await Promise.all(['a', 'b', 'c', 'd', 'e'].map((text) => pool.assign(name(text))));
    time += 10 * TTL;
    const again = openPool();
    expect(['a', 'b', 'c', 'd', 'e'].map((text) => again.get(name(text)))).toEqual(given);
    await expect(again.assign(name('f'))).rejects.toMatchObject({ code: 'POOL_EXHAUSTED' });
    time += TTL;
    await again.assign(name('f'));
  });

  test('what was used last before a restart is taken last after it', async () => {
    const pool = openPool();
    for (const text of ['a', 'b', 'c', 'd', 'e']) await pool.assign(name(text));
    time += 700_000;
    pool.touch(name('a'));
    await pool.close();
    const again = openPool();
    expect(again.all().map(({ subject }) => subject)).toEqual(['b', 'c', 'd', 'e', 'a'].map((text) => name(text)));
  });

  test('a released address still waits after a restart', async () => {
    const pool = openPool();
    for (const text of ['a', 'b', 'c', 'd', 'e']) await pool.assign(name(text));
    await pool.release(name('a'));
    const again = openPool();
    expect(again.get(name('a'))).toBeUndefined();
    await expect(again.assign(name('f'))).rejects.toMatchObject({ code: 'POOL_EXHAUSTED' });
  });

  test('only its owner may read it and the key', async () => {
    await openPool().assign(name('a'));
    for (const file of ['addresses.log', 'addresses.key']) expect(statSync(join(folder, file)).mode & 0o777).toBe(0o600);
  });

  test('two nodes give one name different addresses', async () => {
    const ipv4 = '198.18.0.0/15';
    const first = await openPool({ ipv4 }).assign(name('camera'));
    rmSync(join(folder, 'addresses.key'));
    rmSync(logFile());
    const second = await openPool({ ipv4 }).assign(name('camera'));
    expect(second.v6).not.toBe(first.v6);
  });

  test('cut short at every length it keeps every whole record, says so in one line, and goes on', async () => {
    const pool = openPool({ ipv4: '198.18.0.0/24' });
    const names = ['a', 'b', 'c', 'd'];
    const given = new Map<string, string>();
    for (const text of names) given.set(text, (await pool.assign(name(text))).v4);
    const whole = readFileSync(logFile());
    const ends = [...whole].flatMap((byte, at) => (byte === 0x0a ? [at] : []));
    for (let length = 0; length <= whole.length; length += 1) {
      writeFileSync(logFile(), whole.subarray(0, length));
      lines = [];
      const cut = openPool({ ipv4: '198.18.0.0/24' });
      // The header is the first line; a record counts when it lacks its line feed at most.
      const kept = Math.max(0, ends.filter((end) => end <= length).length - 1);
      expect(cut.all().map(({ subject, addresses }) => [subject.kind === 'name' ? subject.name : '', addresses.v4])).toEqual(
        names.slice(0, kept).map((text) => [text, given.get(text)]),
      );
      const clean = length === 0 || ends.some((end) => end === length || end + 1 === length);
      expect(lines).toHaveLength(clean ? 0 : 1);
      await cut.assign(name('later'));
      await cut.close();
      lines = [];
      expect(openPool({ ipv4: '198.18.0.0/24' }).all()).toHaveLength(kept + 1);
      expect(lines).toEqual([]);
    }
  }, 60_000);

  test('a tail of zeros, as a power cut leaves it, is dropped', async () => {
    await openPool().assign(name('a'));
    writeFileSync(logFile(), Buffer.concat([readFileSync(logFile()), Buffer.alloc(4_096)]));
    expect(openPool().all()).toHaveLength(1);
    expect(lines).toHaveLength(1);
  });

  test('any byte changed before the last record is refused with one line', async () => {
    const pool = openPool();
    for (const text of ['a', 'b', 'c']) await pool.assign(name(text));
    await pool.close();
    const whole = readFileSync(logFile());
    const last = whole.lastIndexOf(0x0a, whole.length - 2);
    for (let at = 0; at < last; at += 1) {
      const damaged = Buffer.from(whole);
      damaged[at] = (damaged[at] ?? 0) ^ 1;
      writeFileSync(logFile(), damaged);
      expect(() => openPool()).toThrow(
        expect.objectContaining({ code: 'BAD_STATE', message: expect.stringMatching(/^[^\n]*addresses\.log is damaged[^\n]*$/) }),
      );
    }
  });

  test('a damaged key is refused with one line', async () => {
    await openPool().assign(name('a'));
    const file = join(folder, 'addresses.key');
    writeFileSync(file, readFileSync(file, 'utf8').slice(0, 20));
    expect(() => openPool()).toThrow(expect.objectContaining({ code: 'BAD_STATE' }));
  });

  test('does not grow without end', async () => {
    const pool = openPool();
    for (let round = 0; round < 1_500; round += 1) {
      await pool.assign(name('a'));
      await pool.release(name('a'));
    }
    const kept = await pool.assign(name('a'));
    expect(readFileSync(logFile(), 'utf8').split('\n').length).toBeLessThan(1_100);
    expect(openPool().get(name('a'))).toEqual(kept);
  }, 30_000);

  test('many at once share a few syncs', async () => {
    const pool = openPool({ ipv4: '198.18.0.0/15' });
    await pool.assign(name('first'));
    const handle = await openFile(logFile());
    const syncs = jest.spyOn(Object.getPrototypeOf(handle) as FileHandle, 'datasync');
    await handle.close();
    await Promise.all(Array.from({ length: 2_000 }, (_, index) => pool.assign(name(`n${index}`))));
    const late = pool.assign(name('late'));
    await Promise.all([late, pool.assign(name('later'))]);
    expect(syncs).toHaveBeenCalledTimes(2);
    syncs.mockRestore();
    expect(openPool({ ipv4: '198.18.0.0/15' }).all()).toHaveLength(2_003);
  });

  test('an address that could not be written is not given, and the next try may succeed', async () => {
    const pool = openPool();
    // In the way of the file's first writing.
    mkdirSync(join(folder, 'addresses.log.tmp'));
    const both = [pool.assign(name('a')), pool.assign(name('a'))];
    for (const one of both) await expect(one).rejects.toMatchObject({ code: 'NOT_WRITABLE' });
    expect(pool.get(name('a'))).toBeUndefined();
    rmdirSync(join(folder, 'addresses.log.tmp'));
    const given = await pool.assign(name('a'));
    expect(openPool().all()).toEqual([{ subject: name('a'), addresses: given }]);
  });

  test('a changed pool forgets the addresses outside it and keeps those inside', async () => {
    const pool = openPool({ ipv4: '198.18.0.0/28' });
    for (let index = 0; index < 13; index += 1) await pool.assign(name(`n${index}`));
    const inside = pool.all().filter(({ addresses }) => Number(addresses.v4.split('.')[3]) < 7 && addresses.v4 !== '198.18.0.1');
    const narrow = openPool({ ipv4: '198.18.0.0/29' });
    expect(narrow.all()).toEqual(inside);
    expect(openPool({ ipv4: '10.0.0.0/24' }).all()).toEqual([]);
  });
});

test('randomUla makes a /64 in fd00::/8 once and keeps it', () => {
  const first = randomUla(folder);
  expect(first).toMatch(/^fd[0-9a-f:]+::\/64$/);
  expect(randomUla(folder)).toBe(first);
  rmSync(join(folder, 'ula.json'));
  expect(randomUla(folder)).not.toBe(first);
});
