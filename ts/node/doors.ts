/**
 * Ports of this host at which local programs, or devices, enter the overlay: forwards and proxies. Those of the configuration change together; a command
 * keeps one of its own open.
 */
import { createServer, type Server, type Socket } from 'node:net';
import type { Logger } from 'pino';
import type { HostPort } from '../config/index.js';
import type { Splice } from '../dataplane/index.js';
import { describe, ThicketError } from '../errors.js';

export interface DoorsOptions<C> {
  /** What they are called in messages: `forward`. */
  readonly kind: string;
  /** Two configurations with the same text are the same door. */
  readonly id: (config: C) => string;
  /**
   * Serves a connection, which is paused and may be half open; resolves with the splice that goes on with it, if one does. Never rejects. A socket that the
   * door closes is destroyed under its hands.
   */
  readonly serve: (socket: Socket, config: C) => Promise<Splice | undefined>;
  readonly log: Logger;
}

/** One that a command opened. */
export interface Door {
  /** `address:port` as bound. */
  readonly address: string;
  close(): Promise<void>;
}

/** A change of the configured doors, ready to be made. */
export interface PreparedDoors {
  /** What isn't wanted any more is closed. */
  commit(): Promise<void>;
  /** As if it had never been asked for. */
  cancel(): Promise<void>;
}

/** Several changes as one: all are made, or none. Throws what the first that can't be throws. */
export async function prepareAll(preparations: readonly (() => Promise<PreparedDoors>)[]): Promise<PreparedDoors> {
  const prepared: PreparedDoors[] = [];
  const cancel = async (): Promise<void> => {
    for (const one of prepared.reverse()) await one.cancel();
  };
  try {
    for (const prepare of preparations) prepared.push(await prepare());
  } catch (error) {
    await cancel();
    throw error;
  }
  const commit = async (): Promise<void> => {
    for (const one of prepared) await one.commit();
  };
  return { commit, cancel };
}

interface Open<C> {
  readonly config: C;
  readonly server: Server;
  /** What ends each connection. */
  readonly live: Set<() => void>;
  closed: boolean;
}

/** Connections through one door at once. */
const MOST = 1_024;

export class Doors<C extends { readonly listen: HostPort }> {
  readonly #o: DoorsOptions<C>;
  readonly #configured = new Map<string, Open<C>>();

  constructor(options: DoorsOptions<C>) {
    this.#o = options;
  }

  /** Listens, and serves what connects. Throws ADDRESS_IN_USE or NO_PRIVILEGE. */
  async open(config: C): Promise<Door> {
    const open = await this.#open(config);
    const { host, port } = config.listen;
    const bound = open.server.address();
    const boundPort = typeof bound === 'object' && bound !== null ? bound.port : port;
    return { address: host.includes(':') ? `[${host}]:${boundPort}` : `${host}:${boundPort}`, close: () => close(open) };
  }

  /**
   * Opens those of the configured doors that aren't open yet. Throws, with the others standing, when one can't be. Those that aren't wanted any
   * more go on until `commit`, except that one whose port a new one wants takes no new connections meanwhile.
   */
  async prepare(wanted: readonly C[]): Promise<PreparedDoors> {
    const ids = new Set(wanted.map(this.#o.id));
    const leaving = [...this.#configured.values()].filter(({ config }) => !ids.has(this.#o.id(config)));
    const added = new Map<string, Open<C>>();
    const deaf: Open<C>[] = [];
    const cancel = async (): Promise<void> => {
      await Promise.all([...added.values()].map(close));
      for (const { server, config } of deaf) await this.#listen(server, config.listen);
    };
    try {
      for (const config of wanted) {
        const id = this.#o.id(config);
        if (this.#configured.has(id) || added.has(id)) continue;
        for (const open of leaving.filter((other) => other.config.listen.port === config.listen.port && !deaf.includes(other))) {
          deaf.push(open);
          // Its connections stay.
          open.server.close();
        }
        added.set(id, await this.#open(config));
      }
    } catch (error) {
      await cancel();
      throw error;
    }
    const commit = async (): Promise<void> => {
      for (const open of leaving) this.#configured.delete(this.#o.id(open.config));
      for (const [id, open] of added) this.#configured.set(id, open);
      await Promise.all(leaving.map(close));
    };
    return { commit, cancel };
  }

  async close(): Promise<void> {
    await Promise.all([...this.#configured.values()].map(close));
    this.#configured.clear();
  }

  async #open(config: C): Promise<Open<C>> {
    const { kind, log } = this.#o;
    // Half-open connections stay half open, as the kernel's own would.
    const server = createServer({ allowHalfOpen: true, pauseOnConnect: true, noDelay: true }, (socket) => this.#accept(socket, open));
    const open: Open<C> = { config, server, live: new Set(), closed: false };
    await this.#listen(server, config.listen);
    server.on('error', (error) => log.warn(`a ${kind} failed: ${describe(error)}`));
    return open;
  }

  #accept(socket: Socket, open: Open<C>): void {
    const { live, config } = open;
    const end = (): void => void socket.destroy();
    live.add(end);
    socket.once('close', () => live.delete(end));
    socket.on('error', end);
    if (live.size > MOST) socket.destroy();
    else void this.#o.serve(socket, config).then((splice) => splice !== undefined && hold(open, splice));
  }

  #listen(server: Server, { host, port }: HostPort): Promise<void> {
    return new Promise((resolve, reject) => {
      const failed = (error: NodeJS.ErrnoException): void => {
        const code = error.code === 'EADDRINUSE' || error.code === 'EADDRNOTAVAIL' ? 'ADDRESS_IN_USE' : 'NO_PRIVILEGE';
        const what = `${this.#o.kind} ${host}:${port} can't listen (${describe(error)})`;
        reject(new ThicketError(code, `${what}: choose another address`, { cause: error }));
      };
      server.once('error', failed);
      server.listen({ host, port }, () => {
        server.removeListener('error', failed);
        resolve();
      });
    });
  }
}

/** The socket's descriptor may have gone elsewhere with the splice: then that alone knows how long it lasts. */
function hold(open: Open<unknown>, { closed, abort }: Splice): void {
  if (open.closed) return abort();
  open.live.add(abort);
  void closed.then(() => open.live.delete(abort));
}

function close(open: Open<unknown>): Promise<void> {
  open.closed = true;
  return new Promise((resolve) => {
    // It may be closed already, with connections left.
    open.server.close(() => resolve());
    for (const end of open.live) end();
  });
}
