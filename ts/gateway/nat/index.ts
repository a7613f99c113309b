/**
 * A gateway's NAT: packets from the TUN for an endpoint's address go to the device, under the gateway's own address. The core has judged each packet
 * before it reaches the TUN, so this knows endpoints, not callers.
 */
import ipaddr from 'ipaddr.js';
import { ThicketError } from '../../errors.js';
import type { EchoElement, HostNet, KernelNet, Maps, ServiceElement } from '../../kernel/index.js';

/** One service of an endpoint: packets to this port of the endpoint's address go to `target`. */
export interface NatService {
  readonly endpoint4: string;
  readonly endpoint6?: string;
  readonly protocol: 'tcp' | 'udp';
  readonly port: number;
  /** Its family is the one in which the core hands packets to the TUN. */
  readonly target: { readonly host: string; readonly port: number };
}

/** Flows of one pair of addresses: all, or those to one port. */
export interface FlowPair {
  readonly peer: string;
  readonly endpoint: string;
  readonly protocol?: 'tcp' | 'udp';
  readonly port?: number;
}

const NUMBER = { tcp: 6, udp: 17 } as const;

export class Nat {
  readonly #kernel: KernelNet;
  readonly #host: HostNet;

  constructor(kernel: KernelNet, host: HostNet) {
    this.#kernel = kernel;
    this.#host = host;
  }

  /**
   * Makes the NAT what `services` say, in one transaction: on failure the former state stays. Also lets the kernel forward on the interfaces that lead
   * to targets. Throws BAD_CONFIG for a service that can't be, NO_PRIVILEGE, NFT_MISSING, NFT_FAILED or NETLINK.
   */
  async apply(services: readonly NatService[]): Promise<void> {
    const v4 = services.filter((service) => !isIpv6(service.target.host));
    const v6 = services.filter((service) => isIpv6(service.target.host));
    await this.#host.apply({
      v4: natMaps(v4),
      v6: natMaps(v6),
      lan4: await this.#interfaces(v4),
      lan6: await this.#interfaces(v6),
      loopback: v4.some((service) => ipaddr.parse(service.target.host).range() === 'loopback'),
    });
  }

  /** Makes the kernel forget these flows; resolves when it has. What they still send meets no translation. */
  async cut(pairs: readonly FlowPair[]): Promise<void> {
    if (pairs.length === 0) return;
    await this.#kernel.deleteFlows(
      pairs.map(({ peer, endpoint, protocol, port }) => ({
        source: peer,
        destination: endpoint,
        ...(protocol === undefined ? {} : { protocol: NUMBER[protocol] }),
        ...(port === undefined ? {} : { destinationPort: port }),
      })),
    );
  }

  /** Interfaces that lead to targets elsewhere. A target without a route now leads nowhere, and gets none. */
  async #interfaces(services: readonly NatService[]): Promise<string[]> {
    const names = new Set<string>();
    for (const host of new Set(services.map((service) => service.target.host))) {
      try {
        names.add((await this.#kernel.routeTo(host)).interface);
      } catch (error) {
        if (!(error instanceof ThicketError) || error.code !== 'NO_ROUTE') throw error;
      }
    }
    names.delete('lo');
    names.delete(this.#host.interface);
    return [...names].sort();
  }
}

/** One family's elements. Throws BAD_CONFIG when two services claim one port, or an endpoint has no address of this family. */
export function natMaps(services: readonly NatService[]): Maps {
  const elements = new Map<string, ServiceElement>();
  const echo = new Map<string, EchoElement>();
  for (const service of services) {
    const { protocol, port, target } = service;
    const endpoint = isIpv6(target.host) ? service.endpoint6 : service.endpoint4;
    if (endpoint === undefined) {
      throw new ThicketError('BAD_CONFIG', `the target ${target.host} needs IPv6 on the overlay's interface: set interface.ipv6`);
    }
    const key = `${endpoint} ${protocol}/${port}`;
    const known = elements.get(key);
    if (known !== undefined && (known.target.host !== target.host || known.target.port !== target.port)) {
      throw new ThicketError('BAD_CONFIG', `${protocol}/${port} of one endpoint leads to two targets: remove one of them`);
    }
    elements.set(key, { endpoint, protocol, port, target });
    // Echo reaches the device of the first service.
    if (!echo.has(endpoint)) echo.set(endpoint, { endpoint, target: target.host });
  }
  return { services: [...elements.values()], echo: [...echo.values()] };
}

const isIpv6 = (host: string): boolean => host.includes(':');
