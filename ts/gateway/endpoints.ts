/**
 * The endpoints that this gateway hosts: one object from configuration to key, certificate, names, addresses, policy and NAT. What can't be
 * installed is off, never open.
 */
import ipaddr from 'ipaddr.js';
import type { Logger } from 'pino';
import type { EndpointConfig, HostPort, ServiceConfig } from '../config/index.js';
import { describe, ThicketError } from '../errors.js';
import type { Addresses, AddressPool } from '../naming/index.js';
import type { EndpointIdentity, KeyPair, Membership, NodeStore, PublicKey } from '../trust/index.js';
import { equalBytes, formatWho, nameKeyPair } from '../trust/index.js';
import type { Lan, Translation } from './lan.js';
import type { NatService } from './nat/index.js';
import type { Service } from './policy.js';

export interface HostedEndpoint {
  readonly name: string;
  readonly groups: readonly string[];
  readonly identity: EndpointIdentity;
  /** By which our kernel knows it. */
  readonly addresses: Addresses;
  readonly services: readonly Service[];
  /** Keys of the names that it answers to. */
  readonly names: readonly KeyPair[];
}

export interface EndpointsOptions {
  readonly store: NodeStore;
  /** The certificate that endpoints are certified under; none before the node has joined. */
  readonly membership: () => Membership | undefined;
  readonly pool: AddressPool;
  readonly lan: Lan;
  readonly nat: Translation;
  /** Whether this program can answer for an endpoint: in user-space mode it can. */
  readonly answers: boolean;
  readonly log: Logger;
  /** Networks in which no target may lie without `force`. */
  readonly pools: readonly string[];
  readonly wallSeconds: () => number;
}

export type PreparedEndpoints = ReadonlyMap<PublicKey, HostedEndpoint>;

export class Endpoints {
  readonly #o: EndpointsOptions;
  #hosted = new Map<PublicKey, HostedEndpoint>();
  readonly #accounts = new Map<string, number>();

  constructor(options: EndpointsOptions) {
    this.#o = options;
  }

  get(key: PublicKey): HostedEndpoint | undefined {
    return this.#hosted.get(key);
  }

  all(): HostedEndpoint[] {
    return [...this.#hosted.values()];
  }

  /** What the endpoints shall be. Throws, with nothing changed, when one can't be. */
  async prepare(configs: readonly EndpointConfig[]): Promise<PreparedEndpoints> {
    const next = new Map<PublicKey, HostedEndpoint>();
    for (const config of configs) {
      const endpoint = await this.#prepare(config);
      next.set(endpoint.identity.pair.publicKey, endpoint);
    }
    return next;
  }

  /**
   * Makes the endpoints what was prepared; returns the keys that are gone. In between, while a port may lead to its old or its new device, only
   * those have it who may reach both: `narrowed` must bring that into force for live sessions before it resolves.
   */
  async commit(next: PreparedEndpoints, narrowed: () => Promise<void>): Promise<readonly PublicKey[]> {
    const before = this.#hosted;
    this.#hosted = meet(before, next);
    await narrowed();
    this.#hosted = await this.#install(next);
    const gone = [...before.values()].filter((endpoint) => !next.has(endpoint.identity.pair.publicKey));
    for (const endpoint of gone) await this.#o.pool.release({ kind: 'own', key: endpoint.identity.pair.publicKey });
    return gone.map((endpoint) => endpoint.identity.pair.publicKey);
  }

  /** Without their NAT rules services are off, not open. */
  async #install(next: PreparedEndpoints): Promise<Map<PublicKey, HostedEndpoint>> {
    try {
      await this.#o.nat.apply([...next.values()].flatMap(natServices));
      return new Map(next);
    } catch (error) {
      const off = `its NAT rule can't be installed: ${describe(error)}`;
      this.#o.log.error(off);
      return new Map([...next].map(([key, e]) => [key, { ...e, services: e.services.map((service) => ({ ...service, off })) }]));
    }
  }

  async #prepare(config: EndpointConfig): Promise<HostedEndpoint> {
    for (const service of config.services) await this.#checkTarget(config, service);
    const known = this.all().find((e) => e.name === config.name && e.groups.join() === config.groups.join());
    const membership = this.#o.membership();
    if (membership === undefined) {
      throw new ThicketError('NO_CERTIFICATE', `endpoint ${config.name} needs this node's certificate: run thicket join first`);
    }
    // A new certificate of ours means new ones for our endpoints.
    const current = known !== undefined && equalBytes(known.identity.chain[0] ?? new Uint8Array(), membership.certificate);
    const identity = current ? known.identity : this.#o.store.endpoint(config.name, config.groups, membership, this.#o.wallSeconds());
    const addresses = await this.#o.pool.assign({ kind: 'own', key: identity.pair.publicKey });
    const services: Service[] = [];
    for (const service of config.services) services.push(await this.#service(config.name, service));
    return { name: config.name, groups: config.groups, identity, addresses, services, names: names(config.name, identity, membership) };
  }

  async #service(endpoint: string, config: ServiceConfig): Promise<Service> {
    const { protocol, port, rtsp, target, allow, force } = config;
    const name = `${endpoint}:${protocol}/${port}`;
    const account = this.#accounts.get(name) ?? this.#accounts.size;
    this.#accounts.set(name, account);
    const base = { protocol, port, rtsp, allow, force, account };
    if (target === undefined) return this.#o.answers ? base : { ...base, off: 'this program answers in user-space mode only' };
    return this.#toDevice(endpoint, { ...base, target });
  }

  async #toDevice(endpoint: string, base: Service & { readonly target: HostPort }): Promise<Service> {
    const { target, port } = base;
    const lan = await this.#lan(target.host);
    if ('source' in lan) return { ...base, lan: lan.source };
    this.#o.log.warn({ endpoint, port }, 'a service is off: there is no route to its device');
    this.#o.log.debug(lan.off);
    return { ...base, off: lan.off };
  }

  /** Our own address on the way to a device, or why there is none. */
  async #lan(host: string): Promise<{ readonly source: string } | { readonly off: string }> {
    if (host.includes(':') && !this.#o.pools.some((pool) => pool.includes(':')))
      return { off: `the target ${host} needs IPv6 here: set interface.ipv6` };
    try {
      return { source: (await this.#o.lan.routeTo(host)).source };
    } catch (error) {
      return { off: `there is no route to ${host}: ${describe(error)}` };
    }
  }

  /** Whether the way to some device has come, gone or moved since `apply`, or its NAT rule is still missing: then apply again. */
  async moved(): Promise<boolean> {
    for (const service of this.all().flatMap((endpoint) => endpoint.services)) {
      if (service.target === undefined) continue;
      const lan = await this.#lan(service.target.host);
      const source = 'source' in lan ? lan.source : undefined;
      if (service.lan !== source || (source !== undefined && service.off !== undefined)) return true;
    }
    return false;
  }

  async #checkTarget(config: EndpointConfig, service: ServiceConfig): Promise<void> {
    const { target, force } = service;
    if (force || target === undefined) return;
    const address = ipaddr.parse(target.host);
    const where = forbidden(address, this.#o.pools);
    const own =
      where ?? ((await this.#o.lan.addresses()).some((a) => sameAddress(a.address, target.host)) ? "this gateway's own" : undefined);
    if (own !== undefined) {
      throw new ThicketError(
        'BAD_CONFIG',
        `${config.name}: the target ${target.host} is ${own} address: choose a device on the LAN, or say force`,
      );
    }
  }
}

/** Services that both have, on the same device, for those whom both allow. */
function meet(a: PreparedEndpoints, b: PreparedEndpoints): Map<PublicKey, HostedEndpoint> {
  const both = new Map<PublicKey, HostedEndpoint>();
  for (const [key, endpoint] of a) {
    const other = b.get(key)?.services ?? [];
    const services = endpoint.services.flatMap((service) => {
      const same = other.find((s) => s.protocol === service.protocol && s.port === service.port);
      if (same === undefined || !sameTarget(same, service)) return [];
      const allowed = new Set(same.allow.map(formatWho));
      return [{ ...service, allow: service.allow.filter((who) => allowed.has(formatWho(who))) }];
    });
    both.set(key, { ...endpoint, services });
  }
  return both;
}

const sameTarget = (a: Service, b: Service): boolean => a.target?.host === b.target?.host && a.target?.port === b.target?.port;

/** `camera.gw` always; `camera` where the network granted it. Nobody finds an endpoint by name without the naming secret. */
function names(name: string, identity: EndpointIdentity, membership: Membership): KeyPair[] {
  const { namingSecret } = membership.network;
  if (namingSecret === undefined) return [];
  const long = nameKeyPair(namingSecret, `${name}.${membership.name}`);
  return identity.grant === undefined ? [long] : [long, nameKeyPair(namingSecret, name)];
}

function forbidden(address: ipaddr.IPv4 | ipaddr.IPv6, pools: readonly string[]): string | undefined {
  const range = address.range();
  if (range === 'loopback') return 'a loopback';
  if (range === 'linkLocal') return 'a link-local';
  if (range === 'unspecified' || range === 'multicast' || range === 'broadcast') return `no device's`;
  const within = pools
    .map((pool) => ipaddr.parseCIDR(pool))
    .some(([net, bits]) => net.kind() === address.kind() && address.match(net, bits));
  return within ? "an overlay's" : undefined;
}

const sameAddress = (a: string, b: string): boolean => ipaddr.parse(a).toNormalizedString() === ipaddr.parse(b).toNormalizedString();

function natServices(endpoint: HostedEndpoint): NatService[] {
  return endpoint.services.flatMap(({ off, protocol, port, target }) => {
    if (off !== undefined || target === undefined) return [];
    const { v4, v6 } = endpoint.addresses;
    return [{ endpoint4: v4, ...(v6 === undefined ? {} : { endpoint6: v6 }), protocol, port, target }];
  });
}
