/** Forwards: ports of this host that lead to remote services, for programs that can't use names. */
import type { Socket } from 'node:net';
import type { Logger } from 'pino';
import type { ForwardConfig, HostPort } from '../config/index.js';
import type { Splice } from '../dataplane/index.js';
import { describe } from '../errors.js';
import { type Door, Doors, type PreparedDoors } from './doors.js';
import type { Outward } from './outward.js';

export interface ForwardsOptions {
  readonly outward: Pick<Outward, 'address' | 'dial' | 'splice'>;
  readonly log: Logger;
}

export class Forwards {
  readonly #o: ForwardsOptions;
  readonly #doors: Doors<ForwardConfig>;

  constructor(options: ForwardsOptions) {
    this.#o = options;
    this.#doors = new Doors({
      kind: 'forward',
      id: ({ listen, name, port }) => `${listen.host} ${listen.port} ${name} ${port}`,
      serve: (socket, config) => this.#serve(socket, config),
      log: options.log,
    });
  }

  /** Listens; every connection is carried to the service. Throws ADDRESS_IN_USE. */
  open(listen: HostPort, name: string, port: number): Promise<Door> {
    return this.#doors.open({ listen, name, port });
  }

  /** See Doors. */
  prepare(wanted: readonly ForwardConfig[]): Promise<PreparedDoors> {
    return this.#doors.prepare(wanted);
  }

  close(): Promise<void> {
    return this.#doors.close();
  }

  async #serve(socket: Socket, { name, port }: ForwardConfig): Promise<Splice | undefined> {
    const { outward, log } = this.#o;
    try {
      const address = await outward.address(name);
      return socket.destroyed ? undefined : outward.splice(socket, outward.dial(address, port));
    } catch (error) {
      log.debug(`a forward to ${name}:${port} failed: ${describe(error)}`);
      socket.resetAndDestroy();
      return undefined;
    }
  }
}
