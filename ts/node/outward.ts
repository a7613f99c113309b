/** The way from programs on this host into the overlay, for what isn't a packet yet: forwards, proxies, programs that embed the node. */
import { createSocket } from 'node:dgram';
import { connect, isIP, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { connected, type Datagrams, join, type Splice, type UserSpace } from '../dataplane/index.js';
import type { OnDatagram } from '../dataplane/userspace.js';
import { ThicketError } from '../errors.js';
import { type AddressPool, parseName } from '../naming/index.js';
import type { Resolver } from './resolver.js';

export interface OutwardOptions {
  /** Absent on a node without an interface of its own: then nothing is reached. */
  readonly pool: AddressPool | undefined;
  /** In user-space mode; absent, the kernel's own sockets lead through the TUN. */
  readonly userspace: UserSpace | undefined;
  readonly resolver: Pick<Resolver, 'address' | 'wanted'>;
  readonly domain: string;
}

export class Outward {
  readonly #o: OutwardOptions;

  constructor(options: OutwardOptions) {
    this.#o = options;
  }

  /** The local address by which `name` is reached: with or without the domain, or a key. Throws a ThicketError that says why not. */
  async address(name: string): Promise<string> {
    this.#pool();
    return (await this.#o.resolver.address(name)).v4;
  }

  /**
   * As `address`, for programs that don't know what belongs to the overlay: only whole names under the domain, and local addresses that somebody has, are let
   * through. Throws a ThicketError, REFUSED for all else.
   */
  async find(host: string): Promise<string> {
    const { resolver, domain } = this.#o;
    if (isIP(host) === 0) {
      if (parseName(host, domain) !== undefined) return this.address(host);
      throw new ThicketError('REFUSED', `"${host}" is not a name under .${domain}: nothing else is reached this way`);
    }
    const subject = this.#pool().lookup(host);
    if (subject === undefined || subject.kind === 'own') {
      throw new ThicketError('REFUSED', `${host} is nobody's local address: use a name under .${domain}`);
    }
    await resolver.wanted(subject);
    return host;
  }

  /**
   * A TCP stream to a local address, which emits `connect`. It is destroyed with an error that has the code of a Node socket in the same place. `own` is the
   * address that calls: this node's, or an endpoint's of ours that may call.
   */
  dial(peer: string, port: number, own: string = this.#own(peer)): Duplex {
    const { userspace } = this.#o;
    return userspace === undefined
      ? connect({ host: peer, port, localAddress: own, allowHalfOpen: true, noDelay: true })
      : userspace.dial({ own, peer, port });
  }

  /** As `dial`, once it is connected; until then `signal` gives it up. Rejects with its error. See `connected`. */
  async connect(peer: string, port: number, signal: AbortSignal): Promise<Duplex> {
    signal.throwIfAborted();
    const stream = this.dial(peer, port);
    const destroy = (): void => void stream.destroy();
    signal.addEventListener('abort', destroy, { once: true });
    try {
      await connected(stream);
    } finally {
      signal.removeEventListener('abort', destroy);
    }
    return stream;
  }

  /** Joins a local program's socket with a stream of `dial` of which nothing was read or written; `initial` goes to the stream first. */
  splice(socket: Socket, stream: Duplex, initial: Uint8Array = new Uint8Array()): Splice {
    return this.#o.userspace?.splice(socket, stream, initial) ?? join(socket, stream, initial);
  }

  /** UDP to local addresses of one family, from a port that is chosen. */
  datagrams(family: 4 | 6, onDatagram: OnDatagram): Datagrams {
    const { v4, v6 } = this.#pool().first;
    const own = family === 4 ? v4 : v6;
    if (own === undefined) throw new ThicketError('REFUSED', 'there are no IPv6 addresses here: see interface: { ipv6 }');
    return this.#o.userspace?.datagrams(own, onDatagram) ?? kernelDatagrams(own, family, onDatagram);
  }

  #own(peer: string): string {
    const { v4, v6 } = this.#pool().first;
    return peer.includes(':') ? (v6 ?? v4) : v4;
  }

  #pool(): AddressPool {
    const { pool } = this.#o;
    if (pool === undefined) throw new ThicketError('REFUSED', 'this node has no interface of its own: use a leaf');
    return pool;
  }
}

function kernelDatagrams(own: string, family: 4 | 6, onDatagram: OnDatagram): Datagrams {
  const socket = createSocket(family === 4 ? 'udp4' : 'udp6');
  let closed = false;
  const close = (): void => {
    if (!closed) socket.close();
    closed = true;
  };
  socket.on('message', (bytes, { address, port }) => onDatagram(address, port, bytes));
  // Nothing can be sent from here any more: what is sent is lost, as UDP's is.
  socket.on('error', close);
  socket.bind(0, own);
  return {
    send: (peer, port, bytes) => {
      if (!closed) socket.send(bytes, port, peer, () => {});
    },
    close,
  };
}
