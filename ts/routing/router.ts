/**
 * A node's part in the tree: it signs its place under its parents, countersigns its children's, passes up what it learns, answers look-ups, and sets paths up.
 */
import { Bucket } from '../bucket.js';
import type { Generation, Hop, Label, LinkId } from '../dataplane/data-plane.js';
import { isThicketError } from '../errors.js';
import { equalBytes, type KeyPair, type PublicKey } from '../trust/index.js';
import { Channel } from './channel.js';
import { type Announced, decodeFrame, encodeFrame, type Frame, withdrawFrames } from './frames.js';
import { type LookupResult, Lookups } from './lookups.js';
import { type Incoming, PathSetups, type SetupOutcome } from './setup.js';
import { PARENT_WEIGHT, share } from './share.js';
import { countersignEdge, type Stamp, signEdge, signEndpointEdge, signNameRecord, signParentSet, verifyEdge } from './statements.js';
import { type Change, type ChildRights, RoutingTable } from './table.js';
import { Upward } from './upward.js';

/** What routing needs to know of a link. */
export interface Neighbour {
  readonly id: LinkId;
  readonly key: PublicKey;
  readonly role: 'parent' | 'child';
  readonly generation: Generation;
}

/** A key hosted here and the name keys that it holds. */
export interface Hosted {
  readonly pair: KeyPair;
  readonly names: readonly KeyPair[];
}

export interface RouterHost {
  readonly pair: KeyPair;
  epoch(): bigint;
  /** Configured parents. */
  parents(): readonly PublicKey[];
  /** The node's own names. */
  names(): readonly KeyPair[];
  endpoints(): readonly Hosted[];
  neighbour(id: LinkId): Neighbour | undefined;
  neighbourByKey(key: PublicKey): Neighbour | undefined;
  rights(child: PublicKey): ChildRights;
  send(link: LinkId, frame: Uint8Array, generation?: Generation): void;
  /** Ends a link whose far end doesn't do its part. */
  disconnect(link: LinkId, reason: string): void;
  labelForward(ingress: Hop, egress: Hop): void;
  labelRemove(label: Label): void;
  incoming(setup: Incoming): void;
  pathLost(label: Label, link: LinkId): void;
  /** Monotonic milliseconds. */
  now(): number;
  random(bytes: number): Uint8Array;
}

/** A lost child's branch stays for so long, in case it comes right back. */
const GRACE = 2_000;
/** Children sign their place anew about hourly. */
const REFRESH = 3_600_000;
/** What is older than hours needn't be looked for more often. */
const SWEEP = 60_000;
/**
 * Signatures checked and made per second for what neighbours say, and at once: in all, a third of a second of a small machine's time; and for one link, times
 * the root of what it announced. What comes faster waits at its sender.
 */
const CHECKS = { perSecond: 3_000, burst: 600 };
const CHECKS_PER_LINK = { perSecond: 400, burst: 1_000 };
/** Frames that may wait for a child; for a parent, so many and as much as our table says, a few times over. */
const WAITING = 4_096;
const WAITING_PER_KEY = 12;

/** What we gave a child to sign its place with; the one before may still be under way. */
interface Challenge {
  readonly nonce: Uint8Array;
  readonly before: Uint8Array | undefined;
  readonly at: number;
}

interface Connection {
  readonly channel: Channel;
  readonly checks: Bucket;
  /** Frames under older keys belong to an earlier life of the link. */
  readonly since: Generation;
}

/** Keys that an answer to a look-up names at most. */
const CANDIDATES = 4;

export class Router {
  readonly table: RoutingTable;
  readonly setups: PathSetups;
  readonly #host: RouterHost;
  readonly #connections = new Map<LinkId, Connection>();
  readonly #challenges = new Map<LinkId, Challenge>();
  /** The last nonce of each parent that has our place signed: only they are told of changes, the others hear everything when they ask. */
  readonly #signed = new Map<LinkId, Uint8Array>();
  readonly #lost = new Map<PublicKey, number>();
  readonly #lookups: Lookups;
  readonly #upward = new Upward((reason) => this.#count(reason));
  readonly #checks: Bucket;
  /** Links of which frames wait for their turn to be judged, in that order. */
  readonly #waiting = new Set<LinkId>();
  /** Signatures checked and made so far, beside the table's. */
  #spent = 0;
  #seq = 0n;
  #sweptAt = 0;
  /** Refused statements by reason, for `status`. */
  readonly counters: Record<string, number> = {};

  constructor(host: RouterHost) {
    this.#host = host;
    this.table = new RoutingTable(host.pair.publicKey);
    const current = (link: LinkId): Generation | undefined => host.neighbour(link)?.generation;
    this.setups = new PathSetups({
      self: host.pair.publicKey,
      isLocal: (key) => key === host.pair.publicKey || host.endpoints().some((e) => e.pair.publicKey === key),
      childLink: (key) => {
        const via = this.table.via(key);
        const child = via === undefined ? undefined : host.neighbourByKey(via);
        return child?.role === 'child' ? child.id : undefined;
      },
      parentLink: () => this.parent()?.id,
      hasParents: () => host.parents().length > 0,
      generation: current,
      send: (link, frame, generation) => host.send(link, frame, generation),
      report: (link, frame) => this.#connections.get(link)?.channel.pushUrgent(frame),
      labelForward: (ingress, egress) => host.labelForward(ingress, egress),
      labelRemove: (label) => host.labelRemove(label),
      incoming: (setup) => host.incoming(setup),
      pathLost: (label, link) => host.pathLost(label, link),
      randomLabel: () => view(host.random(4)).getUint32(0) as Label,
      randomU64: () => view(host.random(8)).getBigUint64(0),
      now: () => host.now(),
    });
    this.#lookups = new Lookups({
      parent: () => this.parent()?.id,
      isRoot: () => host.parents().length === 0,
      holders: (name, exclude) => this.#holders(name, exclude),
      send: (link, frame) => host.send(link, frame),
      randomU64: () => view(host.random(8)).getBigUint64(0),
      now: () => host.now(),
      count: (reason) => this.#count(reason),
    });
    this.#checks = new Bucket(CHECKS.perSecond, CHECKS.burst, host.now());
  }

  /** Who holds a name, as far as we know: our descendants, and what is hosted here, which stands in no table of ours. */
  #holders(name: PublicKey, exclude: readonly PublicKey[]): PublicKey[] {
    const holds = (names: readonly KeyPair[]): boolean => names.some((pair) => pair.publicKey === name);
    const hosted = this.#host.endpoints().filter((endpoint) => holds(endpoint.names));
    const own = holds(this.#host.names()) ? [this.#host.pair.publicKey] : [];
    const here = [...own, ...hosted.map((endpoint) => endpoint.pair.publicKey)].filter((key) => !exclude.includes(key));
    return [...here, ...this.table.holders(name, exclude)].slice(0, CANDIDATES);
  }

  /** The parent in use: the first configured one that is connected. */
  parent(): Neighbour | undefined {
    for (const key of this.#host.parents()) {
      const link = this.#host.neighbourByKey(key);
      if (link?.role === 'parent') return link;
    }
    return undefined;
  }

  open(destination: PublicKey, message: Uint8Array, done: (outcome: SetupOutcome) => void): () => void {
    return this.setups.open(destination, message, done);
  }

  // ── links come and go ─────────────────────────────────────────────────────────────────────────────────────────────────

  linkUp(link: Neighbour): void {
    const host = this.#host;
    this.#forget(link);
    this.setups.linkUp(link.id, link.key);
    const most = (): number => WAITING + (link.role === 'parent' ? WAITING_PER_KEY * this.table.size : 0);
    const channel = new Channel({ send: (frame) => host.send(link.id, frame), now: () => host.now(), most });
    const checks = new Bucket(CHECKS_PER_LINK.perSecond, CHECKS_PER_LINK.burst, host.now());
    this.#connections.set(link.id, { channel, checks, since: link.generation });
    this.table.parents = new Set(host.parents());
    if (link.role === 'parent') return;
    this.table.begin(link.key);
    this.#challenge(link);
  }

  linkDown(link: Neighbour): void {
    this.#forget(link);
    if (link.role === 'child') {
      this.#lost.set(link.key, this.#host.now());
      return;
    }
    this.#lookups.parentLost();
    // The lost parent's side will take us away: a newer word through the others stands against it.
    for (const [other, nonce] of this.#signed) {
      const parent = this.#host.neighbour(other);
      if (parent === undefined) continue;
      this.#signPlace(parent, nonce);
      this.#announceOwn(other, nonce);
    }
  }

  #forget(link: Neighbour): void {
    this.setups.linkLost(link.id);
    this.#lookups.childLost(link.id);
    this.#connections.delete(link.id);
    this.#challenges.delete(link.id);
    this.#signed.delete(link.id);
    this.#waiting.delete(link.id);
  }

  /** Over a link that stands a neighbour has shown another certificate, or we ours, or its certificate has expired: other rights may come with it. */
  linkRenewed(link: Neighbour): void {
    if (link.role === 'child') return this.#trim(link.key);
    const nonce = this.#signed.get(link.id);
    if (nonce === undefined) return;
    // What was refused before may be welcome now.
    this.#signPlace(link, nonce);
    this.#announceOwn(link.id, nonce);
    this.#announce(link.id, this.table.everything());
  }

  /** Our rules have changed: what children may announce no longer is taken away. */
  rejudge(): void {
    for (const id of this.#connections.keys()) {
      const link = this.#host.neighbour(id);
      if (link?.role === 'child') this.#trim(link.key);
    }
  }

  #trim(child: PublicKey): void {
    this.#pass(this.table.trim(child, this.#host.rights(child)));
  }

  /** Our endpoints or names changed: say so at once. */
  changed(): void {
    for (const [parent, nonce] of this.#signed) this.#announceOwn(parent, nonce);
  }

  /** Endpoints that are gone are taken back at once. */
  withdraw(keys: readonly PublicKey[]): void {
    for (const parent of this.#signed.keys()) for (const frame of withdrawFrames(keys)) this.#push(parent, frame);
  }

  tick(): void {
    const now = this.#host.now();
    for (const [id, { channel }] of [...this.#connections]) {
      channel.tick();
      if (channel.failure !== undefined) this.#host.disconnect(id, channel.failure);
    }
    this.#work();
    for (const [key, at] of this.#lost) {
      if (now - at < GRACE) continue;
      this.#lost.delete(key);
      if (this.#host.neighbourByKey(key) === undefined) this.#pass(this.table.lost(key));
    }
    for (const [link, { at }] of this.#challenges) {
      const child = this.#host.neighbour(link);
      if (child !== undefined && now - at > REFRESH * (0.9 + ((link * 2_654_435_761) % 1_000) / 5_000)) this.#challenge(child);
    }
    if (now - this.#sweptAt >= SWEEP) {
      this.#sweptAt = now;
      this.#upward.sweep(now);
      this.#pass(this.table.expire(now));
    }
    this.#announceUp(this.#upward.due(now));
    this.#lookups.tick();
    this.setups.tick();
  }

  // ── frames ────────────────────────────────────────────────────────────────────────────────────────────────────────────

  handle(link: Neighbour, generation: Generation, bytes: Uint8Array): void {
    const frame = decodeFrame(bytes);
    if (frame === undefined) return this.#count('malformedFrame');
    switch (frame.kind) {
      case 'numbered':
      case 'acknowledged': {
        const connection = this.#connections.get(link.id);
        if (connection === undefined || generation < connection.since) return this.#count('earlierLife');
        if (frame.kind === 'acknowledged') return connection.channel.acknowledged(frame);
        connection.channel.receive(frame);
        if (connection.channel.pending) this.#waiting.add(link.id);
        this.#work();
        return connection.channel.acknowledge();
      }
      case 'lookup':
        // Questions go up only: a parent has no business asking its child.
        return link.role === 'child' ? this.#lookups.question(link.id, frame, this.table.subtree(link.key)) : this.#count('notAChild');
      case 'found':
        return link.role === 'parent' ? this.#lookups.found(frame) : this.#count('notAParent');
      case 'setup':
      case 'answer':
      case 'probe':
      case 'probed':
        return this.#setups(link, generation, frame);
      default:
        return this.#count('unnumbered');
    }
  }

  /** Judges what waits, one frame of each link in turn, as far as there are means for it. */
  #work(): void {
    const now = this.#host.now();
    const later: LinkId[] = [];
    for (const id of this.#waiting) {
      if (this.#checks.left(now) <= 0) break;
      this.#waiting.delete(id);
      const [link, connection] = [this.#host.neighbour(id), this.#connections.get(id)];
      if (link === undefined || connection === undefined) continue;
      const weight = share(this.table.subtree(link.key));
      if (connection.checks.left(now, weight) <= 0) {
        later.push(id);
        continue;
      }
      const body = connection.channel.take();
      if (body === undefined) continue;
      const before = this.#spent + this.table.checks;
      this.#ordered(link, link.generation, body);
      const cost = this.#spent + this.table.checks - before;
      connection.checks.spend(cost, weight);
      this.#checks.spend(cost);
      if (connection.channel.pending) this.#waiting.add(id);
      else connection.channel.acknowledge();
    }
    for (const id of later) this.#waiting.add(id);
    for (const id of this.#waiting) this.#connections.get(id)?.channel.acknowledge();
  }

  /** A frame whose turn it is: these come only numbered. */
  #ordered(link: Neighbour, generation: Generation, bytes: Uint8Array): void {
    const frame = decodeFrame(bytes);
    switch (frame?.kind) {
      case 'announce': {
        if (link.role !== 'child') return this.#count('notAChild');
        const rights = this.#host.rights(link.key);
        return this.#pass(this.table.announced(link.key, frame.items, rights, this.#host.now(), this.#nonces(link.id)));
      }
      case 'withdraw':
        return link.role === 'child' ? this.#pass(this.table.withdrawn(link.key, frame.keys)) : this.#count('notAChild');
      case 'complete':
        return link.role === 'child' ? this.#pass(this.table.complete(link.key)) : this.#count('notAChild');
      case 'nonce':
        return link.role === 'parent' ? this.#sign(link, frame.nonce) : this.#count('notAParent');
      case 'edgeHalf':
        return this.#countersign(link, frame.statement);
      case 'edgeFull':
        return this.#countersigned(link, frame.statement);
      case 'error':
      case 'close':
        return this.#setups(link, generation, frame);
      default:
        return this.#count('malformedFrame');
    }
  }

  #setups(link: Neighbour, generation: Generation, frame: Frame): void {
    this.setups.handle(link.id, generation, frame, link.role === 'child' ? this.table.subtree(link.key) : PARENT_WEIGHT);
  }

  #push(link: LinkId, frame: Uint8Array): void {
    this.#connections.get(link)?.channel.push(frame);
  }

  #announce(link: LinkId, items: readonly Announced[]): void {
    this.#connections.get(link)?.channel.announce(items);
  }

  // ── our place in the tree, and our children's ─────────────────────────────────────────────────────────────────────────

  #challenge(child: Neighbour): void {
    const nonce = this.#host.random(16);
    this.#challenges.set(child.id, { nonce, before: this.#challenges.get(child.id)?.nonce, at: this.#host.now() });
    this.#push(child.id, encodeFrame({ kind: 'nonce', nonce }));
  }

  #nonces(child: LinkId): Uint8Array[] {
    const challenge = this.#challenges.get(child);
    return [challenge?.nonce, challenge?.before].filter((nonce) => nonce !== undefined);
  }

  /** Our parent wants our place signed with its nonce: our edge and parent set, all that is ours, and at first all that is below us. */
  #sign(parent: Neighbour, nonce: Uint8Array): void {
    const first = !this.#signed.has(parent.id);
    this.#signed.set(parent.id, nonce);
    this.#signPlace(parent, nonce);
    this.#announceOwn(parent.id, nonce);
    if (!first) return;
    this.#announce(parent.id, this.table.everything());
    this.#push(parent.id, encodeFrame({ kind: 'complete' }));
  }

  #signPlace(parent: Neighbour, nonce: Uint8Array): void {
    const { pair } = this.#host;
    const edge = { child: pair.publicKey, parent: parent.key, nonce, ...this.#stamp() };
    this.#spent += 2;
    this.#push(parent.id, encodeFrame({ kind: 'edgeHalf', statement: signEdge(edge, pair) }));
    const parents = this.#host.parents().slice(0, 4);
    this.#announce(parent.id, [{ type: 'parentSet', bytes: signParentSet({ child: pair.publicKey, parents, ...this.#stamp() }, pair) }]);
  }

  #announceOwn(parent: LinkId, nonce: Uint8Array): void {
    const { pair } = this.#host;
    const items: Announced[] = this.#host.names().map((name) => ({ type: 'name', bytes: signNameRecord(this.#stamp(), name, pair) }));
    for (const endpoint of this.#host.endpoints()) {
      const edge = { child: endpoint.pair.publicKey, parent: pair.publicKey, nonce, ...this.#stamp() };
      items.push({ type: 'endpointEdge', bytes: signEndpointEdge(edge, endpoint.pair, pair) });
      for (const name of endpoint.names) items.push({ type: 'name', bytes: signNameRecord(this.#stamp(), name, endpoint.pair) });
    }
    this.#spent += 2 * items.length;
    this.#announce(parent, items);
  }

  /** Parent: verify the child's half and sign ours. */
  #countersign(link: Neighbour, statement: Uint8Array): void {
    const nonces = this.#nonces(link.id);
    if (link.role !== 'child' || nonces.length === 0) return this.#count('notAsked');
    this.#verified(() => {
      const { edge, bytes } = countersignEdge(statement, this.#host.pair);
      const fresh = nonces.some((nonce) => equalBytes(edge.nonce, nonce));
      if (edge.child !== link.key || edge.parent !== this.#host.pair.publicKey || !fresh) return this.#count('badAttestation');
      this.#push(link.id, encodeFrame({ kind: 'edgeFull', statement: bytes }));
      this.#lost.delete(link.key);
      this.#pass(this.table.addChild(edge, bytes, this.#host.now()));
    });
  }

  /** Child: our parent has signed our place. */
  #countersigned(link: Neighbour, statement: Uint8Array): void {
    this.#verified(() => {
      const edge = verifyEdge(statement);
      if (edge.child !== this.#host.pair.publicKey || edge.parent !== link.key) this.#count('badAttestation');
    });
  }

  #verified(run: () => void): void {
    this.#spent += 2;
    try {
      run();
    } catch (error) {
      if (!isThicketError(error)) throw error;
      this.#count('badStatement');
    }
  }

  /** Passes changes on to our own parents. */
  #pass(change: Change): void {
    for (const reason of change.refused) this.#count(reason);
    this.#upward.gone(change.withdraw);
    for (const parent of this.#signed.keys()) for (const frame of withdrawFrames(change.withdraw)) this.#push(parent, frame);
    this.#announceUp(this.#upward.admit(change.announce, this.#host.now()));
  }

  #announceUp(items: readonly Announced[]): void {
    if (items.length > 0) for (const parent of this.#signed.keys()) this.#announce(parent, items);
  }

  /** Who holds a name. The nearest node that knows answers; only a root may say that nobody does. */
  lookup(name: PublicKey, exclude: readonly PublicKey[]): Promise<LookupResult> {
    return this.#lookups.ask(name, exclude);
  }

  // ── small things ──────────────────────────────────────────────────────────────────────────────────────────────────────

  #stamp(): Stamp {
    this.#seq += 1n;
    return { epoch: this.#host.epoch(), seq: this.#seq };
  }

  #count(reason: string): void {
    this.counters[reason] = (this.counters[reason] ?? 0) + 1;
  }
}

function view(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
