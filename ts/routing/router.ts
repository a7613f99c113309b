/**
 * A node's part in the tree: it signs its place under its parents, countersigns its children's, passes up what it learns, answers look-ups, and sets paths up.
 */
import type { Generation, Hop, Label, LinkId } from '../dataplane/data-plane.js';
import { isThicketError } from '../errors.js';
import { equalBytes, type KeyPair, type PublicKey } from '../trust/index.js';
import { Channel } from './channel.js';
import { type Announced, decodeFrame, encodeFrame, type Frame, type LookupStatus, withdrawFrames } from './frames.js';
import { type Incoming, PathSetups, type SetupOutcome } from './setup.js';
import { countersignEdge, type Stamp, signEdge, signEndpointEdge, signNameRecord, signParentSet, verifyEdge } from './statements.js';
import { type Change, type ChildRights, RoutingTable } from './table.js';

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
  labelForward(ingress: Hop, egress: Hop): void;
  labelRemove(label: Label): void;
  incoming(setup: Incoming): void;
  pathLost(label: Label, link: LinkId): void;
  /** Monotonic milliseconds. */
  now(): number;
  random(bytes: number): Uint8Array;
}

export type LookupResult =
  | { readonly status: 'found'; readonly keys: readonly PublicKey[] }
  | { readonly status: 'notFound' | 'unreachable' };

/** A lost child's branch stays for so long, in case it comes right back. */
const GRACE = 2_000;
/** Children sign their place anew about hourly. */
const REFRESH = 3_600_000;
const LOOKUP_TIMEOUT = 3_000;
/** The asker repeats its question so often; relays repeat it with it. */
const LOOKUP_RETRY = 500;
/** What is older than hours needn't be looked for more often. */
const SWEEP = 60_000;
const LOOKUPS_MAX = 4_096;
const LOOKUPS_PER_LINK = 256;

interface PendingLookup {
  readonly from: { readonly link: LinkId; readonly id: bigint } | undefined;
  readonly done: ((result: LookupResult) => void) | undefined;
  readonly at: number;
  readonly frame: Uint8Array;
  tries: number;
}

/** What we gave a child to sign its place with; the one before may still be under way. */
interface Challenge {
  readonly nonce: Uint8Array;
  readonly before: Uint8Array | undefined;
  readonly at: number;
}

interface Connection {
  readonly channel: Channel;
  /** Frames under older keys belong to an earlier life of the link. */
  readonly since: Generation;
}

export class Router {
  readonly table: RoutingTable;
  readonly setups: PathSetups;
  readonly #host: RouterHost;
  readonly #connections = new Map<LinkId, Connection>();
  readonly #challenges = new Map<LinkId, Challenge>();
  /** The last nonce of each parent that has our place signed: only they are told of changes, the others hear everything when they ask. */
  readonly #signed = new Map<LinkId, Uint8Array>();
  readonly #lost = new Map<PublicKey, number>();
  readonly #lookups = new Map<bigint, PendingLookup>();
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
    this.setups.linkLost(link.id);
    const host = this.#host;
    const channel = new Channel({ send: (frame) => host.send(link.id, frame), now: () => host.now() });
    this.#connections.set(link.id, { channel, since: link.generation });
    this.#challenges.delete(link.id);
    this.#signed.delete(link.id);
    this.table.parents = new Set(host.parents());
    if (link.role === 'parent') return;
    this.table.begin(link.key);
    this.#challenge(link);
  }

  linkDown(link: Neighbour): void {
    this.setups.linkLost(link.id);
    this.#connections.delete(link.id);
    this.#challenges.delete(link.id);
    this.#signed.delete(link.id);
    if (link.role === 'child') {
      this.#lost.set(link.key, this.#host.now());
      return;
    }
    for (const [id, pending] of this.#lookups) this.#finish(id, pending, { status: 'unreachable' });
    // The lost parent's side will take us away: a newer word through the others stands against it.
    for (const [other, nonce] of this.#signed) {
      const parent = this.#host.neighbour(other);
      if (parent === undefined) continue;
      this.#signPlace(parent, nonce);
      this.#announceOwn(other, nonce);
    }
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
    for (const { channel } of this.#connections.values()) channel.tick();
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
      this.#pass(this.table.expire(now));
    }
    for (const [id, pending] of this.#lookups) {
      if (now - pending.at > LOOKUP_TIMEOUT) this.#finish(id, pending, { status: 'unreachable' });
      else if (pending.done !== undefined && now - pending.at > LOOKUP_RETRY * pending.tries) {
        pending.tries += 1;
        const parent = this.parent();
        if (parent !== undefined) this.#host.send(parent.id, pending.frame);
      }
    }
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
        for (const body of connection.channel.receive(frame)) this.#ordered(link, generation, body);
        return;
      }
      case 'lookup':
        return this.#lookup(link, frame);
      case 'found':
        return this.#found(link, frame);
      case 'setup':
      case 'answer':
      case 'probe':
      case 'probed':
        return this.#setups(link, generation, frame);
      default:
        return this.#count('unnumbered');
    }
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
    this.setups.handle(link.id, generation, frame, link.role === 'child' ? this.table.subtree(link.key) : 1);
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
    if (change.announce.length === 0 && change.withdraw.length === 0) return;
    for (const parent of this.#signed.keys()) {
      for (const frame of withdrawFrames(change.withdraw)) this.#push(parent, frame);
      this.#announce(parent, change.announce);
    }
  }

  // ── look-ups ──────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Who holds a name. The nearest node that knows answers; only a root may say that nobody does. */
  lookup(name: PublicKey, exclude: readonly PublicKey[]): Promise<LookupResult> {
    return new Promise((resolve) => {
      const own = this.#known(name, exclude);
      if (own !== undefined) return resolve(own);
      const parent = this.parent();
      if (parent === undefined || this.#lookups.size >= LOOKUPS_MAX) return resolve({ status: 'unreachable' });
      const id = this.#lookupId();
      const frame = encodeFrame({ kind: 'lookup', id, name, exclude: exclude.slice(0, 8) });
      this.#lookups.set(id, { from: undefined, done: resolve, at: this.#host.now(), frame, tries: 1 });
      this.#host.send(parent.id, frame);
    });
  }

  #known(name: PublicKey, exclude: readonly PublicKey[]): LookupResult | undefined {
    const keys = this.table.holders(name, exclude);
    if (keys.length > 0) return { status: 'found', keys };
    return this.#host.parents().length === 0 ? { status: 'notFound' } : undefined;
  }

  #lookup(link: Neighbour, frame: Frame & { kind: 'lookup' }): void {
    // Questions go up only: a parent has no business asking its child.
    if (link.role !== 'child') return this.#count('notAChild');
    const answer = (result: LookupResult): void => this.#answer(link.id, frame.id, result);
    const known = this.#known(frame.name, frame.exclude);
    if (known !== undefined) return answer(known);
    const parent = this.parent();
    let ofLink = 0;
    for (const pending of this.#lookups.values()) {
      if (pending.from?.link !== link.id) continue;
      ofLink += 1;
      // Asked again because the answer doesn't come: so do we.
      if (pending.from.id === frame.id) {
        if (parent !== undefined) this.#host.send(parent.id, pending.frame);
        return;
      }
    }
    if (parent === undefined || this.#lookups.size >= LOOKUPS_MAX || ofLink >= LOOKUPS_PER_LINK) return answer({ status: 'unreachable' });
    const id = this.#lookupId();
    const onward = encodeFrame({ ...frame, id });
    this.#lookups.set(id, { from: { link: link.id, id: frame.id }, done: undefined, at: this.#host.now(), frame: onward, tries: 1 });
    this.#host.send(parent.id, onward);
  }

  #found(link: Neighbour, frame: Frame & { kind: 'found' }): void {
    const pending = this.#lookups.get(frame.id);
    if (pending === undefined || link.role !== 'parent') return;
    this.#finish(frame.id, pending, frame.status === 'found' ? { status: 'found', keys: frame.keys } : { status: frame.status });
  }

  #finish(id: bigint, pending: PendingLookup, result: LookupResult): void {
    this.#lookups.delete(id);
    pending.done?.(result);
    if (pending.from !== undefined) this.#answer(pending.from.link, pending.from.id, result);
  }

  #answer(link: LinkId, id: bigint, result: LookupResult): void {
    const status: LookupStatus = result.status;
    this.#host.send(link, encodeFrame({ kind: 'found', id, status, keys: result.status === 'found' ? result.keys : [] }));
  }

  #lookupId(): bigint {
    return view(this.#host.random(8)).getBigUint64(0);
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
