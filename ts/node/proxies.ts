/** SOCKS5 proxies of this node: those of the configuration, and those that a command keeps open. */
import type { Logger } from 'pino';
import type { ProxyConfig } from '../config/index.js';
import { type Overlay, SocksServer } from '../proxy/index.js';
import { type Door, Doors, type PreparedDoors } from './doors.js';

export interface ProxiesOptions {
  readonly outward: Overlay;
  readonly log: Logger;
}

export class Proxies {
  readonly #doors: Doors<ProxyConfig>;

  constructor({ outward, log }: ProxiesOptions) {
    // One for all doors: what it bounds, it bounds for the node.
    const server = new SocksServer({ overlay: outward, log });
    this.#doors = new Doors({
      kind: 'proxy',
      id: ({ listen }) => `${listen.host} ${listen.port}`,
      serve: (socket) => server.serve(socket),
      log,
    });
  }

  /** Listens. Throws ADDRESS_IN_USE. */
  open(config: ProxyConfig): Promise<Door> {
    return this.#doors.open(config);
  }

  /** See Doors. */
  prepare(wanted: readonly ProxyConfig[]): Promise<PreparedDoors> {
    return this.#doors.prepare(wanted);
  }

  close(): Promise<void> {
    return this.#doors.close();
  }
}
