/**
 * What a session is to this host: the pairs of local addresses that the kernel knows it by, and the list of services that its far end may reach
 * here. Both change while sessions live: names are resolved, policy is edited, trust is taken back.
 */
import type { Logger } from 'pino';
import type { AllowedService, DataPlane, SessionAddresses, SessionId, SessionPolicy } from '../dataplane/data-plane.js';
import { describe, ThicketError } from '../errors.js';
import type { HostedEndpoint } from '../gateway/endpoints.js';
import type { FlowPair } from '../gateway/nat/index.js';
import { compilePolicy } from '../gateway/policy.js';
import type { Addresses, AddressPool, Subject } from '../naming/index.js';
import type { PublicKey, VerifiedIdentity } from '../trust/index.js';
import type { OfferedService } from './session-control.js';
import type { Session } from './sessions.js';

export interface BindingsOptions {
  readonly plane: DataPlane;
  readonly self: PublicKey;
  /** Absent on a node without an interface of its own: then sessions carry control packets only. */
  readonly pool: AddressPool | undefined;
  readonly endpoint: (key: PublicKey) => HostedEndpoint | undefined;
  readonly ownNetwork: () => PublicKey | undefined;
  /** Whether an endpoint of ours may call this session's far end: its device has an outlet to it. */
  readonly callsOut: (session: Session) => boolean;
  readonly cut: (pairs: readonly FlowPair[]) => Promise<void>;
  readonly log: Logger;
}

interface Bound {
  readonly session: Session;
  readonly subject: Subject;
  readonly addresses: SessionAddresses;
}

const NOTHING: Omit<SessionPolicy, 'session'> = { inbound: [], outbound: false, echo: false, rtspPorts: [] };

export class Bindings {
  readonly #o: BindingsOptions;
  /** By our own key and the subject: one remote key has one address here, whichever of our endpoints it talks to. */
  readonly #bound = new Map<string, Bound>();
  readonly #policies = new Map<SessionId, SessionPolicy>();
  readonly #preparing = new Set<Promise<void>>();
  /** Sessions that are open: what was begun for one that has closed meanwhile must not bring it back. */
  readonly #open = new Set<SessionId>();

  constructor(options: BindingsOptions) {
    this.#o = options;
  }

  /** Called when both ends admit each other. The data plane knows the session when this returns; its addresses follow, see `prepared`. */
  opened(session: Session, failed: (reason: string) => void): void {
    this.#open.add(session.id);
    this.#o.plane.sessionOpen({ session: session.id });
    const work = this.#prepare(session)
      .catch((error: unknown) => failed(describe(error)))
      .finally(() => this.#preparing.delete(work));
    this.#preparing.add(work);
  }

  /** Resolves when every session opened so far has its addresses and its policy: before that nobody is told that he may send. */
  async prepared(): Promise<void> {
    while (this.#preparing.size > 0) await Promise.all(this.#preparing);
  }

  closed(session: Session): void {
    this.#open.delete(session.id);
    this.#policies.delete(session.id);
    for (const [id, bound] of this.#bound) if (bound.session.id === session.id) this.#bound.delete(id);
  }

  /** The session that a subject's address leads to, from our own key `own`. */
  session(own: PublicKey, subject: Subject): Session | undefined {
    return this.#bound.get(boundId(own, subject))?.session;
  }

  /** All sessions that a subject's address leads to. */
  sessionsOf(subject: Subject): Session[] {
    const text = subjectText(subject);
    return [...this.#bound.values()].filter((bound) => subjectText(bound.subject) === text).map((bound) => bound.session);
  }

  /** Addresses of a session's far end, in text form, for `sessions`. */
  addressesOf(session: Session): string[] {
    const found: string[] = [];
    for (const { session: of, addresses } of this.#bound.values()) {
      if (of.id !== session.id) continue;
      if (addresses.peer4 !== undefined) found.push(addresses.peer4);
      if (addresses.peer6 !== undefined) found.push(addresses.peer6);
    }
    return found;
  }

  /** Makes `subject`'s address lead into `session`; durable before it resolves. Throws POOL_EXHAUSTED, or SESSION_CLOSED. */
  async bind(session: Session, subject: Subject): Promise<Addresses> {
    const { pool, plane } = this.#o;
    const own = this.#ownAddresses(session.own);
    if (pool === undefined || own === undefined) throw new TypeError('a node without an interface binds nothing');
    const peer = await pool.assign(subject);
    if (!this.#open.has(session.id)) throw new ThicketError('SESSION_CLOSED', 'the session has closed meanwhile: try again');
    const addresses: SessionAddresses = {
      session: session.id,
      own4: own.v4,
      peer4: peer.v4,
      ...(own.v6 !== undefined && peer.v6 !== undefined ? { own6: own.v6, peer6: peer.v6 } : {}),
    };
    const id = boundId(session.own, subject);
    if (this.#bound.get(id)?.session.id !== session.id) {
      for (const [other, bound] of this.#bound) {
        // The subject has another session now; or the pool took the address from another subject, which it leads to no more.
        const replaced = other === id || (bound.addresses.peer4 === peer.v4 && subjectText(bound.subject) !== subjectText(subject));
        if (!replaced) continue;
        plane.sessionAliasRemove(bound.addresses);
        this.#bound.delete(other);
      }
      this.#bound.set(id, { session, subject, addresses });
    }
    plane.sessionOpen(addresses);
    return peer;
  }

  /** Policy, certificates or trust changed, or the far end told what it offers: compiles anew and cuts what is no longer allowed. */
  async refresh(session: Session): Promise<void> {
    if (!this.#open.has(session.id)) return;
    const policy = this.#compile(session);
    const before = this.#policies.get(session.id);
    this.#policies.set(session.id, policy);
    // A caller has an address here from when it may reach something.
    const subject: Subject = { kind: 'key', key: session.peer };
    if (policy.inbound.length > 0 && this.session(session.own, subject)?.id !== session.id) await this.bind(session, subject);
    // Only the newest goes to the data plane: another refresh may have overtaken this one.
    if (this.#policies.get(session.id) !== policy) return;
    this.#o.plane.sessionPolicy(policy);
    const gone = (before?.inbound ?? []).filter((service) => !policy.inbound.some((s) => same(s, service)));
    if (gone.length > 0) await this.#cut(this.#pairsOf(session, gone));
  }

  /** A session isn't admitted any more: `close` ends it, and then what the kernel keeps of its flows goes, too. */
  async evict(session: Session, close: () => void): Promise<void> {
    const pairs = this.#pairsOf(session, undefined);
    close();
    await this.#cut(pairs);
  }

  /** What the far end may reach here, as told to it. */
  offer(own: PublicKey, identity: VerifiedIdentity): OfferedService[] {
    const services = this.#o.endpoint(own)?.services ?? [];
    return compilePolicy(services, identity, this.#o.ownNetwork()).map((service) => ({
      protocol: service.protocol,
      port: service.port,
      rtsp: service.rtsp !== undefined,
    }));
  }

  allowed(session: Session): readonly AllowedService[] {
    return this.#policies.get(session.id)?.inbound ?? [];
  }

  async #prepare(session: Session): Promise<void> {
    const { pool, self } = this.#o;
    // Flows that outlived our restart go on under the addresses that their names, or keys, had.
    if (pool !== undefined && session.own === self) {
      for (const subject of known(pool, session)) {
        const holder = this.session(self, subject);
        if (holder === undefined || holder.state !== 'up') await this.bind(session, subject);
      }
    }
    await this.refresh(session);
  }

  #compile(session: Session): SessionPolicy {
    const { self, pool } = this.#o;
    if (pool === undefined) return { session: session.id, ...NOTHING };
    if (session.own === self) {
      const rtspPorts = session.offered.filter((s) => s.rtsp && s.protocol === 'tcp').map((s) => s.port);
      return { session: session.id, inbound: [], outbound: true, echo: false, rtspPorts };
    }
    const services = this.#o.endpoint(session.own)?.services ?? [];
    const inbound = compilePolicy(services, session.identity, this.#o.ownNetwork());
    return { session: session.id, inbound, outbound: this.#o.callsOut(session), echo: inbound.length > 0, rtspPorts: [] };
  }

  #ownAddresses(key: PublicKey): Addresses | undefined {
    return key === this.#o.self ? this.#o.pool?.first : this.#o.endpoint(key)?.addresses;
  }

  /** Flows as the kernel's connection tracking knows them: all of a session's, or those of some services. */
  #pairsOf(session: Session, services: readonly AllowedService[] | undefined): FlowPair[] {
    if (session.own === this.#o.self) return [];
    const pairs: FlowPair[] = [];
    for (const { session: of, addresses } of this.#bound.values()) {
      if (of.id !== session.id) continue;
      for (const [peer, endpoint] of [
        [addresses.peer4, addresses.own4],
        [addresses.peer6, addresses.own6],
      ]) {
        if (peer === undefined || endpoint === undefined) continue;
        if (services === undefined) pairs.push({ peer, endpoint });
        else pairs.push(...services.map(({ protocol, port }) => ({ peer, endpoint, protocol, port })));
      }
    }
    return pairs;
  }

  async #cut(pairs: readonly FlowPair[]): Promise<void> {
    if (pairs.length === 0) return;
    try {
      // The data plane takes orders in turn: when it answers this question the flows are cut there. One more packet of theirs, and the kernel
      // would track them again.
      this.#o.plane.stats();
      await this.#o.cut(pairs);
    } catch (error) {
      this.#o.log.error(`flows could not be cut: ${describe(error)}`);
    }
  }
}

/** Subjects in the pool that mean this session's far end. */
function known(pool: AddressPool, { peer, identity }: Session): Subject[] {
  const subjects: Subject[] = [{ kind: 'key', key: peer }];
  const names = identity.shortName === undefined ? [identity.name] : [identity.name, identity.shortName];
  for (const name of names) subjects.push({ kind: 'name', name, network: identity.network });
  return subjects.filter((subject) => pool.get(subject) !== undefined);
}

const boundId = (own: PublicKey, subject: Subject): string => `${own} ${subjectText(subject)}`;

function subjectText(subject: Subject): string {
  return subject.kind === 'name' ? `name ${subject.name} ${subject.network}` : `${subject.kind} ${subject.key}`;
}

function same(a: AllowedService, b: AllowedService): boolean {
  return a.protocol === b.protocol && a.port === b.port && a.target?.host === b.target?.host && a.target?.port === b.target?.port;
}
