/** A SOCKS5 proxy into the overlay: nothing else is reached through it. It asks nobody who he is, so it belongs on loopback. */
import type { Socket } from 'node:net';
import type { Logger } from 'pino';
import type { Splice } from '../dataplane/index.js';
import { serve } from './connection.js';
import type { Overlay } from './overlay.js';

export interface SocksOptions {
  readonly overlay: Overlay;
  readonly log: Logger;
  /** Milliseconds in which a client must have said what it wants, and hang up when it was turned down; default 10 s. */
  readonly patienceMs?: number;
  /** UDP associations at once; default 256. */
  readonly associations?: number;
}

const PATIENCE = 10_000;
const ASSOCIATIONS = 256;

export class SocksServer {
  readonly #o: SocksOptions;
  readonly #associations = new Set<Socket>();

  constructor(options: SocksOptions) {
    this.#o = options;
  }

  /** Serves a client's connection, which is paused and may be half open; resolves with the splice that goes on with it, if there is one. Never rejects. */
  serve(socket: Socket): Promise<Splice | undefined> {
    const { overlay, log, patienceMs = PATIENCE, associations = ASSOCIATIONS } = this.#o;
    return serve(socket, {
      overlay,
      log,
      patienceMs,
      mayAssociate: () => this.#associations.size < associations,
      associated: (client) => {
        this.#associations.add(client);
        client.once('close', () => this.#associations.delete(client));
      },
    });
  }
}
