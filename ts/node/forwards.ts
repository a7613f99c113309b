/** Forwards: ports of this host that lead to remote services, for programs that can't use names. */
import { connect, createServer, type Server, type Socket } from 'node:net';
import { pipeline } from 'node:stream';
import type { Logger } from 'pino';
import type { HostPort } from '../config/index.js';
import { describe, ThicketError } from '../errors.js';
import type { Addresses } from '../naming/index.js';

export interface ForwardsOptions {
  readonly resolve: (name: string) => Promise<Addresses>;
  readonly log: Logger;
}

export interface Forward {
  /** `address:port` as bound. */
  readonly address: string;
  close(): Promise<void>;
}

export interface ConfiguredForward {
  readonly listen: HostPort;
  readonly name: string;
  readonly port: number;
}

/** A change of the configured forwards, ready to be made. */
export interface PreparedForwards {
  /** What isn't wanted any more is closed. */
  commit(): Promise<void>;
  /** As if it had never been asked for. */
  cancel(): Promise<void>;
}

interface Open {
  readonly config: ConfiguredForward;
  readonly server: Server;
  readonly sockets: Set<Socket>;
}

const forwardId = (f: ConfiguredForward): string => `${f.listen.host} ${f.listen.port} ${f.name} ${f.port}`;

/** Connections of one forward at once. */
const MOST = 1_024;

export class Forwards {
  readonly #o: ForwardsOptions;
  readonly #configured = new Map<string, Open>();

  constructor(options: ForwardsOptions) {
    this.#o = options;
  }

  /** Listens; every connection is carried to the service. Throws ADDRESS_IN_USE. */
  async open(listen: HostPort, name: string, port: number): Promise<Forward> {
    const open = await this.#open({ listen, name, port });
    const bound = open.server.address();
    const boundPort = typeof bound === 'object' && bound !== null ? bound.port : listen.port;
    return {
      address: listen.host.includes(':') ? `[${listen.host}]:${boundPort}` : `${listen.host}:${boundPort}`,
      close: () => close(open),
    };
  }

  /**
   * Opens those of the configured forwards that aren't open yet. Throws, with the others standing, when one can't be. Those that aren't wanted any
   * more go on until `commit`, except that one whose port a new one wants takes no new connections meanwhile.
   */
  async prepare(wanted: readonly ConfiguredForward[]): Promise<PreparedForwards> {
    const ids = new Set(wanted.map(forwardId));
    const leaving = [...this.#configured.values()].filter(({ config }) => !ids.has(forwardId(config)));
    const added = new Map<string, Open>();
    const deaf: Open[] = [];
    const cancel = async (): Promise<void> => {
      await Promise.all([...added.values()].map(close));
      for (const { server, config } of deaf) await listening(server, config.listen);
    };
    try {
      for (const config of wanted) {
        const id = forwardId(config);
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
      for (const open of leaving) this.#configured.delete(forwardId(open.config));
      for (const [id, open] of added) this.#configured.set(id, open);
      await Promise.all(leaving.map(close));
    };
    return { commit, cancel };
  }

  async close(): Promise<void> {
    await Promise.all([...this.#configured.values()].map(close));
    this.#configured.clear();
  }

  async #open(config: ConfiguredForward): Promise<Open> {
    const sockets = new Set<Socket>();
    // Half-open connections stay half open, as the kernel's own would.
    const server = createServer({ allowHalfOpen: true, pauseOnConnect: true, noDelay: true }, (socket) => {
      sockets.add(socket);
      socket.once('close', () => sockets.delete(socket));
      socket.on('error', () => socket.destroy());
      if (sockets.size > MOST) socket.destroy();
      else void this.#carry(socket, config.name, config.port, sockets);
    });
    await listening(server, config.listen);
    server.on('error', (error) => this.#o.log.warn(`a forward failed: ${describe(error)}`));
    return { config, server, sockets };
  }

  async #carry(socket: Socket, name: string, port: number, sockets: Set<Socket>): Promise<void> {
    try {
      const { v4 } = await this.#o.resolve(name);
      if (socket.destroyed) return;
      const onward = connect({ host: v4, port, allowHalfOpen: true, noDelay: true });
      sockets.add(onward);
      onward.once('close', () => sockets.delete(onward));
      onward.once('error', () => socket.resetAndDestroy());
      socket.once('error', () => onward.resetAndDestroy());
      onward.once('connect', () => {
        const over = (): void => {};
        pipeline(socket, onward, over);
        pipeline(onward, socket, over);
        socket.resume();
      });
      socket.once('close', () => onward.destroy());
    } catch (error) {
      this.#o.log.debug(`a forward to ${name}:${port} failed: ${describe(error)}`);
      socket.resetAndDestroy();
    }
  }
}

function close({ server, sockets }: Open): Promise<void> {
  return new Promise((resolve) => {
    // It may be closed already, with connections left.
    server.close(() => resolve());
    for (const socket of sockets) socket.destroy();
  });
}

function listening(server: Server, { host, port }: HostPort): Promise<void> {
  return new Promise((resolve, reject) => {
    const failed = (error: NodeJS.ErrnoException): void => {
      const code = error.code === 'EADDRINUSE' || error.code === 'EADDRNOTAVAIL' ? 'ADDRESS_IN_USE' : 'NO_PRIVILEGE';
      reject(new ThicketError(code, `forward ${host}:${port} can't listen (${describe(error)}): choose another address`, { cause: error }));
    };
    server.once('error', failed);
    server.listen({ host, port }, () => {
      server.removeListener('error', failed);
      resolve();
    });
  });
}
