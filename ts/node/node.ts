/**
 * Puts the parts together: what starts, in which order, what undoes it, and who hears what.
 *
 * ```
 * data plane ──events──▶ links, sessions          links ──link up, frames──▶ router ──set-ups──▶ sessions
 * sessions ──opened, up──▶ bindings (addresses, policy) ──▶ data plane          dns, forwards, control ──▶ resolver ──▶ sessions
 * ```
 */
import { randomBytes } from 'node:crypto';
import type { Logger } from 'pino';
import { type Config, checkOutlets, type LocalChanges } from '../config/index.js';
import type { ReloadDocument } from '../control/index.js';
import type { DataPlaneEvent } from '../dataplane/index.js';
import { describe, isThicketError, ThicketError } from '../errors.js';
import { Endpoints } from '../gateway/endpoints.js';
import { HealthMonitor } from '../gateway/health.js';
import type { Addresses, DnsServer, InUse } from '../naming/index.js';
import { Router } from '../routing/index.js';
import type { Membership, NodeStore, PublicKey, VerifiedIdentity } from '../trust/index.js';
import { Answers } from './answers.js';
import { Bindings } from './bindings.js';
import { Changes } from './changes.js';
import { ms, systemClock } from './clock.js';
import { NodeControl } from './control-host.js';
import { Dialer } from './dialer.js';
import { Forwards } from './forwards.js';
import { HandleSource } from './handles.js';
import { NodeHandshakes } from './handshakes.js';
import { Links } from './links.js';
import { openNameServer } from './name-server.js';
import { Outlets } from './outlets.js';
import { Outward } from './outward.js';
import { ownNameKeys } from './own-names.js';
import type { Place } from './place.js';
import { Proxies } from './proxies.js';
import { RelayRules } from './relay-rules.js';
import { findNetwork, Resolver } from './resolver.js';
import { type Session, Sessions } from './sessions.js';
import { Settings } from './settings.js';
import type { NodeOptions, RunningNode } from './start.js';
import { Tracer } from './tracer.js';
import type { Undo } from './undo.js';
import { Uplink } from './uplink.js';
import { warningsOf } from './warnings.js';

const TICK = ms(200);
/** How often the ways to the devices are looked at. */
const ROUTES = ms(10_000);
/** Refusals by far ends that are remembered, in all. */
const DENIED = 64;

/** What a node is made of: opened by `start.ts`, and undone by `undo`. */
export interface Parts extends NodeOptions {
  readonly store: NodeStore;
  readonly local: LocalChanges;
  readonly log: Logger;
  readonly place: Place;
  readonly fileConfig: Config;
  readonly membership: Membership | undefined;
  readonly epoch: bigint;
  readonly undo: Undo;
}

export class Node implements RunningNode {
  readonly key: PublicKey;
  readonly failed: Promise<never>;
  readonly outward: Outward;
  readonly answers: Answers;
  readonly uplink: Uplink;
  readonly #p: Parts;
  readonly #clock = systemClock;
  readonly #links: Links;
  readonly #sessions: Sessions;
  readonly #router: Router;
  readonly #bindings: Bindings;
  readonly #resolver: Resolver;
  readonly #dialer: Dialer;
  readonly #tracer: Tracer;
  readonly #rules: RelayRules;
  readonly #forwards: Forwards;
  readonly #proxies: Proxies;
  readonly #outlets: Outlets;
  readonly #endpoints: Endpoints | undefined;
  readonly #denied: { readonly session: Session['id']; readonly what: string }[] = [];
  readonly #settings: Settings;
  readonly #changes: Changes;
  #nameServer: DnsServer | undefined;
  #control: NodeControl | undefined;
  #epoch: bigint;
  #fail: (error: Error) => void = () => {};
  #stopping: Promise<void> | undefined;

  constructor(parts: Parts) {
    this.#p = parts;
    this.key = parts.store.pair.publicKey;
    this.#settings = new Settings(parts.fileConfig, parts.local.join(parts.fileConfig), parts.membership);
    this.#epoch = parts.epoch;
    this.failed = new Promise<never>((_, reject) => {
      this.#fail = reject;
    });
    this.failed.catch(() => {});
    this.#endpoints = this.#makeEndpoints();
    this.#bindings = this.#makeBindings();
    const handles = new HandleSource();
    const handshakes = this.#makeHandshakes();
    this.#rules = new RelayRules(
      () => this.#settings.config.relay,
      () => this.#links.all().filter((link) => link.role === 'child'),
    );
    this.#links = this.#makeLinks(handles, handshakes);
    this.uplink = new Uplink({
      isUp: () => this.#settings.config.parents.length === 0 || this.#links.parents().some(({ link }) => link !== undefined),
      clock: this.#clock,
    });
    this.#router = this.#makeRouter();
    this.#sessions = this.#makeSessions(handles, handshakes);
    this.#dialer = new Dialer(this.#sessions, this.#bindings, this.#clock);
    this.#resolver = this.#makeResolver();
    this.#tracer = new Tracer({ probe: (egress, hops, done) => this.#router.setups.trace(egress, hops, done), clock: this.#clock });
    this.outward = new Outward({
      pool: parts.place.ground?.pool,
      userspace: parts.place.plane.userspace,
      resolver: this.#resolver,
      domain: this.#settings.config.dns.domain,
    });
    this.#forwards = new Forwards({ outward: this.outward, log: parts.log });
    this.#proxies = new Proxies({ outward: this.outward, log: parts.log });
    this.#outlets = new Outlets({
      outward: this.outward,
      resolver: this.#resolver,
      endpoints: () => this.#endpoints?.all() ?? [],
      refresh: (session) => this.#bindings.refresh(session),
      callFrom: (addresses) => parts.place.ground?.callFrom(addresses) ?? Promise.resolve(),
      log: parts.log,
    });
    this.answers = new Answers({
      refresh: () => this.#changes.answers(),
      endpoints: () => this.#endpoints?.all() ?? [],
      session: (id) => this.#sessions.byId(id),
    });
    this.#changes = this.#makeChanges();
  }

  /** Goes to work. Throws when something can't be had; the caller undoes the rest. */
  async open(): Promise<void> {
    const { undo, log } = this.#p;
    if (this.#endpoints !== undefined)
      await this.#endpoints.commit(await this.#endpoints.prepare(this.#settings.config.endpoints), async () => {});
    await this.#openDns();
    undo.push(() => this.#forwards.close());
    await (await this.#forwards.prepare(this.#settings.config.forwards)).commit();
    undo.push(() => this.#proxies.close());
    await (await this.#proxies.prepare(this.#settings.config.proxies)).commit();
    const { outlets, endpoints } = this.#settings.config;
    checkOutlets(outlets, endpoints);
    undo.push(() => this.#outlets.close());
    await (await this.#outlets.prepare(outlets)).commit();
    const health = new HealthMonitor(() => this.#endpoints?.all().flatMap((endpoint) => endpoint.services) ?? []);
    undo.push(() => health.close());
    const stopTicking = this.#clock.every(TICK, () => this.#tick());
    undo.push(() => {
      stopTicking();
      this.#sessions.closeAll('the node stops');
      this.#links.close();
    });
    undo.push(this.#clock.every(ROUTES, () => void this.#changes.followRoutes()));
    this.#control = this.#makeControl(health);
    for (const parent of this.#settings.config.parents) this.#links.addParent(parent);
    for (const warning of this.#warnings()) log.warn(warning);
  }

  get control(): NodeControl {
    if (this.#control === undefined) throw new ThicketError('BUSY', 'the node is starting: try again');
    return this.#control;
  }

  reload(): Promise<ReloadDocument> {
    return this.#changes.reload();
  }

  stop(): Promise<void> {
    // Who waits for the tree is told, by whom he asked, that the node closes.
    this.uplink.rose();
    this.#stopping ??= this.#p.undo.run((error) => this.#p.log.error(describe(error)));
    return this.#stopping;
  }

  handle(event: DataPlaneEvent): void {
    switch (event.type) {
      case 'sessionNeeded':
        return this.#wanted(event.own, event.peer);
      case 'labelUnknown':
        return this.#router.setups.unknownLabel(event.link, event.label);
      case 'labelExpired':
        return this.#router.setups.expired(event.label);
      case 'flowDenied':
        this.#denied.push({ session: event.session, what: `${event.protocol}/${event.port}` });
        if (this.#denied.length > DENIED) this.#denied.shift();
        return;
      case 'incoming':
        return this.answers.take(event);
      case 'log':
        return this.#p.log[event.level](event.message);
      case 'fatal':
        return this.#fail(new ThicketError('DATA_PLANE', `${event.message}: see the log, then start the node again`));
      default:
        this.#links.handle(event);
        this.#sessions.handle(event);
    }
  }

  /**
   * Which local addresses flows, or endpoints of ours, stand on. The kernel is asked, too: it knows connections that wait longer than their session
   * is kept, and those from before this program started.
   */
  async inUse(): Promise<InUse> {
    const { plane, ground } = this.#p.place;
    const hosted = this.#endpoints?.all() ?? [];
    const own = ground === undefined ? [] : both(ground.pool.first).map((source) => ({ source }));
    const toEndpoints = hosted.flatMap(({ addresses }) => both(addresses)).map((destination) => ({ destination }));
    const flows = (await ground?.flows([...own, ...toEndpoints])) ?? [];
    const used = new Set(flows.flatMap(({ original }) => [original.source, original.destination]));
    const busy = new Set(plane.stats().sessions.flatMap(({ session, flows: count }) => (count > 0 ? [session] : [])));
    return (subject, addresses) => {
      if (subject.kind === 'own' && this.#endpoints?.get(subject.key) !== undefined) return true;
      return both(addresses).some((address) => used.has(address)) || this.#bindings.sessionsOf(subject).some(({ id }) => busy.has(id));
    };
  }

  // ── events ────────────────────────────────────────────────────────────────────────────────────────────────────────────

  #tick(): void {
    try {
      this.#expire();
      this.#links.tick();
      this.#sessions.tick();
      this.#router.tick();
    } catch (error) {
      // Without its worker the data plane answers no more; it says so by itself, too.
      if (isThicketError(error)) this.#p.log.error(error.message);
      else this.#fail(error instanceof Error ? error : new Error(String(error)));
    }
  }

  /** Certificates end where the clock, or what is certainly past, has passed their date. */
  #expire(): void {
    const time = Math.max(this.#p.store.floor, this.#clock.wallSeconds());
    this.#links.expire(time);
    for (const session of this.#sessions.expired(time)) {
      void this.#bindings.evict(session, () => this.#sessions.close(session.id, "the far end's certificate has expired"));
    }
  }

  /** A program uses an address that leads nowhere (any more): get its session back. */
  #wanted(own: string, peer: string): void {
    const pool = this.#p.place.ground?.pool;
    const subject = pool?.lookup(peer);
    if (pool === undefined || subject === undefined) return;
    const owner = own === pool.first.v4 || own === pool.first.v6 ? undefined : pool.lookup(own);
    const ours = owner === undefined ? this.key : owner.kind === 'own' ? owner.key : undefined;
    if (ours === undefined) return;
    const live = this.#bindings.session(ours, subject);
    if (live !== undefined) this.#sessions.wake(live.id);
    this.#resolver
      .wanted(subject, ours)
      .catch((error: unknown) => this.#p.log.debug(`an address in use leads nowhere yet: ${describe(error)}`));
  }

  /** What a verified chain proves beside who somebody is: that its date is past, and where a short name has moved to. */
  #learn(identity: VerifiedIdentity): void {
    const { network, shortName, generation } = identity;
    if (!this.#remember(identity) || shortName === undefined || generation === undefined) return;
    for (const { id, identity: other } of this.#sessions.all()) {
      const older = other.network === network && other.shortName === shortName && (other.generation ?? 0) < generation;
      if (older) this.#sessions.close(id, 'the name has moved to another gateway');
    }
  }

  /** Returns whether a short name's generation has risen. A disk that fails must not end a node that carries packets. */
  #remember({ network, issuedAt, shortName, generation }: VerifiedIdentity): boolean {
    const { store, log } = this.#p;
    try {
      if (network === this.#settings.membership?.network.key) store.raiseFloor(issuedAt);
      return shortName !== undefined && generation !== undefined && store.raiseGeneration(network, shortName, generation);
    } catch (error) {
      log.error(describe(error));
      return false;
    }
  }

  /** A restored state directory: jump ahead of what others have seen. */
  #behind(seen: bigint): void {
    try {
      this.#epoch = this.#p.store.jumpEpoch(this.#epoch, seen);
      this.#p.log.warn('the boot epoch was behind (a restored state directory?): it has jumped ahead');
    } catch (error) {
      this.#p.log.error(describe(error));
    }
  }

  #warnings(): string[] {
    return warningsOf(this.#settings.config, this.#settings.membership);
  }

  // ── parts ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

  #makeEndpoints(): Endpoints | undefined {
    const { place, store, log } = this.#p;
    if (place.ground === undefined) return undefined;
    const { ipv4 } = this.#settings.config.interface;
    return new Endpoints({
      ...place.ground,
      answers: place.ground.mode.kind === 'userspace',
      store,
      log,
      membership: () => this.#settings.membership,
      pools: place.ipv6 === undefined ? [ipv4] : [ipv4, place.ipv6],
      wallSeconds: () => this.#clock.wallSeconds(),
    });
  }

  #makeBindings(): Bindings {
    const { plane, ground } = this.#p.place;
    return new Bindings({
      plane,
      self: this.key,
      pool: ground?.pool,
      endpoint: (key) => this.#endpoints?.get(key),
      ownNetwork: () => this.#settings.membership?.network.key,
      callsOut: (session) => this.#outlets.callsOut(session),
      cut: (pairs) => ground?.nat.cut(pairs) ?? Promise.resolve(),
      log: this.#p.log,
    });
  }

  #makeHandshakes(): NodeHandshakes {
    const { store } = this.#p;
    return new NodeHandshakes({
      node: this.key,
      pair: (key) => (key === this.key ? store.pair : this.#endpoints?.get(key)?.identity.pair),
      chain: (key) => {
        const endpoint = this.#endpoints?.get(key)?.identity;
        if (endpoint !== undefined) return { chain: endpoint.chain, grant: endpoint.grant };
        return { chain: this.#settings.membership === undefined ? [] : [this.#settings.membership.certificate], grant: undefined };
      },
      epoch: () => this.#epoch,
      floor: () => store.floor,
      now: () => this.#clock.wallSeconds(),
      generationOf: (network, name) => store.generationOf(network, name),
    });
  }

  #makeLinks(handles: HandleSource, handshakes: NodeHandshakes): Links {
    const { log } = this.#p;
    return new Links({
      plane: this.#p.place.plane,
      handshakes: () => handshakes,
      self: this.key,
      clock: this.#clock,
      handles,
      log,
      rekey: () => ms(this.#settings.config.session.rekeyMs),
      accept: (peer, identity, from) => this.#rules.accept(peer, identity, from),
      listener: {
        linkUp: (link, restarted) => {
          log.info({ key: link.key, role: link.role }, 'link up');
          if (restarted) this.#sessions.linkLost(link.id);
          this.#router.linkUp(link);
          if (link.role !== 'parent') return;
          this.#resolver.forgetFailures();
          this.#sessions.linkUp();
          this.uplink.rose();
        },
        linkDown: (link, reason) => {
          log.info({ key: link.key, role: link.role }, `link down: ${reason}`);
          this.#router.linkDown(link);
          this.#sessions.linkLost(link.id);
        },
        linkRenewed: (link) => this.#router.linkRenewed(link),
        linkFrame: (link, generation, frame) => this.#router.handle(link, generation, frame),
        behind: (epoch) => this.#behind(epoch),
      },
    });
  }

  #makeRouter(): Router {
    const { store, place, log } = this.#p;
    return new Router({
      pair: store.pair,
      epoch: () => this.#epoch,
      parents: () => this.#settings.config.parents.map((parent) => parent.key),
      names: () => ownNameKeys(this.#settings.membership),
      endpoints: () => this.#endpoints?.all().map(({ identity, names }) => ({ pair: identity.pair, names })) ?? [],
      neighbour: (id) => this.#links.get(id),
      neighbourByKey: (key) => this.#links.byKey(key),
      rights: (child) =>
        this.#rules.rights(this.#links.byKey(child)?.identity, this.#router.table.size - this.#router.table.subtree(child)),
      send: (link, frame, generation) => this.#links.send(link, frame, generation),
      disconnect: (link, reason) => this.#links.disconnect(link, reason),
      labelForward: (ingress, egress) => place.plane.labelForward(ingress, egress),
      labelRemove: (label) => place.plane.labelRemove(label),
      pathLost: (label, link) => this.#sessions.pathLost(label, link),
      now: () => this.#clock.now(),
      random: (bytes) => randomBytes(bytes),
      incoming: (setup) => {
        // Whoever gets the answer may send at once: addresses and policy stand before it goes out.
        const answer: typeof setup.answer = (ingress, message) => void this.#bindings.prepared().then(() => setup.answer(ingress, message));
        try {
          this.#sessions.incoming({ ...setup, answer });
        } catch (error) {
          log.debug(`a session was refused: ${describe(error)}`);
          // Counted there; strangers get silence.
          throw error;
        }
      },
    });
  }

  #makeSessions(handles: HandleSource, handshakes: NodeHandshakes): Sessions {
    const { log, place } = this.#p;
    return new Sessions({
      plane: place.plane,
      handshakes: () => handshakes,
      paths: {
        open: (destination, message, done) => this.#router.open(destination, message, done),
        close: (ingress, egress) => this.#router.setups.close(ingress, egress),
      },
      clock: this.#clock,
      handles,
      log,
      rekey: () => ms(this.#settings.config.session.rekeyMs),
      admit: (identity) => this.#settings.trust.require(identity),
      offer: (own, identity) => this.#bindings.offer(own, identity),
      isOwn: (key) => key === this.key || this.#endpoints?.get(key) !== undefined,
      listener: {
        sessionOpened: (session) => this.#bindings.opened(session, (reason) => this.#sessions.close(session.id, reason)),
        sessionUp: (session) => {
          this.#learn(session.identity);
          this.#bindings.refresh(session).catch((error: unknown) => log.debug(`a policy could not be put in force: ${describe(error)}`));
          this.#dialer.up(session);
          this.#tracer.measure(session);
        },
        sessionClosed: (session, reason) => {
          log.debug({ key: session.peer }, `session closed: ${reason}`);
          this.#bindings.closed(session);
          this.#dialer.closed(session);
        },
        behind: (_, epoch) => this.#behind(epoch),
      },
    });
  }

  #makeResolver(): Resolver {
    return new Resolver({
      self: this.key,
      selfName: () => this.#settings.membership && { name: this.#settings.membership.name, network: this.#settings.membership.network.key },
      domain: this.#settings.config.dns.domain,
      pool: this.#p.place.ground?.pool,
      bindings: this.#bindings,
      endpoints: () => this.#endpoints?.all() ?? [],
      network: (text) => findNetwork(text, this.#settings.config.networks, this.#settings.membership?.network),
      lookup: (nameKey, exclude) => this.#router.lookup(nameKey, exclude),
      dial: (own, peer) => this.#dialer.dial(own, peer),
      clock: this.#clock,
    });
  }

  async #openDns(): Promise<void> {
    const { place, log, undo } = this.#p;
    if (place.ground === undefined) return;
    const server = await openNameServer({
      pool: place.ground.pool,
      listen: place.ground.dns,
      self: this.key,
      dns: this.#settings.config.dns,
      networks: () => this.#settings.config.networks,
      membership: () => this.#settings.membership,
      resolver: this.#resolver,
      log,
    });
    this.#nameServer = server;
    undo.push(() => server.close());
  }

  #makeChanges(): Changes {
    return new Changes({
      ...this.#p,
      started: this.#p.fileConfig,
      settings: this.#settings,
      clock: this.#clock,
      endpoints: this.#endpoints,
      answers: this.answers,
      forwards: this.#forwards,
      proxies: this.#proxies,
      outlets: this.#outlets,
      bindings: this.#bindings,
      sessions: this.#sessions,
      links: this.#links,
      router: this.#router,
      resolver: this.#resolver,
    });
  }

  #makeControl(health: HealthMonitor): NodeControl {
    const { place } = this.#p;
    return new NodeControl({
      self: this.key,
      clock: this.#clock,
      plane: place.plane,
      shortfall: place.backend.shortfall,
      ground: place.ground,
      dnsPort: this.#nameServer?.port,
      ipv6: place.ipv6,
      config: () => this.#settings.config,
      membership: () => this.#settings.membership,
      links: this.#links,
      sessions: this.#sessions,
      router: this.#router,
      resolver: this.#resolver,
      bindings: this.#bindings,
      tracer: this.#tracer,
      forwards: this.#forwards,
      proxies: this.#proxies,
      outlets: this.#outlets,
      endpoints: () => this.#endpoints?.all() ?? [],
      health,
      denied: (session) => this.#denied.filter((d) => d.session === session.id).map((d) => d.what),
      warnings: () => this.#warnings(),
      change: (change) => this.#changes.change(change),
      reload: () => this.reload(),
    });
  }
}

const both = ({ v4, v6 }: Addresses): string[] => (v6 === undefined ? [v4] : [v4, v6]);
