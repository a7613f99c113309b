/** Outlets: ports on the LAN's side by which one device calls one remote service, with the key of the endpoint that stands for the device. */
import { readFile } from 'node:fs/promises';
import type { Socket } from 'node:net';
import ipaddr from 'ipaddr.js';
import type { Logger } from 'pino';
import type { OutletConfig, OutletSource } from '../config/index.js';
import type { Splice } from '../dataplane/index.js';
import { describe, ThicketError } from '../errors.js';
import type { HostedEndpoint } from '../gateway/endpoints.js';
import { type Door, Doors, type PreparedDoors } from './doors.js';
import type { Outward } from './outward.js';
import type { Resolver } from './resolver.js';
import type { Session } from './sessions.js';

export interface OutletsOptions {
  readonly outward: Pick<Outward, 'dial' | 'splice'>;
  readonly resolver: Pick<Resolver, 'address' | 'means'>;
  readonly endpoints: () => readonly HostedEndpoint[];
  /** Brings what `callsOut` says of a session into force. */
  readonly refresh: (session: Session) => Promise<void>;
  /** See Ground. */
  readonly callFrom: (addresses: readonly string[]) => Promise<void>;
  /** The MAC address of a neighbour by its IPv4 address; default as the kernel knows it. */
  readonly macOf?: (ip: string) => Promise<string | undefined>;
  readonly log: Logger;
}

export class Outlets {
  readonly #o: OutletsOptions;
  readonly #doors: Doors<OutletConfig>;
  #configured: readonly OutletConfig[] = [];
  /** Those that commands keep open. */
  readonly #held = new Set<OutletConfig>();

  constructor(options: OutletsOptions) {
    this.#o = options;
    this.#doors = new Doors({
      kind: 'outlet',
      id: (config) => JSON.stringify(config),
      serve: (socket, config) => this.#serve(socket, config),
      log: options.log,
    });
  }

  /** Listens for one device. Throws ADDRESS_IN_USE, or NOT_FOUND without its endpoint. */
  async open(config: OutletConfig): Promise<Door> {
    this.#endpoint(config);
    const door = await this.#doors.open(config);
    this.#held.add(config);
    const close = async (): Promise<void> => {
      this.#held.delete(config);
      await door.close();
      await this.#sync();
    };
    try {
      await this.#sync();
    } catch (error) {
      await close();
      throw error;
    }
    return { address: door.address, close };
  }

  /** See Doors. The endpoints must be in force when this is committed. */
  async prepare(wanted: readonly OutletConfig[]): Promise<PreparedDoors> {
    const prepared = await this.#doors.prepare(wanted);
    const commit = async (): Promise<void> => {
      await prepared.commit();
      this.#configured = wanted;
      await this.#sync().catch((error: unknown) => this.#o.log.error(describe(error)));
    };
    return { ...prepared, commit };
  }

  /** Whether a device has an outlet to this session's far end. */
  callsOut(session: Session): boolean {
    return this.#all().some((config) => {
      const endpoint = this.#o.endpoints().find(({ name }) => name === config.as);
      return endpoint?.identity.pair.publicKey === session.own && this.#o.resolver.means(config.name, session);
    });
  }

  close(): Promise<void> {
    return this.#doors.close();
  }

  #all(): OutletConfig[] {
    return [...this.#configured, ...this.#held];
  }

  #endpoint({ as }: OutletConfig): HostedEndpoint {
    const endpoint = this.#o.endpoints().find(({ name }) => name === as);
    if (endpoint === undefined) throw new ThicketError('NOT_FOUND', `there is no endpoint ${as} here: expose the device first`);
    return endpoint;
  }

  #sync(): Promise<void> {
    const used = new Set(this.#all().map(({ as }) => as));
    const endpoints = this.#o.endpoints().filter(({ name }) => used.has(name));
    return this.#o.callFrom(endpoints.map(({ addresses }) => addresses.v4));
  }

  async #serve(socket: Socket, config: OutletConfig): Promise<Splice | undefined> {
    const { outward, resolver, log } = this.#o;
    const { name, port } = config;
    try {
      await this.#check(socket, config.from);
      const { identity, addresses } = this.#endpoint(config);
      const { v4, session } = await resolver.address(name, identity.pair.publicKey);
      // It may have been a caller only until now.
      await this.#o.refresh(session);
      return socket.destroyed ? undefined : outward.splice(socket, outward.dial(v4, port, addresses.v4));
    } catch (error) {
      log.debug(`an outlet to ${name}:${port} was not used: ${describe(error)}`);
      socket.resetAndDestroy();
      return undefined;
    }
  }

  /** Throws REFUSED for anybody but the one device. */
  async #check(socket: Socket, { ip, mac }: OutletSource): Promise<void> {
    const caller = ipaddr.process(socket.remoteAddress?.split('%', 1)[0] ?? '::').toString();
    if (caller !== ip) throw new ThicketError('REFUSED', `${caller} is not the device that it is for`);
    if (mac === undefined) return;
    const its = await (this.#o.macOf ?? neighbour)(ip);
    if (its !== mac)
      throw new ThicketError('REFUSED', `the device at ${ip} has the MAC address ${its ?? 'of nobody'}: check from in its outlet`);
  }
}

/** Of `/proc/net/arp`: who has just sent us something is in it. Columns: address, type, flags, MAC, mask, device. */
export async function neighbour(ip: string): Promise<string | undefined> {
  const table = await readFile('/proc/net/arp', 'utf8').catch(() => '');
  const lines = table.split('\n').map((line) => line.split(/\s+/));
  // One address may stand on several interfaces; an incomplete entry has no flags.
  const found = lines.filter(([address, , flags]) => address === ip && flags !== '0x0').map(([, , , mac]) => mac?.toLowerCase());
  return found.length === 1 ? found[0] : undefined;
}
