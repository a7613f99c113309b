/** UDP ASSOCIATE: a port of ours that one client sends wrapped datagrams to, for as long as its TCP connection stands. */
import { createSocket, type RemoteInfo, type Socket as UdpSocket } from 'node:dgram';
import { once } from 'node:events';
import { isIPv6, type Socket } from 'node:net';
import ipaddr from 'ipaddr.js';
import type { Logger } from 'pino';
import type { Datagrams } from '../dataplane/index.js';
import { describe, ThicketError } from '../errors.js';
import type { Overlay } from './overlay.js';
import { type Datagram, encodeDatagram, readDatagram, type Target } from './socks5.js';

export interface AssociationOptions {
  readonly overlay: Overlay;
  readonly log: Logger;
}

/** Milliseconds for which an answer of `Overlay.find` is taken for true: the shortest TTL that names may have. */
const FRESH = 1_000;
/** Of one client: hosts that it sends to, and datagrams that wait for a name. */
const HOSTS = 256;
const WAITING = 32;
/** What UDP carries at most. */
const LONGEST = 65_507;
/** A client that has gone without a word is noticed by probes after so long, milliseconds. */
const KEEP_ALIVE = 60_000;

/** Opens the port; `port` is where the client says that it will send from, 0 for anywhere. Resolves with where the client shall send to. */
export async function associate(client: Socket, port: number, options: AssociationOptions): Promise<Target> {
  const local = plain(client.localAddress);
  const association = new Association(client, port, options);
  try {
    return await association.open(local);
  } catch (error) {
    association.close();
    throw error;
  }
}

/** IPv4 as such where it came over an IPv6 socket. */
const plain = (address = ''): string => (isIPv6(address) ? ipaddr.process(address).toString() : address);

class Association {
  readonly #o: AssociationOptions;
  readonly #client: Socket;
  readonly #socket: UdpSocket;
  readonly #peer: string;
  /** Where the client sends from; 0 until its first datagram. */
  #port: number;
  readonly #hosts = new Map<string, { readonly address: string; readonly until: number }>();
  /** Datagrams that wait for their host, by host. */
  readonly #waiting = new Map<string, Datagram[]>();
  /** Local addresses that the client has sent to: only they answer. */
  readonly #known = new Set<string>();
  readonly #out = new Map<4 | 6, Datagrams>();
  #closed = false;

  constructor(client: Socket, port: number, options: AssociationOptions) {
    this.#o = options;
    this.#client = client;
    this.#port = port;
    this.#peer = plain(client.remoteAddress);
    this.#socket = createSocket(isIPv6(this.#peer) ? 'udp6' : 'udp4');
    this.#socket.on('message', (bytes, from) => this.#fromClient(bytes, from));
    this.#socket.on('error', (error) => this.#fail(error));
    client.once('end', () => client.destroy());
    client.once('close', () => this.close());
  }

  async open(local: string): Promise<Target> {
    this.#socket.bind(0, local);
    await once(this.#socket, 'listening');
    if (this.#closed || this.#client.destroyed) throw new ThicketError('CLOSING', 'the client has gone');
    this.#client.setKeepAlive(true, KEEP_ALIVE);
    // Nothing more is to come, but for its end.
    this.#client.resume();
    return { host: local, port: this.#socket.address().port };
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#socket.close();
    for (const out of this.#out.values()) out.close();
  }

  #fail(error: unknown): void {
    this.#o.log.debug(`a proxy's UDP association ended: ${describe(error)}`);
    this.#client.destroy();
  }

  #fromClient(bytes: Uint8Array, { address, port }: RemoteInfo): void {
    if (plain(address) !== this.#peer || (this.#port !== 0 && port !== this.#port)) return;
    const datagram = readDatagram(bytes);
    if (datagram === undefined) return;
    this.#port = port;
    const found = this.#hosts.get(datagram.host);
    if (found !== undefined && performance.now() < found.until) this.#send(found.address, datagram);
    else this.#wait(datagram);
  }

  #wait(datagram: Datagram): void {
    const { host } = datagram;
    const waiting = this.#waiting.get(host);
    const count = [...this.#waiting.values()].reduce((sum, { length }) => sum + length, 0);
    // Lost, as UDP is.
    if (count >= WAITING) return;
    if (waiting === undefined) {
      this.#waiting.set(host, [datagram]);
      void this.#find(host);
    } else {
      waiting.push(datagram);
    }
  }

  async #find(host: string): Promise<void> {
    try {
      const address = await this.#o.overlay.find(host);
      if (this.#closed) return;
      this.#hosts.delete(host);
      this.#hosts.set(host, { address, until: performance.now() + FRESH });
      if (this.#hosts.size > HOSTS) this.#hosts.delete(this.#hosts.keys().next().value as string);
      for (const datagram of this.#waiting.get(host) ?? []) this.#send(address, datagram);
    } catch (error) {
      this.#o.log.debug(`a proxy's client can't send to ${host}: ${describe(error)}`);
    } finally {
      this.#waiting.delete(host);
    }
  }

  #send(address: string, { port, data }: Datagram): void {
    this.#known.delete(address);
    this.#known.add(address);
    if (this.#known.size > HOSTS) this.#known.delete(this.#known.values().next().value as string);
    const family = isIPv6(address) ? 6 : 4;
    let out = this.#out.get(family);
    if (out === undefined) {
      out = this.#o.overlay.datagrams(family, (peer, peerPort, bytes) => this.#toClient(peer, peerPort, bytes));
      this.#out.set(family, out);
    }
    out.send(address, port, data);
  }

  #toClient(host: string, port: number, data: Uint8Array): void {
    if (this.#closed || !this.#known.has(host)) return;
    const wrapped = encodeDatagram({ host, port, data });
    if (wrapped.length <= LONGEST) this.#socket.send(wrapped, this.#port, this.#peer, () => {});
  }
}
