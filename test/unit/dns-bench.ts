/** A DNS server of ts/naming with names of its own, on a free port, and who asks it: the real `dig`, bare sockets. */
import { createSocket, type Socket } from 'node:dgram';
import { connect, createServer, type Socket as TcpSocket } from 'node:net';
import * as dns from 'dns-packet';
import { pino } from 'pino';
import { type DnsHost, type DnsServer, openDns, type Resolution, type ResolvableName } from '../../ts/naming/index.js';
import { KeyPair } from '../../ts/trust/index.js';
import { run } from '../lab/index.js';

export const key = KeyPair.fromSeed(new Uint8Array(32).fill(3)).publicKey;
export const network = KeyPair.fromSeed(new Uint8Array(32).fill(4)).publicKey;
export const log = pino({ level: 'silent' });
export const V6 = 'fd00:1:2:3:6df3:a197:4919:8cea';
export const REVERSE6 = `${[...'fd000001000200036df3a19749198cea'].reverse().join('.')}.ip6.arpa`;

export const CAMERA: Resolution = {
  status: 'found',
  addresses: { v4: '198.18.3.4', v6: V6 },
  services: [
    { protocol: 'tcp', port: 554, rtsp: true },
    { protocol: 'tcp', port: 8080, rtsp: false },
    { protocol: 'tcp', port: 80, rtsp: false },
    { protocol: 'tcp', port: 9_999, rtsp: false },
  ],
};

const NAMES: Readonly<Record<string, Resolution>> = {
  'camera.home': CAMERA,
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

type Resolve = (name: ResolvableName) => Promise<Resolution>;

export class DnsBench {
  readonly port: number;
  /** Names that were looked up. */
  readonly asked: string[] = [];
  readonly answerAtOnce: Resolve = async (name) => {
    const text = name.kind === 'key' ? name.key : `${name.name}.${name.network}`;
    this.asked.push(text);
    return NAMES[text] ?? { status: 'notFound' };
  };
  /** What looks names up. */
  resolve: Resolve = this.answerAtOnce;
  readonly host: DnsHost = {
    resolve: (name) => this.resolve(name),
    reverse: (address) =>
      address === '198.18.3.4' || address === V6 ? { status: 'found', name: 'camera.home.thicket' } : { status: 'notFound' },
    isNetwork: (label) => label === 'home' || label === network,
    ownAddresses: () => ['127.0.0.1'],
  };
  #server: DnsServer | undefined;

  private constructor(port: number) {
    this.port = port;
  }

  static async open(): Promise<DnsBench> {
    const bench = new DnsBench(await freePort());
    bench.#server = await openDns({
      addresses: ['127.0.0.1', '::1'],
      port: bench.port,
      domain: 'thicket',
      pools: ['198.18.0.0/15', 'fd00:1:2:3::/64'],
      ttlMs: 60_000,
      log,
      host: bench.host,
    });
    return bench;
  }

  /** As it was at first. */
  reset(): void {
    this.resolve = this.answerAtOnce;
    this.asked.length = 0;
  }

  async close(): Promise<void> {
    await this.#server?.close();
  }

  /** What the real `dig` makes of the answer. */
  async dig(...args: string[]): Promise<Dug> {
    const server = args.some((arg) => arg.startsWith('@')) ? [] : ['@127.0.0.1'];
    const options = ['+tries=1', '+time=3', '-p', String(this.port)];
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

  async udp(): Promise<Socket> {
    const client = createSocket('udp4').unref();
    client.on('error', () => {});
    await new Promise<void>((done) => client.connect(this.port, '127.0.0.1', done));
    return client;
  }

  async tcp(): Promise<TcpSocket> {
    const connection = connect(this.port, '127.0.0.1').unref();
    connection.on('error', () => {});
    await new Promise((done) => connection.once('connect', done));
    return connection;
  }
}

export interface Dug {
  readonly status: string;
  readonly flags: readonly string[];
  readonly answers: readonly string[];
  readonly authority: readonly string[];
  readonly additional: readonly string[];
  readonly text: string;
}

export async function freePort(): Promise<number> {
  const probe = createServer();
  await new Promise<void>((done) => probe.listen(0, '127.0.0.1', done));
  const address = probe.address();
  await new Promise((done) => probe.close(done));
  return typeof address === 'object' && address !== null ? address.port : 0;
}

export function query(name: string, id: number): Buffer {
  return dns.encode({ type: 'query', id, flags: dns.RECURSION_DESIRED, questions: [{ type: 'A', name }] });
}

export function framed(message: Buffer): [Buffer, Buffer] {
  return [Buffer.from([message.length >> 8, message.length & 0xff]), message];
}

/** Calls back with each frame; resolves when the server ends the connection. */
export function readFrames(connection: TcpSocket, onFrame: (frame: Buffer) => void): Promise<void> {
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
