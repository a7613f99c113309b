/**
 * All that Thicket changes on the host: the TUN's addresses and routes, a blackhole route per pool, one nft table, forwarding parameters. What a crash
 * leaves (blackhole, table, parameters) keeps the pool's packets in and is adopted at the next start; `detach` leaves the host as it was.
 */
import { join } from 'node:path';
import type { Logger } from 'pino';
import { describe, ThicketError } from '../errors.js';
import { closeForwarding, openedBy, openForwarding, type Wanted } from './forwarding.js';
import { type KernelNet, type NewRoute, ROUTE_PROTOCOL } from './kernel-net.js';
import { contains, network, occupant } from './pools.js';
import { type Maps, removeCommands, serviceCommands, tableCommands } from './ruleset.js';
import { hasIpv6, Sysctls } from './sysctls.js';

export interface HostNetOptions {
  /** The TUN's name. */
  readonly interface: string;
  readonly pool4: string;
  /** Absent: no IPv6 on the TUN. */
  readonly pool6: string | undefined;
  /** The node's own local addresses, in the pools. */
  readonly own4: string;
  readonly own6: string | undefined;
  readonly mtu: number;
  /** Port of the DNS server on the node's own addresses. */
  readonly dnsPort: number;
  readonly stateFolder: string;
  readonly log: Logger;
}

/** What a gateway's NAT wants of the host. */
export interface Services {
  readonly v4: Maps;
  readonly v6: Maps;
  readonly lan4: readonly string[];
  readonly lan6: readonly string[];
  readonly loopback: boolean;
}

const NOTHING: Services = { v4: { services: [], echo: [] }, v6: { services: [], echo: [] }, lan4: [], lan6: [], loopback: false };

/** Loses against the TUN's route, wins against every default route since it is more specific. */
const BLACKHOLE_METRIC = 1_000_000;
/** Full datagrams that fit one message with `UDP_SEGMENT` (65,507 bytes); and no limit. */
const TRAIN_SEGMENTS = 44;
const ANY_SEGMENTS = 65_535;
/** As Ethernet's. A TUN's own 500 are 5 ms of 128 cameras: less than a worker may have to wait for a processor. */
const TRANSMIT_QUEUE = 1_000;
const TCP = 6;

export class HostNet {
  readonly #kernel: KernelNet;
  readonly #o: HostNetOptions;
  readonly #sysctls: Sysctls;
  /** Whether the TUN has IPv6: asked for, and not switched off on this host. When false, no name has an AAAA record. */
  readonly ipv6: boolean;
  #wanted: Wanted;
  #forwards = false;
  #prepared = false;
  #attached = false;
  /** Addresses of endpoints that local programs call from. */
  readonly #callers = new Set<string>();

  private constructor(kernel: KernelNet, options: HostNetOptions, sysctls: Sysctls) {
    this.#kernel = kernel;
    this.#sysctls = sysctls;
    this.ipv6 = options.pool6 !== undefined && options.own6 !== undefined && hasIpv6(sysctls);
    this.#o = this.ipv6 ? options : { ...options, pool6: undefined, own6: undefined };
    if (!this.ipv6 && options.pool6 !== undefined) options.log.warn('IPv6 is switched off on this host: local addresses are IPv4 only');
    this.#wanted = { tun: options.interface, ...NOTHING };
  }

  /** Changes nothing yet. Throws BAD_STATE for a damaged state file. */
  static open(kernel: KernelNet, options: HostNetOptions): HostNet {
    return new HostNet(kernel, options, new Sysctls({ file: join(options.stateFolder, 'host.json') }));
  }

  /** Whether a TUN would have IPv6 here. */
  static hasIpv6(stateFolder: string): boolean {
    return hasIpv6(new Sysctls({ file: join(stateFolder, 'host.json') }));
  }

  /** The TUN's name. */
  get interface(): string {
    return this.#o.interface;
  }

  /** Before the TUN exists: fences the pools off. Throws POOL_ROUTED, EXISTS, NO_PRIVILEGE, NFT_MISSING, NFT_FAILED or NETLINK, having changed nothing. */
  async prepare(): Promise<void> {
    await this.#check();
    const added: NewRoute[] = [];
    try {
      for (const route of this.#blackholes()) if (await this.#kernel.addRoute(route)) added.push(route);
      await this.#kernel.nft(tableCommands(this.#o, openedBy(this.#sysctls, this.#wanted), await this.#dialled()));
    } catch (error) {
      for (const route of added) await this.#kernel.deleteRoute(route);
      throw error;
    }
    this.#prepared = true;
  }

  /** After the data plane has made the TUN: addresses, routes, up. */
  async attach(): Promise<void> {
    const { interface: name, mtu, own4, own6 } = this.#o;
    this.#quieten();
    const hasIpv6 = this.#sysctls.get(`net/ipv6/conf/${name}/disable_ipv6`) !== undefined;
    await this.#kernel.setLink(name, { mtu, transmitQueue: TRANSMIT_QUEUE, ...(hasIpv6 ? { generateAddresses: false } : {}) });
    await this.#kernel.addAddress(name, `${own4}/32`);
    if (own6 !== undefined) await this.#kernel.addAddress(name, `${own6}/128`);
    await this.#kernel.setLink(name, { up: true });
    for (const route of this.#tunRoutes()) {
      if (!(await this.#kernel.addRoute(route))) await this.#checkRoute(route);
    }
    this.#attached = true;
    openForwarding(this.#sysctls, this.#wanted);
    await this.#limitTrains();
  }

  /** One transaction for all of a gateway's services; then forwarding where they lead, and no more where none leads now. */
  async apply(services: Services): Promise<void> {
    if (!this.#prepared) throw new ThicketError('CLOSING', "this node's firewall is not up: start the node first");
    const wanted = { tun: this.#o.interface, ...services };
    closeForwarding(this.#sysctls, wanted);
    await this.#kernel.nft(serviceCommands(this.#o.interface, services.v4, services.v6, openedBy(this.#sysctls, wanted)));
    this.#wanted = wanted;
    this.#forwards = services.v4.services.length + services.v6.services.length > 0;
    if (!this.#attached) return;
    openForwarding(this.#sysctls, wanted);
    await this.#limitTrains();
  }

  /** Makes these addresses of endpoints, and no others, ones that programs on this host may call from. What the overlay sends to them unasked is dropped as ever. */
  async callFrom(addresses: readonly string[]): Promise<void> {
    const { interface: name } = this.#o;
    if (!this.#attached) return;
    for (const address of this.#callers) {
      if (addresses.includes(address)) continue;
      await this.#kernel.deleteAddress(name, `${address}/32`);
      this.#callers.delete(address);
    }
    for (const address of addresses) {
      if (this.#callers.has(address)) continue;
      await this.#kernel.addAddress(name, `${address}/32`);
      this.#callers.add(address);
    }
  }

  /**
   * What local programs send comes in super-packets that are one train each. What is forwarded was put together by another interface, up to 64 KiB of it,
   * and would be cut to single packets here if it had more segments: so gateways take it as it is. Kernels that can't be told send a train and a rest.
   */
  async #limitTrains(): Promise<void> {
    const gsoMaxSegments = this.#forwards ? ANY_SEGMENTS : TRAIN_SEGMENTS;
    await this.#kernel.setLink(this.#o.interface, { gsoMaxSegments }).catch((error: unknown) => {
      this.#o.log.debug({ error: describe(error) }, 'super-packets stay as long as they are');
    });
  }

  /**
   * Leaves the host as it was before the first start. Close the data plane before, so that no packet comes from the TUN while the fence is taken down.
   * Does all it can when something fails, then throws that. Tracked connections stay, so that TCP may go on after the next start.
   */
  async detach(): Promise<void> {
    if (!this.#prepared) return;
    this.#prepared = false;
    this.#attached = false;
    const failures: unknown[] = [];
    const step = async (work: () => unknown): Promise<void> => {
      try {
        await work();
      } catch (error) {
        this.#o.log.error(describe(error));
        failures.push(error);
      }
    };
    await step(() => this.#unplug());
    await step(() => this.#sysctls.restoreAll());
    await step(() => this.#kernel.nft(removeCommands(this.#o.interface)));
    for (const route of this.#blackholes()) await step(() => this.#kernel.deleteRoute(route));
    if (failures.length > 0) throw failures[0];
  }

  async #check(): Promise<void> {
    const { interface: name } = this.#o;
    if ((await this.#kernel.links()).some((link) => link.name === name)) {
      throw new ThicketError('EXISTS', `interface ${name} exists: stop the program that holds it, or change interface.name`);
    }
    const pools = this.#pools();
    const taken = occupant(pools, this.#o, await this.#kernel.addresses(), await this.#kernel.routes(pools));
    if (taken !== undefined) throw routed(taken.pool, taken.by);
  }

  /** Somebody made the same route since `prepare`; or `attach` was called twice. */
  async #checkRoute(route: NewRoute): Promise<void> {
    const same = await this.#kernel.routes([route.destination]);
    const other = same.find((r) => r.destination === route.destination && r.type === 'unicast' && r.interface !== route.interface);
    if (other !== undefined) throw routed(route.destination, `it is routed through ${other.interface ?? 'another interface'}`);
  }

  /** Whom local programs are connected to, from before a crash: their media goes on at once. */
  async #dialled(): Promise<string[]> {
    const own = [this.#o.own4, this.#o.own6].filter((address) => address !== undefined);
    const flows = await this.#kernel.flows(own.map((source) => ({ source, protocol: TCP })));
    const peers = flows.map((flow) => flow.original.destination);
    return [...new Set(peers)].filter((peer) => this.#pools().some((pool) => contains(pool, peer)));
  }

  /** Keeps the TUN free of what IPv6 does by itself. The firewall drops it too, so a read-only /proc/sys is no reason to stop. */
  #quieten(): void {
    const quiet: [string, string][] = [
      ['accept_ra', '0'],
      ['autoconf', '0'],
      ['router_solicitations', '0'],
      ['disable_ipv6', this.ipv6 ? '0' : '1'],
    ];
    for (const [parameter, value] of quiet) {
      try {
        this.#sysctls.setOwn(`net/ipv6/conf/${this.#o.interface}/${parameter}`, value);
      } catch (error) {
        this.#o.log.debug(describe(error));
      }
    }
  }

  /** Takes the TUN down, if it is still there. */
  async #unplug(): Promise<void> {
    const { interface: name, own4, own6 } = this.#o;
    if (!(await this.#kernel.links()).some((link) => link.name === name)) return;
    await this.#kernel.setLink(name, { up: false });
    for (const route of this.#tunRoutes()) await this.#kernel.deleteRoute(route);
    await this.#kernel.deleteAddress(name, `${own4}/32`);
    if (own6 !== undefined) await this.#kernel.deleteAddress(name, `${own6}/128`);
    await this.callFrom([]);
  }

  #pools(): string[] {
    return [this.#o.pool4, this.#o.pool6].filter((pool) => pool !== undefined).map(network);
  }

  #blackholes(): NewRoute[] {
    return this.#pools().map((destination) => ({
      destination,
      type: 'blackhole',
      metric: BLACKHOLE_METRIC,
      protocol: ROUTE_PROTOCOL,
    }));
  }

  #tunRoutes(): NewRoute[] {
    return this.#pools().map((destination) => {
      const source = destination.includes(':') ? this.#o.own6 : this.#o.own4;
      return { destination, interface: this.#o.interface, protocol: ROUTE_PROTOCOL, ...(source === undefined ? {} : { source }) };
    });
  }
}

function routed(pool: string, by: string): ThicketError {
  const key = pool.includes(':') ? 'interface.ipv6' : 'interface.ipv4';
  return new ThicketError('POOL_ROUTED', `the pool ${pool} is in use already (${by}): choose another with ${key}`);
}
