/**
 * The DNS server: UDP and TCP on the node's own addresses, for programs on this host and nobody else. Questions for the same name that come
 * while it is being looked up share that look-up.
 */
import { createSocket, type RemoteInfo, type Socket as UdpSocket } from 'node:dgram';
import { createServer, isIPv6, type Server, type Socket } from 'node:net';
import ipaddr from 'ipaddr.js';
import type { Logger } from 'pino';
import { describe, isThicketError, ThicketError } from '../errors.js';
import { encodeResponse, parseQuery } from './dns-message.js';
import { type DnsHost, type Resolution, Zone } from './dns-zone.js';
import { formatName, type ResolvableName } from './names.js';

export interface DnsOptions {
  readonly addresses: readonly string[];
  /** 0: one that is free, which needs a single address. */
  readonly port: number;
  /** One label, in lower case. */
  readonly domain: string;
  /** CIDRs of the address pools, whose reverse zones are answered. */
  readonly pools: readonly string[];
  readonly ttlMs: number;
  readonly log: Logger;
  readonly host: DnsHost;
}

export interface DnsServer {
  /** As bound, for UDP and TCP. */
  readonly port: number;
  close(): Promise<void>;
}

/** Look-ups under way, each of which may dial a session. */
const LOOKUPS = 128;
/** Questions that wait for them. */
const WAITING = 2_048;
const CONNECTIONS = 64;
/** Questions of one connection that wait for an answer; the rest stays in its buffer. */
const PER_CONNECTION = 16;
/** Bytes of answers that a connection may leave unread. */
const UNREAD = 1 << 20;
const IDLE_MS = 10_000;
/** How often a port that is free for UDP may be taken for TCP. */
const TRIES = 16;

/** Binds all addresses. Throws ADDRESS_IN_USE, NO_PRIVILEGE or BAD_ARGUMENT when one can't be, with none left bound. */
export async function openDns(options: DnsOptions): Promise<DnsServer> {
  const server = new Listeners(options);
  try {
    for (const address of options.addresses) await server.listen(address);
  } catch (error) {
    await server.close();
    throw error;
  }
  return { port: server.port, close: () => server.close() };
}

class Listeners {
  readonly #o: DnsOptions;
  readonly #zone: Zone;
  readonly #lookups = new Map<string, Promise<Resolution>>();
  readonly #udp: UdpSocket[] = [];
  readonly #tcp: Server[] = [];
  readonly #connections = new Set<Socket>();
  #waiting = 0;
  #closed = false;

  constructor(options: DnsOptions) {
    this.#o = options;
    const { domain, pools, ttlMs, host } = options;
    this.#zone = new Zone({
      domain,
      pools,
      ttlMs,
      reverse: (address) => host.reverse(address),
      isNetwork: (label) => host.isNetwork(label),
      resolve: (name) => this.#resolve(name),
    });
  }

  async listen(address: string): Promise<void> {
    for (let left = TRIES; ; left -= 1) {
      try {
        return await this.#bind(address);
      } catch (error) {
        const again = this.#o.port === 0 && left > 1 && isThicketError(error) && error.code === 'ADDRESS_IN_USE';
        if (!again) throw error;
        closeQuietly(this.#udp.pop(), () => {});
        this.#tcp.pop();
      }
    }
  }

  get port(): number {
    return this.#udp[0]?.address().port ?? this.#o.port;
  }

  async #bind(address: string): Promise<void> {
    const { log } = this.#o;
    const udp = createSocket({ type: isIPv6(address) ? 'udp6' : 'udp4', ipv6Only: isIPv6(address) });
    this.#udp.push(udp);
    await started(address, this.#o.port, udp, () => udp.bind({ address, port: this.#o.port }));
    const { port } = udp.address();
    udp.on('error', (error) => log.debug({ error: describe(error) }, 'a DNS socket had an error'));
    udp.on('message', (bytes, from) => void this.#datagram(udp, bytes, from));

    const tcp = createServer((connection) => this.#connection(connection));
    tcp.maxConnections = CONNECTIONS;
    this.#tcp.push(tcp);
    await started(address, port, tcp, () => tcp.listen({ host: address, port, ipv6Only: isIPv6(address) }));
    tcp.on('error', (error) => log.debug({ error: describe(error) }, 'a DNS listener had an error'));
  }

  async close(): Promise<void> {
    this.#closed = true;
    for (const connection of this.#connections) connection.destroy();
    // A socket whose bind failed is closed already, or never was open: both are what is wanted.
    const closing = [...this.#udp, ...this.#tcp].map((socket) => new Promise<void>((resolve) => closeQuietly(socket, resolve)));
    await Promise.all(closing);
  }

  // ── transports ────────────────────────────────────────────────────────────────────────────────────────────────────────

  async #datagram(socket: UdpSocket, bytes: Buffer, from: RemoteInfo): Promise<void> {
    // Nothing can be sent to port 0.
    if (!this.#isOurs(from.address) || from.port === 0) return;
    const response = await this.#respond(bytes, 'udp');
    if (response === undefined || this.#closed) return;
    socket.send(response, from.port, from.address, (error) => {
      if (error !== null) this.#o.log.debug({ error: describe(error) }, 'a DNS answer could not be sent');
    });
  }

  /** RFC 7766: several questions may be under way on one connection; answers go out as they come. */
  #connection(connection: Socket): void {
    connection.on('error', () => connection.destroy());
    if (connection.remoteAddress === undefined || !this.#isOurs(connection.remoteAddress)) {
      connection.destroy();
      return;
    }
    this.#connections.add(connection);
    connection.on('close', () => this.#connections.delete(connection));
    connection.setTimeout(IDLE_MS, () => connection.destroy());
    let buffer = Buffer.alloc(0);
    let open = 0;
    let ended = false;
    const step = (): void => {
      while (open < PER_CONNECTION && buffer.length >= 2 && buffer.length >= 2 + buffer.readUInt16BE(0)) {
        const length = buffer.readUInt16BE(0);
        const question = buffer.subarray(2, 2 + length);
        buffer = buffer.subarray(2 + length);
        open += 1;
        void this.#respond(question, 'tcp').then((response) => {
          open -= 1;
          // It sends what is no query at all, or doesn't read the answers.
          if (response === undefined || connection.writableLength > UNREAD) connection.destroy();
          if (connection.destroyed) return;
          if (response !== undefined) connection.write(Buffer.concat([frameLength(response), response]));
          step();
        });
      }
      if (open >= PER_CONNECTION) connection.pause();
      else connection.resume();
      if (ended && open === 0) connection.end();
    };
    connection.on('data', (bytes: Buffer) => {
      buffer = Buffer.concat([buffer, bytes]);
      step();
    });
    connection.on('end', () => {
      ended = true;
      step();
    });
  }

  #isOurs(address: string): boolean {
    const [text = ''] = address.split('%', 1);
    if (!ipaddr.isValid(text)) return false;
    const from = ipaddr.process(text);
    return (
      from.range() === 'loopback' ||
      this.#o.host.ownAddresses().some((own) => ipaddr.isValid(own) && ipaddr.process(own).toString() === from.toString())
    );
  }

  // ── answers ───────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Whatever comes in, this never rejects; undefined: no answer. */
  async #respond(bytes: Buffer, transport: 'udp' | 'tcp'): Promise<Buffer | undefined> {
    const query = parseQuery(bytes);
    if (query.kind === 'silence') return undefined;
    if (query.kind === 'refusal') return encodeResponse(query.head, { rcode: query.rcode }, transport);
    if (this.#waiting >= WAITING) return encodeResponse(query.head, { rcode: 'SERVFAIL' }, transport);
    this.#waiting += 1;
    try {
      return encodeResponse(query.head, await this.#zone.answer(query.question), transport);
    } catch (error) {
      this.#o.log.error({ error: describe(error) }, 'a DNS question could not be answered');
      return encodeResponse(query.head, { rcode: 'SERVFAIL' }, transport);
    } finally {
      this.#waiting -= 1;
    }
  }

  #resolve(name: ResolvableName): Promise<Resolution> {
    const text = formatName(name, this.#o.domain);
    const running = this.#lookups.get(text);
    if (running !== undefined) return running;
    if (this.#lookups.size >= LOOKUPS) return Promise.resolve({ status: 'failed', reason: 'too many look-ups at once' });
    const lookup = this.#o.host
      .resolve(name)
      .catch((error: unknown): Resolution => ({ status: 'failed', reason: describe(error) }))
      .finally(() => this.#lookups.delete(text));
    this.#lookups.set(text, lookup);
    return lookup;
  }
}

function frameLength(response: Buffer): Buffer {
  return Buffer.from([response.length >> 8, response.length & 0xff]);
}

function closeQuietly(socket: UdpSocket | Server | undefined, done: () => void): void {
  try {
    socket?.close(done);
  } catch {
    done();
  }
}

/** Runs `start` and waits until the socket listens. */
async function started(address: string, port: number, socket: UdpSocket | Server, start: () => void): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    const failed = (error: Error): void => reject(bindError(address, port, error));
    socket.once('error', failed);
    socket.once('listening', () => {
      socket.removeListener('error', failed);
      resolve();
    });
    start();
  });
}

function bindError(address: string, port: number, error: NodeJS.ErrnoException): ThicketError {
  const where = `DNS can't listen on ${isIPv6(address) ? `[${address}]` : address}:${port}`;
  if (error.code === 'EADDRINUSE') {
    return new ThicketError(
      'ADDRESS_IN_USE',
      `${where}, another program has it: let that one bind its own addresses only (dnsmasq: thicket dns install --how dnsmasq --config FILE), or set dns.port`,
    );
  }
  if (error.code === 'EACCES')
    return new ThicketError('NO_PRIVILEGE', `${where} without privileges: run as root, or set dns.port to 1024 or higher`);
  return new ThicketError('BAD_ARGUMENT', `${where} (${describe(error)}): check interface and dns in thicket.yaml`);
}
