import { createSocket } from 'node:dgram';
import { connect } from 'node:net';
import { afterAll, afterEach, beforeAll, describe, expect, jest, test } from '@jest/globals';
import * as dns from 'dns-packet';
import fc from 'fast-check';
import { encodeResponse, parseQuery } from '../../ts/naming/dns-message.js';
import { formatName, openDns, type Resolution } from '../../ts/naming/index.js';
import { waitFor } from '../lab/index.js';
import { CAMERA, DnsBench, type Dug, framed, freePort, log, query, readFrames } from './dns-bench.js';

// Each answer starts a `dig`, and other tests want the processors, too.
jest.setTimeout(30_000);

let bench: DnsBench;
const dig = (...args: string[]): Promise<Dug> => bench.dig(...args);

beforeAll(async () => {
  bench = await DnsBench.open();
});

afterAll(() => bench.close());

afterEach(() => bench.reset());

describe('transport', () => {
  test('TCP and IPv6 get the same answers', async () => {
    for (const args of [['+tcp'], ['@::1'], ['@::1', '+tcp']]) {
      expect(await dig(...args, 'camera.home.thicket', 'A')).toMatchObject({
        status: 'NOERROR',
        answers: ['camera.home.thicket. 60 IN A 198.18.3.4'],
      });
    }
  });

  test('EDNS0 is answered when asked for, and not otherwise; a higher version is BADVERS', async () => {
    expect((await dig('camera.home.thicket')).text).toMatch(/EDNS: version: 0, flags:; udp: 1232/);
    expect((await dig('+noedns', 'camera.home.thicket')).text).not.toMatch(/EDNS/);
    const higher = await dig('+edns=1', '+noednsneg', 'camera.home.thicket');
    expect(higher).toMatchObject({ status: 'BADVERS', answers: [] });
    expect(higher.text).toMatch(/EDNS: version: 0/);
  });

  test.each([
    ['+cookie'],
    ['+nsid'],
    ['+subnet=192.0.2.0/24'],
    ['+subnet=0'],
    ['+subnet=2001:db8::/56'],
    ['+keepalive'],
    ['+padding=128'],
    ['+dnssec'],
    ['+ednsopt=65001:abcd'],
    ['+cdflag'],
  ])('takes queries with %s', async (option) => {
    expect(await dig(option, 'camera.home.thicket')).toMatchObject({
      status: 'NOERROR',
      answers: ['camera.home.thicket. 60 IN A 198.18.3.4'],
    });
  });

  test('what is too long for the asker is cut to TC, and comes over TCP', async () => {
    for (const option of ['+noedns', '+bufsize=512', '+bufsize=4096']) {
      const cut = await dig(option, '+ignore', '_rtsp._tcp.many.home.thicket', 'SRV');
      expect(cut.flags).toContain('tc');
      expect(cut).toMatchObject({ status: 'NOERROR', answers: [] });
      expect(Number(/MSG SIZE\s+rcvd: (\d+)/.exec(cut.text)?.[1])).toBeLessThanOrEqual(512);
    }
    // Without +ignore dig asks again over TCP by itself.
    expect((await dig('_rtsp._tcp.many.home.thicket', 'SRV')).answers).toHaveLength(60);
  });

  test('512 bytes bound an answer without EDNS, 1232 one with it', () => {
    const bytes = Buffer.from(dns.encode({ type: 'query', id: 1, questions: [{ type: 'TXT', name: 'x.home.thicket' }] }));
    const parsed = parseQuery(bytes);
    if (parsed.kind !== 'question') throw new Error('not a question');
    const answer = (length: number) => ({
      rcode: 'NOERROR' as const,
      answers: [{ type: 'TXT' as const, name: 'x.home.thicket', data: Array.from({ length: length / 100 }, () => 'y'.repeat(99)) }],
    });
    expect(encodeResponse(parsed.head, answer(400), 'udp').readUInt16BE(2) & 0x200).toBe(0);
    expect(encodeResponse(parsed.head, answer(500), 'udp').readUInt16BE(2) & 0x200).toBe(0x200);
    const withEdns = { ...parsed.head, edns: { udpSize: 65_535 } };
    expect(encodeResponse(withEdns, answer(1_100), 'udp').readUInt16BE(2) & 0x200).toBe(0);
    expect(encodeResponse(withEdns, answer(1_300), 'udp').readUInt16BE(2) & 0x200).toBe(0x200);
    expect(encodeResponse(withEdns, answer(1_300), 'tcp').readUInt16BE(2) & 0x200).toBe(0);
  });

  test('several questions on one TCP connection are all answered, slow ones not before fast ones', async () => {
    let release: (resolution: Resolution) => void = () => {};
    bench.resolve = (name) =>
      formatName(name, 'thicket').startsWith('slow')
        ? new Promise((done) => {
            release = done;
          })
        : bench.answerAtOnce(name);
    const connection = await bench.tcp();
    const ids: number[] = [];
    void readFrames(connection, (frame) => ids.push(frame.readUInt16BE(0)));
    const stream = Buffer.concat(
      [query('slow.home.thicket', 1), ...Array.from({ length: 20 }, (_, i) => query('camera.home.thicket', 2 + i))].flatMap(framed),
    );
    // Byte by byte at the seams: frames need not come whole.
    connection.write(stream.subarray(0, 1));
    await new Promise((done) => connection.write(stream.subarray(1, 45), done));
    connection.write(stream.subarray(45));
    await waitFor(() => ids.length === 20);
    release({ status: 'notFound' });
    await waitFor(() => ids.length === 21);
    expect(ids.at(-1)).toBe(1);
    connection.destroy();
  });

  test('a half-closed TCP connection still gets its answer', async () => {
    const connection = await bench.tcp();
    const frames: Buffer[] = [];
    const ended = readFrames(connection, (frame) => frames.push(frame));
    connection.end(Buffer.concat(framed(query('camera.home.thicket', 7))));
    await ended;
    expect(frames.map((frame) => dns.decode(frame).answers)).toEqual([[expect.objectContaining({ data: '198.18.3.4' })]]);
  });
});

describe('load', () => {
  test('identical questions at once share one look-up', async () => {
    let release: (resolution: Resolution) => void = () => {};
    let calls = 0;
    bench.resolve = () => {
      calls += 1;
      return new Promise((done) => {
        release = done;
      });
    };
    const both = Promise.all([
      dig('camera.home.thicket', 'A'),
      dig('camera.home.thicket', 'AAAA'),
      dig('+tcp', 'CAMERA.home.thicket', 'A'),
    ]);
    await waitFor(() => calls > 0);
    const client = await bench.udp();
    for (let id = 0; id < 50; id += 1) client.send(query('camera.home.thicket', id));
    // An answer that needs no look-up: all before it have been read.
    const answered = new Promise((done) => client.on('message', (bytes) => bytes.readUInt16BE(0) === 999 && done(undefined)));
    client.send(query('thicket', 999));
    await answered;
    await waitFor(() => calls === 1);
    const timer = setInterval(() => release(CAMERA), 20).unref();
    expect((await both).map(({ answers }) => answers.length)).toEqual([1, 1, 1]);
    clearInterval(timer);
    client.close();
    expect(calls).toBeLessThanOrEqual(3);
  });

  test('look-ups under way are bounded: the rest is SERVFAIL at once, and it recovers', async () => {
    const waiting: ((resolution: Resolution) => void)[] = [];
    bench.resolve = () => new Promise((done) => waiting.push(done));
    const client = await bench.udp();
    const rcodes = new Map<number, number>();
    client.on('message', (bytes) => rcodes.set(bytes.readUInt16BE(0), bytes.readUInt16BE(2) & 0xf));
    for (let id = 0; id < 200; id += 1) client.send(query(`n${id}.home.thicket`, id));
    await waitFor(() => rcodes.size === 72);
    expect(new Set(rcodes.values())).toEqual(new Set([2]));
    expect(waiting).toHaveLength(128);
    for (const done of waiting) done({ status: 'notFound' });
    await waitFor(() => rcodes.size === 200);
    client.close();
    bench.resolve = bench.answerAtOnce;
    expect(await dig('camera.home.thicket')).toMatchObject({ status: 'NOERROR' });
  });
});

describe('what is no good query', () => {
  async function ask(bytes: Uint8Array): Promise<Buffer | undefined> {
    const client = await bench.udp();
    const answers: Buffer[] = [];
    client.on('message', (answer) => answers.push(answer));
    client.send(bytes);
    client.send(query('thicket', 0xffff));
    await waitFor(() => answers.some((answer) => answer.readUInt16BE(0) === 0xffff));
    client.close();
    return answers.find((answer) => answer.readUInt16BE(0) !== 0xffff);
  }
  const rcode = (answer: Buffer | undefined): number | undefined => answer && answer.readUInt16BE(2) & 0xf;

  test('other operations are NOTIMP', async () => {
    expect(await dig('+opcode=STATUS', 'camera.home.thicket')).toMatchObject({ status: 'NOTIMP' });
    expect(await dig('+opcode=UPDATE', 'camera.home.thicket')).toMatchObject({ status: 'NOTIMP' });
    expect(await dig('+opcode=NOTIFY', 'camera.home.thicket')).toMatchObject({ status: 'NOTIMP' });
  });

  test('none, two, cut short, with answers in it, with something behind it: FORMERR', async () => {
    const good = query('camera.home.thicket', 5);
    const with16 = (at: number, value: number): Buffer => {
      const bytes = Buffer.from(good);
      bytes.writeUInt16BE(value, at);
      return bytes;
    };
    const bad = [
      with16(4, 0),
      with16(4, 2),
      with16(6, 1),
      with16(8, 1),
      with16(10, 1),
      with16(10, 65_535),
      good.subarray(0, good.length - 1),
      good.subarray(0, 12),
      Buffer.concat([good, Buffer.alloc(3)]),
    ];
    for (const bytes of bad) expect(rcode(await ask(bytes))).toBe(1);
    expect(rcode(await ask(good))).toBe(0);
    const pointer = Buffer.from(good);
    pointer.writeUInt16BE(0xc00c, 12);
    expect(rcode(await ask(pointer))).toBe(1);
  });

  test('two OPT records, or one with a name, are FORMERR', async () => {
    const opt = Buffer.from([0, 0, 41, 0x10, 0, 0, 0, 0, 0, 0, 0]);
    const named = Buffer.concat([Buffer.from([1, 0x61]), opt]);
    for (const extra of [[opt, opt], [named]]) {
      const bytes = Buffer.concat([query('camera.home.thicket', 5), ...extra]);
      bytes.writeUInt16BE(extra.length, 10);
      expect(rcode(await ask(bytes))).toBe(1);
    }
  });

  test('responses and scraps get silence', async () => {
    const response = query('camera.home.thicket', 5);
    response.writeUInt16BE(0x8180, 2);
    expect(await ask(response)).toBeUndefined();
    expect(await ask(Buffer.alloc(11))).toBeUndefined();
    expect(await ask(Buffer.alloc(0))).toBeUndefined();
  });

  test('random bytes and mutated queries never harm it; each gets one well-formed answer or silence', async () => {
    const base = dns.encode({
      type: 'query',
      id: 5,
      flags: dns.RECURSION_DESIRED,
      questions: [{ type: 'A', name: 'camera.home.thicket' }],
      additionals: [
        {
          type: 'OPT',
          name: '.',
          udpPayloadSize: 1_232,
          extendedRcode: 0,
          ednsVersion: 0,
          flags: 0,
          flag_do: false,
          options: [{ code: 12, length: 8 }],
        },
      ],
    });
    const mutated = fc
      .tuple(
        fc.array(fc.tuple(fc.nat(base.length - 1), fc.nat(255)), { minLength: 1, maxLength: 6 }),
        fc.nat(base.length),
        fc.uint8Array({ maxLength: 20 }),
      )
      .map(([changes, length, tail]) => {
        const bytes = Buffer.from(base);
        for (const [at, value] of changes) bytes[at] = value;
        return Buffer.concat([length < base.length / 4 ? bytes.subarray(0, length) : bytes, tail.length > 15 ? tail : Buffer.alloc(0)]);
      });
    const random = fc.uint8Array({ maxLength: 600 }).map((bytes) => Buffer.from(bytes));
    const check = (bytes: Buffer): void => {
      const parsed = parseQuery(bytes);
      if (parsed.kind === 'silence') return;
      const response = encodeResponse(parsed.head, { rcode: parsed.kind === 'refusal' ? parsed.rcode : 'NOERROR' }, 'udp');
      expect(response.readUInt16BE(0)).toBe(bytes.readUInt16BE(0));
      expect(response.readUInt16BE(2) & 0x8000).toBe(0x8000);
      dns.decode(response);
    };
    fc.assert(fc.property(fc.oneof(random, mutated), check), { numRuns: 20_000 });
    const client = await bench.udp();
    const connection = await bench.tcp();
    for (const bytes of fc.sample(fc.oneof(random, mutated), 500)) client.send(bytes);
    for (const bytes of fc.sample(random, 20)) connection.write(bytes);
    expect(await dig('camera.home.thicket', 'A')).toMatchObject({ status: 'NOERROR' });
    expect(await dig('+tcp', 'camera.home.thicket', 'A')).toMatchObject({ status: 'NOERROR' });
    client.close();
    connection.destroy();
  });
});

describe('opening and closing', () => {
  test('a port in use is one clear error, and nothing stays bound', async () => {
    const free = await freePort();
    const options = { domain: 'thicket', pools: [], ttlMs: 1_000, log, host: bench.host };
    await expect(openDns({ ...options, addresses: ['127.0.0.2', '127.0.0.1'], port: bench.port })).rejects.toMatchObject({
      code: 'ADDRESS_IN_USE',
    });
    const other = await openDns({ ...options, addresses: ['127.0.0.2'], port: bench.port });
    await other.close();
    await expect(openDns({ ...options, addresses: ['192.0.2.1'], port: free })).rejects.toMatchObject({ code: 'BAD_ARGUMENT' });
  });

  test('takes a port that is free for UDP and TCP when told none', async () => {
    const options = { addresses: ['127.0.0.1'], domain: 'thicket', pools: [], ttlMs: 1_000, log, host: bench.host };
    const server = await openDns({ ...options, port: 0 });
    for (const args of [[], ['+tcp']]) {
      expect(await dig('-p', String(server.port), ...args, 'camera.home.thicket', 'A')).toMatchObject({ status: 'NOERROR' });
    }
    await server.close();
  });

  test('closes with questions and connections open', async () => {
    const other = await freePort();
    const closing = await openDns({
      addresses: ['127.0.0.1'],
      port: other,
      domain: 'thicket',
      pools: [],
      ttlMs: 1_000,
      log,
      host: bench.host,
    });
    let release: (resolution: Resolution) => void = () => {};
    bench.resolve = () =>
      new Promise((done) => {
        release = done;
      });
    const connection = connect(other, '127.0.0.1');
    const closed = new Promise((done) => connection.on('close', done));
    connection.on('error', () => {});
    connection.write(Buffer.concat(framed(query('camera.home.thicket', 1))));
    const client = createSocket('udp4');
    await new Promise<void>((done) => client.connect(other, '127.0.0.1', done));
    client.send(query('camera.home.thicket', 1));
    const lookup = release;
    await waitFor(() => release !== lookup);
    await closing.close();
    await closed;
    release({ status: 'notFound' });
    client.close();
  });
});
