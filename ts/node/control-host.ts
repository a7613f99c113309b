/** What the control API tells and does: documents made from the parts' own state, and changes handed to the node. */
import {
  type Change,
  type Config,
  type HostPort,
  parseHostPort,
  parseNamePort,
  parseOutlet,
  parseOutletSource,
  parseProxy,
  parseService,
  parseServiceName,
} from '../config/index.js';
import {
  type ControlHost,
  type LinkDocument,
  type PingDocument,
  type ReloadDocument,
  type ResolveDocument,
  type RouteDocument,
  SCHEMA,
  type ServiceDocument,
  type SessionDocument,
  type StatusDocument,
  type TraceDocument,
  type TreeDocument,
  type TreeNodeDocument,
} from '../control/index.js';
import type { DataPlane, DataPlaneStats } from '../dataplane/data-plane.js';
import { ThicketError } from '../errors.js';
import type { HostedEndpoint } from '../gateway/endpoints.js';
import type { HealthMonitor } from '../gateway/health.js';
import type { Router } from '../routing/index.js';
import { formatWho, type Membership, type PublicKey } from '../trust/index.js';
import { version } from '../version.js';
import type { Bindings } from './bindings.js';
import { type Clock, ms } from './clock.js';
import type { Door } from './doors.js';
import type { Forwards } from './forwards.js';
import type { Links } from './links.js';
import type { Outlets } from './outlets.js';
import type { Ground } from './place.js';
import type { Proxies } from './proxies.js';
import type { Resolver } from './resolver.js';
import type { Session, Sessions } from './sessions.js';
import type { Tracer } from './tracer.js';

export interface NodeControlOptions {
  readonly self: PublicKey;
  readonly clock: Clock;
  readonly plane: DataPlane;
  /** Why it isn't a better one. */
  readonly shortfall: string | undefined;
  readonly ground: Ground | undefined;
  /** Of the DNS server, as bound. */
  readonly dnsPort: number | undefined;
  readonly ipv6: string | undefined;
  readonly config: () => Config;
  readonly membership: () => Membership | undefined;
  readonly links: Links;
  readonly sessions: Sessions;
  readonly router: Router;
  readonly resolver: Resolver;
  readonly bindings: Bindings;
  readonly tracer: Tracer;
  readonly forwards: Forwards;
  readonly proxies: Proxies;
  readonly outlets: Outlets;
  readonly endpoints: () => readonly HostedEndpoint[];
  readonly health: HealthMonitor;
  /** `tcp/554` and the like that the far end of a session refused last. */
  readonly denied: (session: Session) => readonly string[];
  readonly warnings: () => readonly string[];
  readonly change: (change: Change) => Promise<void>;
  readonly reload: () => Promise<ReloadDocument>;
}

const PING_PATIENCE = ms(3_000);
/** JSON has no integers beyond this; counters that pass it stand still there, as 2^53 bytes are nine petabytes. */
const safe = (value: bigint): number => Number(value > BigInt(Number.MAX_SAFE_INTEGER) ? BigInt(Number.MAX_SAFE_INTEGER) : value);

export class NodeControl implements ControlHost {
  readonly #o: NodeControlOptions;

  constructor(options: NodeControlOptions) {
    this.#o = options;
  }

  status(): StatusDocument {
    const { self, plane, ground, dnsPort, router } = this.#o;
    const config = this.#o.config();
    const membership = this.#o.membership();
    const stats = plane.stats();
    const parents = this.#o.links.parents();
    return {
      schema: SCHEMA,
      version,
      backend: plane.backend,
      backendShortfall: this.#o.shortfall ?? null,
      node: { key: self, name: membership?.name ?? null, network: membership?.network.key ?? null },
      state: parents.length === 0 || parents.some((p) => p.link !== undefined) ? 'up' : 'connecting',
      listen:
        config.listen.length === 0 ? [] : plane.sockets.map(({ host, port }) => `udp://${host.includes(':') ? `[${host}]` : host}:${port}`),
      allowUnrelayed: config.allowUnrelayed,
      links: this.#links(stats),
      sessions: this.#sessionDocuments(stats),
      services: this.#serviceDocuments(stats),
      routes: router.table.size,
      interface:
        plane.tun === undefined
          ? null
          : { name: plane.tun.name, offload: plane.tun.offload, ipv4: config.interface.ipv4, ipv6: this.#o.ipv6 ?? null },
      mode: ground?.mode.kind ?? null,
      modeReason: ground?.mode.kind === 'userspace' ? ground.mode.reason : null,
      userspace: stats.userspace === undefined ? null : { ...stats.userspace, refused: safe(stats.userspace.refused) },
      dns:
        ground === undefined || dnsPort === undefined
          ? null
          : { domain: config.dns.domain, addresses: ground.dns.addresses, port: dnsPort },
      relay: { packets: safe(stats.relay.packets), bytes: safe(stats.relay.bytes), labels: stats.relay.labels },
      ledger: {
        payload: safe(stats.ledger.payload),
        overhead: safe(stats.ledger.overhead),
        control: safe(stats.ledger.control),
        keepAlive: safe(stats.ledger.keepAlive),
      },
      trains: { sealed: stats.trains.sealed.map(safe), opened: stats.trains.opened.map(safe) },
      drops: Object.fromEntries(Object.entries(stats.drops).map(([reason, count]) => [reason, safe(count)])),
      refused: { ...this.#o.links.counters, ...router.counters, ...router.setups.counters },
      warnings: this.#o.warnings(),
    };
  }

  tree(): TreeDocument {
    const { table } = this.#o.router;
    const below = new Map<PublicKey, { readonly key: PublicKey; readonly endpoint: boolean }[]>();
    for (const { key, parent, endpoint } of table.all()) {
      const siblings = below.get(parent) ?? [];
      siblings.push({ key, endpoint });
      below.set(parent, siblings);
    }
    const build = (key: PublicKey, endpoint: boolean): TreeNodeDocument => ({
      key,
      endpoint,
      children: (below.get(key) ?? []).map((child) => build(child.key, child.endpoint)).sort((a, b) => (a.key < b.key ? -1 : 1)),
    });
    // Endpoints of our own have no edge in our own table: they are announced upwards only.
    const own = this.#o.endpoints().map((e): TreeNodeDocument => ({ key: e.identity.pair.publicKey, endpoint: true, children: [] }));
    const node = build(this.#o.self, false);
    return {
      schema: SCHEMA,
      parents: this.#o.links.parents().map(({ address, link }) => ({ key: address.key, state: link === undefined ? 'connecting' : 'up' })),
      node: { ...node, children: [...own, ...node.children] },
    };
  }

  routes(): RouteDocument[] {
    return [...this.#o.router.table.all()].map(({ key, parent, via, endpoint }) => ({ key, parent, via, endpoint }));
  }

  sessions(): readonly SessionDocument[] {
    return this.#sessionDocuments(this.#o.plane.stats());
  }

  services(): readonly ServiceDocument[] {
    return this.#serviceDocuments(this.#o.plane.stats());
  }

  trust(): readonly string[] {
    const own = this.#o.membership()?.network.key;
    const added = this.#o.config().trust.map((t) => ('network' in t ? t.network : t.node));
    return [...new Set(own === undefined ? added : [own, ...added])];
  }

  async ping(name: string): Promise<PingDocument> {
    const { session } = await this.#o.resolver.reach(name);
    const rtt = await this.#o.sessions.ping(session.id, PING_PATIENCE);
    return { name, key: session.peer, rttMs: round(rtt) };
  }

  async trace(name: string): Promise<TraceDocument> {
    const { session } = await this.#o.resolver.reach(name);
    const hops = await this.#o.tracer.trace(session);
    return {
      schema: SCHEMA,
      name,
      hops: hops.map(({ hop, key, end, rtt }) => ({ hop, key, role: end ? 'end' : 'relay', rttMs: round(rtt) })),
    };
  }

  async resolve(name: string): Promise<ResolveDocument> {
    const { session, v4, v6 } = await this.#o.resolver.address(name);
    return {
      schema: SCHEMA,
      name,
      key: session.peer,
      certifiedAs: session.identity.shortName ?? session.identity.name,
      network: session.identity.network,
      ipv4: v4,
      ipv6: v6 ?? null,
    };
  }

  async expose(name: string, targets: readonly string[], allow: readonly string[], force: boolean): Promise<void> {
    const services = targets.map(parseService).map((service) => ({ ...service, force, allow: [] }));
    await this.#o.change({ do: 'expose', name, services, allow });
  }

  unexpose(name: string): Promise<void> {
    return this.#o.change({ do: 'unexpose', name });
  }

  allow(who: string, service: string): Promise<void> {
    return this.#o.change({ do: 'allow', who, ...parseServiceName(service) });
  }

  deny(who: string, service: string): Promise<void> {
    return this.#o.change({ do: 'deny', who, ...parseServiceName(service) });
  }

  setTrust(key: string, trusted: boolean): Promise<void> {
    return this.#o.change({ do: trusted ? 'trust' : 'distrust', key });
  }

  reload(): Promise<ReloadDocument> {
    return this.#o.reload();
  }

  async forward(listen: string, to: string, signal: AbortSignal): Promise<string> {
    const at: HostPort = parseHostPort(loopback(listen));
    const { name, port } = parseNamePort(to);
    if (this.#o.ground === undefined) throw new ThicketError('REFUSED', 'this node has no interface: forward from a leaf');
    const forward = await this.#o.forwards.open(at, name, port);
    return until(signal, forward);
  }

  async proxy(listen: string, open: boolean, signal: AbortSignal): Promise<string> {
    const config = parseProxy({ listen: loopback(listen), open });
    if (this.#o.ground === undefined) throw new ThicketError('REFUSED', 'this node has no interface: let a leaf be the proxy');
    return until(signal, await this.#o.proxies.open(config));
  }

  async outlet(listen: string, to: string, as: string, from: string, signal: AbortSignal): Promise<string> {
    const config = parseOutlet({ listen, to, as, from: parseOutletSource(from) });
    return until(signal, await this.#o.outlets.open(config));
  }

  #links(stats: DataPlaneStats): LinkDocument[] {
    const traffic = new Map(stats.links.map((s) => [s.link, s]));
    const parents = this.#o.links.parents();
    const waiting = parents
      .filter(({ link }) => link === undefined)
      .map(({ address }): LinkDocument => ({ key: address.key, role: 'parent', state: 'connecting', rttMs: null, rxBytes: 0, txBytes: 0 }));
    const up = this.#o.links.all().map((link): LinkDocument => {
      const s = traffic.get(link.id);
      return {
        key: link.key,
        role: link.role,
        state: 'up',
        rttMs: link.rtt === undefined ? null : round(link.rtt),
        rxBytes: safe(s?.rxBytes ?? 0n),
        txBytes: safe(s?.txBytes ?? 0n),
      };
    });
    return [...waiting, ...up];
  }

  #sessionDocuments(stats: DataPlaneStats): SessionDocument[] {
    const traffic = new Map(stats.sessions.map((s) => [s.session, s]));
    const now = this.#o.clock.now();
    return this.#o.sessions.all().map((session) => {
      const s = traffic.get(session.id);
      return {
        key: session.peer,
        own: session.own,
        name: session.identity.shortName ?? session.identity.name,
        network: session.identity.network,
        state: session.state,
        hops: this.#o.tracer.known(session) ?? null,
        pathMtu: s?.pathMtu || null,
        rxBytes: safe(s?.rxBytes ?? 0n),
        txBytes: safe(s?.txBytes ?? 0n),
        rekeys: session.rekeys,
        flows: s?.flows ?? 0,
        ageSeconds: Math.round((now - session.since) / 1_000),
        addresses: this.#o.bindings.addressesOf(session),
        offered: session.offered.map(({ protocol, port }) => `${protocol}/${port}`),
        allowed: this.#o.bindings.allowed(session).map(({ protocol, port }) => `${protocol}/${port}`),
        denied: this.#o.denied(session),
      };
    });
  }

  #serviceDocuments(stats: DataPlaneStats): ServiceDocument[] {
    const accounts = new Map(stats.services.map((s) => [s.account, s]));
    return this.#o.endpoints().flatMap((endpoint) =>
      endpoint.services.map((service): ServiceDocument => {
        const counted = accounts.get(service.account);
        return {
          name: endpoint.name,
          port: `${service.protocol}/${service.port}`,
          state: service.off === undefined ? this.#o.health.of(service) : 'off',
          reason: service.off ?? null,
          device: service.target === undefined ? 'this program' : addressText(service.target),
          rtsp: service.rtsp,
          allow: service.allow.map(formatWho),
          key: endpoint.identity.pair.publicKey,
          payloadBytes: safe(counted?.payloadBytes ?? 0n),
          overheadBytes: safe(counted?.overheadBytes ?? 0n),
        };
      }),
    );
  }
}

const addressText = ({ host, port }: HostPort): string => (host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`);
/** A port alone is one on loopback. */
const loopback = (listen: string): string => (/^\d+$/.test(listen) ? `127.0.0.1:${listen}` : listen);

/** What a command opened lives as long as the command. */
async function until(signal: AbortSignal, door: Door): Promise<string> {
  if (signal.aborted) await door.close();
  else signal.addEventListener('abort', () => void door.close(), { once: true });
  return door.address;
}

const round = (value: number): number => Math.round(value * 1_000) / 1_000;
