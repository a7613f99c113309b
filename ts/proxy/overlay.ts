/** What a proxy needs of the node: the way into the overlay. */
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { Datagrams, Splice } from '../dataplane/index.js';
import type { OnDatagram } from '../dataplane/userspace.js';

export interface Overlay {
  /**
   * The local address by which `host` (a whole name under the domain, or a local address that some name or key has) is reached. Throws a ThicketError: REFUSED
   * for all that isn't of the overlay, else why it can't be reached.
   */
  find(host: string): Promise<string>;
  /** A TCP stream to a local address; emits `connect`, and is destroyed with a Node-like error otherwise. */
  dial(peer: string, port: number): Duplex;
  /** Joins an accepted socket with a stream of `dial` of which nothing has been read or written. */
  splice(socket: Socket, stream: Duplex, initial: Uint8Array): Splice;
  /** UDP to local addresses of one family. */
  datagrams(family: 4 | 6, onDatagram: OnDatagram): Datagrams;
}
