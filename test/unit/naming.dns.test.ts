import { createSocket, type Socket } from 'node:dgram';
import { connect, createServer, type Socket as TcpSocket } from 'node:net';
import { afterAll, afterEach, beforeAll, describe, expect, jest, test } from '@jest/globals';
import * as dns from 'dns-packet';
import fc from 'fast-check';
import { pino } from 'pino';
import { encodeResponse, parseQuery } from '../../ts/naming/dns-message.js';
import { type DnsHost, type DnsServer, formatName, openDns, type Resolution, type ResolvableName } from '../../ts/naming/index.js';
import { KeyPair } from '../../ts/trust/index.js';
import { run, waitFor } from '../lab/index.js';

const key = KeyPair.fromSeed(new Uint8Array(32).fill(3)).publicKey;
const network = KeyPair.fromSeed(new Uint8Array(32).fill(4)).publicKey;
const log = pino({ level: 'silent' });
const V6 = 'fd00:1:2:3:6df3:a197:4919:8cea';
const REVERSE6 = `${[...'fd000001000200036df3a19749198cea'].reverse().join('.')}.ip6.arpa`;

const NAMES: Readonly<Record<string, Resolution>> = {
  'camera.home': {
    status: 'found',
    addresses: { v4: '198.18.3.4', v6: V6 },
    services: [
      { protocol: 'tcp', port: 554, rtsp: true },
      { protocol: 'tcp', port: 8080, rtsp: false },
      { protocol: 'tcp', port: 80, rtsp: false },
      { protocol: 'tcp', port: 9_999, rtsp: false },
    ],
  },
  'camera.gw.home': { status: 'found', addresses: { v4: '198.18.3.5', v6: V6 } },
  'v4only.home': { status: 'found', addresses: { v4: '198.18.3.6' } },
  'lost.home': { status: 'failed', reason: 'the tree is out of reach' },
  'many.home': {
    status: 'found',
    addresses: { v4: '198.18.3.7' },
    services: Array.from({ length: 60 }, (_, index) => ({ protocol: 'tcp', port: 20_000 + index, rtsp: true })),
  },
  [`camera.${network}`]: { status: 'found', addresses: { v4: '198.18.3.4', v6: V6 } },
  [key]: { status: 'found', addresses: { v4: '198.18.3.8', v6: V6 } },
};

const asked: string[] = [];
let resolve: (name: ResolvableName) => Promise<Resolution>;
const answerAtOnce = async (name: ResolvableName): Promise<Resolution> => {
  const text = name.kind === 'key' ? name.key : `${name.name}.${name.network}`;
  asked.push(text);
  return NAMES[text] ?? { status: 'notFound' };
};
const host: DnsHost = {
  resolve: (name) => resolve(name),
  reverse: (address) =>
    address === '198.18.3.4' || address === V6 ? { status: 'found', name: 'camera.home.thicket' } : { status: 'notFound' },
  isNetwork: (label) => label === 'home' || label === network,
  ownAddresses: () => ['127.0.0.1'],
};

// Each answer starts a `dig`, and other tests want the processors, too.
jest.setTimeout(30_000);

let port: number;
let server: DnsServer;

beforeAll(async () => {
  port = await freePort();
  server = await openDns({
    addresses: ['127.0.0.1', '::1'],
    port,
    domain: 'thicket',
    pools: ['198.18.0.0/15', 'fd00:1:2:3::/64'],
    ttlMs: 60_000,
    log,
    host,
  });
});

afterAll(() => server.close());

afterEach(() => {
  resolve = answerAtOnce;
  asked.length = 0;
});
resolve = answerAtOnce;

async function freePort(): Promise<number> {
  const probe = createServer();
  await new Promise<void>((done) => probe.listen(0, '127.0.0.1', done));
  const address = probe.address();
  await new Promise((done) => probe.close(done));
  return typeof address === 'object' && address !== null ? address.port : 0;
}

interface Dug {
  readonly status: string;
  readonly flags: readonly string[];
  readonly answers: readonly string[];
  readonly authority: readonly string[];
  readonly additional: readonly string[];
  readonly text: string;
}

/** What the real `dig` makes of the answer. */
async function dig(...args: string[]): Promise<Dug> {
  const server = args.some((arg) => arg.startsWith('@')) ? [] : ['@127.0.0.1'];
  const options = ['+tries=1', '+time=3', '-p', String(port)];
  const { stdout: text } = await run(['dig', ...server, ...options, ...args], { check: false });
  const section = (title: string): string[] =>
    (new RegExp(`;; ${title} SECTION:\\n((?:[^;\\n][^\\n]*\\n?)+)`).exec(text)?.[1] ?? '')
      .trim()
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => line.replace(/\s+/g, ' '));
  return {
    status: /status: (\w+)/.exec(text)?.[1] ?? 'NONE',
    flags: (/flags: ([a-z ]*);/.exec(text)?.[1] ?? '').split(' '),
    answers: section('ANSWER'),
    authority: section('AUTHORITY'),
    additional: section('ADDITIONAL'),
    text,
  };
}

const SOA = expect.stringMatching(/^thicket\. 5 IN SOA thicket\. nobody\.thicket\. 1 3600 600 86400 5$/);

describe('forward', () => {
  test.each([
    ['camera.home.thicket', '198.18.3.4'],
    ['camera.gw.home.thicket', '198.18.3.5'],
    [`${key}.thicket`, '198.18.3.8'],
    [`camera.${network}.thicket`, '198.18.3.4'],
  ])('A and AAAA of %s', async (name, v4) => {
    const a = await dig(name, 'A');
    expect(a).toMatchObject({ status: 'NOERROR', answers: [`${name}. 60 IN A ${v4}`], authority: [] });
    expect(a.flags).toEqual(expect.arrayContaining(['qr', 'aa', 'rd']));
    expect(a.flags).not.toContain('tc');
    expect(await dig(name, 'AAAA')).toMatchObject({ status: 'NOERROR', answers: [`${name}. 60 IN AAAA ${V6}`] });
  });

  test('letter case does not matter and comes back as it was asked', async () => {
    const { answers, text } = await dig('CaMeRa.Home.THICKET', 'A');
    expect(answers).toHaveLength(1);
    expect(text).toContain(';CaMeRa.Home.THICKET.');
  });

  test('a name that exists has no data for a type it lacks: NOERROR with the SOA', async () => {
    for (const type of ['AAAA', 'MX', 'TXT', 'HTTPS', 'SRV', 'NS', 'TYPE4711']) {
      expect(await dig('v4only.home.thicket', type)).toMatchObject({ status: 'NOERROR', answers: [], authority: [SOA] });
    }
  });

  test('so have the apexes', async () => {
    for (const name of ['thicket', 'home.thicket']) {
      for (const type of ['A', 'AAAA', 'NS']) {
        expect(await dig(name, type)).toMatchObject({ status: 'NOERROR', answers: [], authority: [SOA] });
      }
    }
    expect(await dig('thicket', 'SOA')).toMatchObject({ status: 'NOERROR', answers: [SOA] });
    expect(asked).toEqual([]);
  });

  test('unknown names are NXDOMAIN with the SOA; those that cannot exist are not looked up', async () => {
    expect(await dig('nobody.home.thicket')).toMatchObject({ status: 'NXDOMAIN', answers: [], authority: [SOA] });
    expect(asked).toEqual(['nobody.home']);
    for (const name of [
      'camera.away.thicket',
      'away.thicket',
      'a.b.c.home.thicket',
      'cam_era.home.thicket',
      '_rtsp._tcp.home.thicket',
      'a\\.b.home.thicket',
    ]) {
      expect(await dig(name)).toMatchObject({ status: 'NXDOMAIN', authority: [SOA] });
    }
    expect(asked).toEqual(['nobody.home']);
  });

  test('what cannot be told now is SERVFAIL, with the reason for dig', async () => {
    const { status, answers, authority, text } = await dig('lost.home.thicket');
    expect({ status, answers, authority }).toEqual({ status: 'SERVFAIL', answers: [], authority: [] });
    expect(text).toMatch(/EDE: 22 .*the tree is out of reach/);
    resolve = () => Promise.reject(new Error('broken'));
    expect(await dig('camera.home.thicket')).toMatchObject({ status: 'SERVFAIL' });
  });

  test('other domains, classes and zone transfers are REFUSED', async () => {
    for (const args of [
      ['example.com'],
      ['.', 'NS'],
      ['camera.home.thicket.example'],
      ['version.bind', 'CH', 'TXT'],
      ['arpa', 'SOA'],
      ['camera.home.thicket', 'CH'],
    ]) {
      expect(await dig(...args)).toMatchObject({ status: 'REFUSED', answers: [], authority: [] });
    }
    expect((await dig('thicket', 'AXFR')).text).toMatch(/Transfer failed/);
    expect(asked).toEqual([]);
  });

  test('ANY gives both addresses', async () => {
    const { answers } = await dig('camera.home.thicket', 'ANY');
    expect(answers).toEqual([`camera.home.thicket. 60 IN A 198.18.3.4`, `camera.home.thicket. 60 IN AAAA ${V6}`]);
  });
});

describe('backward', () => {
  test('PTR of pool addresses', async () => {
    expect(await dig('-x', '198.18.3.4')).toMatchObject({
      status: 'NOERROR',
      answers: ['4.3.18.198.in-addr.arpa. 60 IN PTR camera.home.thicket.'],
    });
    expect(await dig('-x', V6)).toMatchObject({ status: 'NOERROR', answers: [`${REVERSE6}. 60 IN PTR camera.home.thicket.`] });
  });

  test('a pool address without a name is NXDOMAIN, one of nobody REFUSED', async () => {
    const soa = (zone: string) => [expect.stringMatching(new RegExp(`^${zone}\\. 5 IN SOA`))];
    expect(await dig('-x', '198.18.3.9')).toMatchObject({ status: 'NXDOMAIN', authority: soa('18.198.in-addr.arpa') });
    expect(await dig('-x', '198.19.255.255')).toMatchObject({ status: 'NXDOMAIN', authority: soa('19.198.in-addr.arpa') });
    expect(await dig('-x', 'fd00:1:2:3::9')).toMatchObject({ status: 'NXDOMAIN' });
    for (const address of ['198.20.0.1', '198.17.255.255', '127.0.0.1', 'fd00:1:2:4::1', '::1']) {
      expect(await dig('-x', address)).toMatchObject({ status: 'REFUSED' });
    }
  });

  test('the zones have SOAs, and no data in between', async () => {
    expect((await dig('18.198.in-addr.arpa', 'SOA')).answers).toHaveLength(1);
    expect(await dig('3.18.198.in-addr.arpa', 'NS')).toMatchObject({
      status: 'NOERROR',
      answers: [],
      authority: [expect.stringMatching(/SOA/)],
    });
    expect(await dig('4.3.18.198.in-addr.arpa', 'A')).toMatchObject({
      status: 'NOERROR',
      answers: [],
      authority: [expect.stringMatching(/SOA/)],
    });
    for (const name of ['256.3.18.198.in-addr.arpa', '04.3.18.198.in-addr.arpa', '1.4.3.18.198.in-addr.arpa', 'x.18.198.in-addr.arpa']) {
      expect(await dig(name, 'PTR')).toMatchObject({ status: 'NXDOMAIN' });
    }
  });
});

describe('services', () => {
  test('SRV leads to the name and its port, addresses enclosed', async () => {
    const srv = await dig('_rtsp._tcp.camera.home.thicket', 'SRV');
    expect(srv.answers).toEqual(['_rtsp._tcp.camera.home.thicket. 60 IN SRV 0 0 554 camera.home.thicket.']);
    expect(srv.additional).toEqual(['camera.home.thicket. 60 IN A 198.18.3.4', `camera.home.thicket. 60 IN AAAA ${V6}`]);
    expect((await dig('_http._tcp.camera.home.thicket', 'SRV')).answers).toEqual([
      '_http._tcp.camera.home.thicket. 60 IN SRV 0 0 80 camera.home.thicket.',
      '_http._tcp.camera.home.thicket. 60 IN SRV 0 0 8080 camera.home.thicket.',
    ]);
  });

  test('a DNS-SD browser finds types, instances, ports and attributes', async () => {
    const types = await dig('_services._dns-sd._udp.camera.home.thicket', 'PTR');
    expect(types.answers.map((line) => line.split(' ').at(-1))).toEqual([
      '_http._tcp.camera.home.thicket.',
      '_rtsp._tcp.camera.home.thicket.',
    ]);
    const instances = await dig('_http._tcp.camera.home.thicket', 'PTR');
    expect(instances.answers.map((line) => line.split(' ').at(-1))).toEqual([
      'camera._http._tcp.camera.home.thicket.',
      'camera-8080._http._tcp.camera.home.thicket.',
    ]);
    expect((await dig('camera-8080._http._tcp.camera.home.thicket', 'SRV')).answers).toEqual([
      'camera-8080._http._tcp.camera.home.thicket. 60 IN SRV 0 0 8080 camera.home.thicket.',
    ]);
    expect((await dig('camera._rtsp._tcp.camera.home.thicket', 'TXT')).answers).toEqual([
      'camera._rtsp._tcp.camera.home.thicket. 60 IN TXT ""',
    ]);
  });

  test('a service that is not there does not exist; what lies above one that is does', async () => {
    for (const name of [
      '_mqtt._tcp.camera.home.thicket',
      '_rtsp._udp.camera.home.thicket',
      'other._rtsp._tcp.camera.home.thicket',
      '_rtsp._tcp.nobody.home.thicket',
    ]) {
      expect(await dig(name, 'SRV')).toMatchObject({ status: 'NXDOMAIN' });
    }
    expect(await dig('_tcp.camera.home.thicket', 'SRV')).toMatchObject({ status: 'NOERROR', answers: [], authority: [SOA] });
    expect(await dig('_rtsp._tcp.camera.home.thicket', 'A')).toMatchObject({ status: 'NOERROR', answers: [], authority: [SOA] });
    expect(await dig('_rtsp._tcp.lost.home.thicket', 'SRV')).toMatchObject({ status: 'SERVFAIL' });
  });
});

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
    resolve = (name) =>
      formatName(name, 'thicket').startsWith('slow')
        ? new Promise((done) => {
            release = done;
          })
        : answerAtOnce(name);
    const connection = await tcp();
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
    const connection = await tcp();
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
    resolve = () => {
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
    const client = await udp();
    for (let id = 0; id < 50; id += 1) client.send(query('camera.home.thicket', id));
    // An answer that needs no look-up: all before it have been read.
    const answered = new Promise((done) => client.on('message', (bytes) => bytes.readUInt16BE(0) === 999 && done(undefined)));
    client.send(query('thicket', 999));
    await answered;
    await waitFor(() => calls === 1);
    const timer = setInterval(() => release(NAMES['camera.home'] as Resolution), 20).unref();
    expect((await both).map(({ answers }) => answers.length)).toEqual([1, 1, 1]);
    clearInterval(timer);
    client.close();
    expect(calls).toBeLessThanOrEqual(3);
  });

  test('look-ups under way are bounded: the rest is SERVFAIL at once, and it recovers', async () => {
    const waiting: ((resolution: Resolution) => void)[] = [];
    resolve = () => new Promise((done) => waiting.push(done));
    const client = await udp();
    const rcodes = new Map<number, number>();
    client.on('message', (bytes) => rcodes.set(bytes.readUInt16BE(0), bytes.readUInt16BE(2) & 0xf));
    for (let id = 0; id < 200; id += 1) client.send(query(`n${id}.home.thicket`, id));
    await waitFor(() => rcodes.size === 72);
    expect(new Set(rcodes.values())).toEqual(new Set([2]));
    expect(waiting).toHaveLength(128);
    for (const done of waiting) done({ status: 'notFound' });
    await waitFor(() => rcodes.size === 200);
    client.close();
    resolve = answerAtOnce;
    expect(await dig('camera.home.thicket')).toMatchObject({ status: 'NOERROR' });
  });
});

describe('what is no good query', () => {
  async function ask(bytes: Uint8Array): Promise<Buffer | undefined> {
    const client = await udp();
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
    const client = await udp();
    const connection = await tcp();
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
    const options = { domain: 'thicket', pools: [], ttlMs: 1_000, log, host };
    await expect(openDns({ ...options, addresses: ['127.0.0.2', '127.0.0.1'], port })).rejects.toMatchObject({ code: 'ADDRESS_IN_USE' });
    const other = await openDns({ ...options, addresses: ['127.0.0.2'], port });
    await other.close();
    await expect(openDns({ ...options, addresses: ['192.0.2.1'], port: free })).rejects.toMatchObject({ code: 'BAD_ARGUMENT' });
  });

  test('closes with questions and connections open', async () => {
    const other = await freePort();
    const closing = await openDns({ addresses: ['127.0.0.1'], port: other, domain: 'thicket', pools: [], ttlMs: 1_000, log, host });
    let release: (resolution: Resolution) => void = () => {};
    resolve = () =>
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

function query(name: string, id: number): Buffer {
  return dns.encode({ type: 'query', id, flags: dns.RECURSION_DESIRED, questions: [{ type: 'A', name }] });
}

function framed(message: Buffer): [Buffer, Buffer] {
  return [Buffer.from([message.length >> 8, message.length & 0xff]), message];
}

async function udp(): Promise<Socket> {
  const client = createSocket('udp4').unref();
  client.on('error', () => {});
  await new Promise<void>((done) => client.connect(port, '127.0.0.1', done));
  return client;
}

async function tcp(): Promise<TcpSocket> {
  const connection = connect(port, '127.0.0.1').unref();
  connection.on('error', () => {});
  await new Promise((done) => connection.once('connect', done));
  return connection;
}

/** Calls back with each frame; resolves when the server ends the connection. */
function readFrames(connection: TcpSocket, onFrame: (frame: Buffer) => void): Promise<void> {
  let buffer = Buffer.alloc(0);
  connection.on('data', (bytes: Buffer) => {
    buffer = Buffer.concat([buffer, bytes]);
    while (buffer.length >= 2 && buffer.length >= 2 + buffer.readUInt16BE(0)) {
      const end = 2 + buffer.readUInt16BE(0);
      onFrame(buffer.subarray(2, end));
      buffer = buffer.subarray(end);
    }
  });
  return new Promise((done) => connection.on('end', done));
}
