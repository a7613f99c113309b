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

const forwardId = (f: ConfiguredForward): string => `${f.listen.host} ${f.listen.port} ${f.name} ${f.port}`;

/** Connections of one forward at once. */
const MOST = 1_024;

export class Forwards {
  readonly #o: ForwardsOptions;
  readonly #configured = new Map<string, Forward>();

  constructor(options: ForwardsOptions) {
    this.#o = options;
  }

  /** Listens; every connection is carried to the service. Throws ADDRESS_IN_USE. */
  async open(listen: HostPort, name: string, port: number): Promise<Forward> {
    const sockets = new Set<Socket>();
    // Half-open connections stay half open, as the kernel's own would.
    const server = createServer({ allowHalfOpen: true, pauseOnConnect: true, noDelay: true }, (socket) => {
      sockets.add(socket);
      socket.once('close', () => sockets.delete(socket));
      socket.on('error', () => socket.destroy());
      if (sockets.size > MOST) socket.destroy();
      else void this.#carry(socket, name, port, sockets);
    });
    await listening(server, listen);
    server.on('error', (error) => this.#o.log.warn(`a forward failed: ${describe(error)}`));
    const bound = server.address();
    const boundPort = typeof bound === 'object' && bound !== null ? bound.port : listen.port;
    return {
      address: listen.host.includes(':') ? `[${listen.host}]:${boundPort}` : `${listen.host}:${boundPort}`,
      close: () =>
        new Promise((resolve) => {
          server.close(() => resolve());
          for (const socket of sockets) socket.destroy();
        }),
    };
  }

  /**
   * Opens those of the configured forwards that aren't open yet. Throws, with the others standing, when one can't be. Nothing is closed before `commit`;
   * `cancel` takes the new ones back.
   */
  async prepare(wanted: readonly ConfiguredForward[]): Promise<{ commit(): Promise<void>; cancel(): Promise<void> }> {
    const added = new Map<string, Forward>();
    const cancel = async (): Promise<void> => {
      await Promise.all([...added.values()].map((forward) => forward.close()));
    };
    try {
      for (const forward of wanted) {
        const id = forwardId(forward);
        if (!this.#configured.has(id) && !added.has(id)) added.set(id, await this.open(forward.listen, forward.name, forward.port));
      }
    } catch (error) {
      await cancel();
      throw error;
    }
    const commit = async (): Promise<void> => {
      for (const [id, forward] of added) this.#configured.set(id, forward);
      const keep = new Set(wanted.map(forwardId));
      for (const [id, forward] of [...this.#configured]) {
        if (keep.has(id)) continue;
        this.#configured.delete(id);
        await forward.close();
      }
    };
    return { commit, cancel };
  }

  async close(): Promise<void> {
    await Promise.all([...this.#configured.values()].map((forward) => forward.close()));
    this.#configured.clear();
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

function listening(server: Server, { host, port }: HostPort): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      const code = error.code === 'EADDRINUSE' || error.code === 'EADDRNOTAVAIL' ? 'ADDRESS_IN_USE' : 'NO_PRIVILEGE';
      reject(new ThicketError(code, `forward ${host}:${port} can't listen (${describe(error)}): choose another address`, { cause: error }));
    });
    server.listen({ host, port }, resolve);
  });
}
