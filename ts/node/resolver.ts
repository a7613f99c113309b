/**
 * From a name, or a key, to a session with its holder and a local address. An address is given only after the holder's certificate has been
 * verified and admitted, so that nobody drains the pool by asking.
 */
import { describe, isThicketError, ThicketError } from '../errors.js';
import type { HostedEndpoint } from '../gateway/endpoints.js';
import { type Addresses, type AddressPool, parseName, type Resolution, type ResolvableName, type Subject } from '../naming/index.js';
import type { LookupResult } from '../routing/index.js';
import { type NetworkRef, nameKeyPair, type PublicKey, parseKey, type VerifiedIdentity } from '../trust/index.js';
import type { Bindings } from './bindings.js';
import { type Clock, type Milliseconds, ms } from './clock.js';
import type { Session } from './sessions.js';

export interface ResolverOptions {
  readonly self: PublicKey;
  /** Under which our own certificate names us. */
  readonly selfName: () => { readonly name: string; readonly network: PublicKey } | undefined;
  readonly domain: string;
  readonly pool: AddressPool | undefined;
  readonly bindings: Bindings;
  readonly endpoints: () => readonly HostedEndpoint[];
  /** Nicknames and keys to networks, with the naming secret where we have it. */
  readonly network: (text: string) => NetworkRef | undefined;
  readonly lookup: (nameKey: PublicKey, exclude: readonly PublicKey[]) => Promise<LookupResult>;
  readonly dial: (own: PublicKey, peer: PublicKey) => Promise<Session>;
  readonly clock: Clock;
}

/** A session, and the identity that its far end proved. */
export interface Reached {
  readonly session: Session;
  readonly subject: Subject;
}

/** Keys tried for one name before it counts as held by nobody right. */
const TRIED = 8;
const NEGATIVE = ms(5_000);
const NEGATIVES = 1_024;

export class Resolver {
  readonly #o: ResolverOptions;
  readonly #under = new Map<string, Promise<Reached>>();
  readonly #negative = new Map<string, { readonly error: ThicketError; readonly until: Milliseconds }>();

  constructor(options: ResolverOptions) {
    this.#o = options;
  }

  /** For the DNS server. Never rejects. */
  async resolve(name: ResolvableName): Promise<Resolution> {
    try {
      const own = this.#own(name);
      if (own !== undefined) return { status: 'found', addresses: own };
      const reached = await this.#reach(name, this.#o.self);
      const addresses = await this.#o.bindings.bind(reached.session, reached.subject);
      this.#o.pool?.touch(reached.subject);
      return { status: 'found', addresses, services: reached.session.offered };
    } catch (error) {
      if (isAbsence(error)) return { status: 'notFound' };
      return { status: 'failed', reason: describe(error) };
    }
  }

  /** For commands: `camera.home.thicket`, `camera.home`, a key. Throws a ThicketError that says why not. */
  async reach(text: string, own: PublicKey = this.#o.self): Promise<Reached> {
    const name = this.#parse(text);
    if (this.#isOwn(name)) throw new ThicketError('REFUSED', `${text} is this node's own: ask from another node`);
    return this.#reach(name, own);
  }

  /** Whether the far end of `session` is who `text` means. */
  means(text: string, { peer, identity }: Pick<Session, 'peer' | 'identity'>): boolean {
    const name = this.#parse(text);
    if (name.kind === 'key') return name.key === peer;
    const network = this.#o.network(name.network)?.key;
    return network !== undefined && isHolder(identity, { name: name.name, network });
  }

  /** The address by which programs on this host reach `text`; `own` is the key that calls, the node's own or that of an endpoint. */
  async address(text: string, own?: PublicKey): Promise<Addresses & Reached> {
    const reached = await this.reach(text, own);
    const addresses = await this.#o.bindings.bind(reached.session, reached.subject);
    this.#o.pool?.touch(reached.subject);
    return { ...addresses, ...reached };
  }

  /** A program sent to the address of `subject`, which has no session (any more). */
  async wanted(subject: Subject, own: PublicKey = this.#o.self): Promise<void> {
    if (subject.kind === 'own') return;
    const session = subject.kind === 'key' ? await this.#o.dial(own, subject.key) : await this.#find(subject, own);
    await this.#o.bindings.bind(session, subject);
  }

  /** A parent is back, or our own configuration changed: what failed may work now. */
  forgetFailures(): void {
    this.#negative.clear();
  }

  #parse(text: string): ResolvableName {
    const name = parseName(text, this.#o.domain, { bare: true });
    if (name !== undefined && name.kind !== 'apex') return name;
    throw new ThicketError('BAD_ARGUMENT', `"${text}" is not a name: use NAME.NETWORK.${this.#o.domain}, or a key`);
  }

  async #reach(name: ResolvableName, own: PublicKey): Promise<Reached> {
    const id = `${own} ${name.kind === 'key' ? name.key : `${name.name}.${name.network}`}`;
    const failed = this.#negative.get(id);
    if (failed !== undefined && this.#o.clock.now() < failed.until) throw failed.error;
    const under = this.#under.get(id);
    if (under !== undefined) return under;
    const work = this.#reachNow(name, own).catch((error: unknown) => {
      if (isAbsence(error)) this.#remember(id, error);
      throw error;
    });
    this.#under.set(id, work);
    const done = (): void => {
      this.#under.delete(id);
    };
    work.then(done, done);
    return work;
  }

  async #reachNow(name: ResolvableName, own: PublicKey): Promise<Reached> {
    if (name.kind === 'key') return { session: await this.#o.dial(own, name.key), subject: { kind: 'key', key: name.key } };
    const network = this.#o.network(name.network);
    if (network === undefined) {
      throw new ThicketError('NOT_FOUND', `no network is called ${name.network} here: name it under networks: in thicket.yaml`);
    }
    const subject: Subject = { kind: 'name', name: name.name, network: network.key };
    return { session: await this.#find(subject, own), subject };
  }

  async #find(subject: { readonly name: string; readonly network: PublicKey } & Subject, own: PublicKey): Promise<Session> {
    const live = this.#o.bindings.session(own, subject);
    if (live?.state === 'up') return live;
    const secret = this.#o.network(subject.network)?.namingSecret;
    if (secret === undefined) {
      throw new ThicketError(
        'UNKNOWN_NETWORK',
        `the naming secret of ${subject.network} isn't known here: write <network id>.<secret> under networks:`,
      );
    }
    const nameKey = nameKeyPair(secret, subject.name).publicKey;
    const wrong: PublicKey[] = [];
    let failure: unknown;
    while (wrong.length < TRIED) {
      const found = await this.#o.lookup(nameKey, wrong);
      if (found.status === 'unreachable') throw failure ?? new ThicketError('UNREACHABLE', 'the tree is out of reach: see thicket status');
      if (found.status !== 'found' || found.keys.length === 0) break;
      const results = await Promise.allSettled(found.keys.map((key) => this.#o.dial(own, key)));
      let best: Session | undefined;
      for (const [index, result] of results.entries()) {
        const key = found.keys[index] as PublicKey;
        if (result.status === 'rejected') failure = result.reason;
        else if (isHolder(result.value.identity, subject)) best = better(best, result.value);
        if (result.status === 'rejected' || !isHolder(result.value.identity, subject)) wrong.push(key);
      }
      if (best !== undefined) return best;
    }
    throw (
      failure ??
      new ThicketError('NOT_FOUND', `nobody is called ${subject.name} in that network: is its gateway up, and the name certified?`)
    );
  }

  #isOwn(name: ResolvableName): boolean {
    return this.#ownHolder(name) !== undefined;
  }

  #own(name: ResolvableName): Addresses | undefined {
    const holder = this.#ownHolder(name);
    return holder === 'self' ? this.#o.pool?.first : holder?.addresses;
  }

  #ownHolder(name: ResolvableName): 'self' | HostedEndpoint | undefined {
    if (name.kind === 'key') {
      return name.key === this.#o.self ? 'self' : this.#o.endpoints().find((e) => e.identity.pair.publicKey === name.key);
    }
    const selfName = this.#o.selfName();
    if (selfName === undefined || this.#o.network(name.network)?.key !== selfName.network) return undefined;
    if (name.name === selfName.name) return 'self';
    return this.#o
      .endpoints()
      .find((e) => name.name === `${e.name}.${selfName.name}` || (e.identity.grant !== undefined && name.name === e.name));
  }

  #remember(id: string, error: ThicketError): void {
    this.#negative.delete(id);
    this.#negative.set(id, { error, until: ms(this.#o.clock.now() + NEGATIVE) });
    if (this.#negative.size > NEGATIVES) this.#negative.delete(this.#negative.keys().next().value as string);
  }
}

/** Nobody is there, as opposed to: it can't be told. A key that is no point of the curve is nobody's. */
function isAbsence(error: unknown): error is ThicketError {
  return isThicketError(error) && ['NOT_FOUND', 'NO_ROUTE', 'BAD_KEY'].includes(error.code);
}

function isHolder(identity: VerifiedIdentity, subject: { readonly name: string; readonly network: PublicKey }): boolean {
  return identity.network === subject.network && (identity.name === subject.name || identity.shortName === subject.name);
}

/** Two live certificates for one name: the higher generation, then the higher serial, wins. */
function better(a: Session | undefined, b: Session): Session {
  if (a === undefined) return b;
  const [ga, gb] = [a.identity.generation ?? 0, b.identity.generation ?? 0];
  if (ga !== gb) return gb > ga ? b : a;
  return b.identity.serial > a.identity.serial ? b : a;
}

/** A network as written: a nickname, or a key. */
export function findNetwork(text: string, nicknames: ReadonlyMap<string, NetworkRef>, own: NetworkRef | undefined): NetworkRef | undefined {
  let ref = nicknames.get(text);
  if (ref === undefined) {
    try {
      const key = parseKey(text);
      ref = [...nicknames.values()].find((n) => n.key === key && n.namingSecret !== undefined) ?? { key, namingSecret: undefined };
    } catch {
      return undefined;
    }
  }
  return ref.namingSecret === undefined && own?.key === ref.key ? own : ref;
}
