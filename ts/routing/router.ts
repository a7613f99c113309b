/**
 * A node's part in the tree: it signs its place under its parents, countersigns its children's, passes up what it learns, answers look-ups, and sets paths up.
 */
import type { Generation, Hop, Label, LinkId } from '../dataplane/data-plane.js';
import { equalBytes, type KeyPair, type PublicKey } from '../trust/index.js';
import { type Announced, announceFrames, decodeFrame, encodeFrame, type Frame, type LookupStatus, withdrawFrames } from './frames.js';
import { type Incoming, PathSetups, type SetupOutcome } from './setup.js';
import { countersignEdge, signEdge, signEndpointEdge, signNameRecord, signParentSet, verifyEdge } from './statements.js';
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
const LOOKUPS_MAX = 4_096;
const LOOKUPS_PER_LINK = 256;

interface PendingLookup {
  readonly from: { readonly link: LinkId; readonly id: bigint } | undefined;
  readonly done: ((result: LookupResult) => void) | undefined;
  readonly at: number;
  readonly frame: Uint8Array;
  tries: number;
}

export class Router {
  readonly table: RoutingTable;
  readonly setups: PathSetups;
  readonly #host: RouterHost;
  readonly #nonces = new Map<LinkId, { readonly nonce: Uint8Array; readonly at: number }>();
  /** The last nonce that our parent gave us: endpoints are announced with it. */
  #parentNonce: { readonly link: LinkId; readonly nonce: Uint8Array } | undefined;
  readonly #lost = new Map<PublicKey, number>();
  readonly #lookups = new Map<bigint, PendingLookup>();
  #seq = 0n;
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
      generation: current,
      send: (link, frame, generation) => host.send(link, frame, generation),
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
    this.table.parents = new Set(this.#host.parents());
    if (link.role === 'child') this.#challenge(link);
  }

  linkDown(link: Neighbour): void {
    this.setups.linkLost(link.id);
    this.#nonces.delete(link.id);
    if (this.#parentNonce?.link === link.id) this.#parentNonce = undefined;
    if (link.role === 'child') this.#lost.set(link.key, this.#host.now());
    for (const [id, pending] of this.#lookups) {
      if (link.role === 'parent') this.#finish(id, pending, { status: 'unreachable' });
    }
  }

  /** Our endpoints or names changed: say so at once. */
  changed(): void {
    const parent = this.parent();
    if (parent !== undefined && this.#parentNonce?.link === parent.id) this.#announceOwn(parent, this.#parentNonce.nonce);
  }

  /** Endpoints that are gone are taken back at once. */
  withdraw(keys: readonly PublicKey[]): void {
    const parent = this.parent();
    if (parent !== undefined) for (const frame of withdrawFrames(keys)) this.#host.send(parent.id, frame);
  }

  tick(): void {
    const now = this.#host.now();
    for (const [key, at] of this.#lost) {
      if (now - at < GRACE) continue;
      this.#lost.delete(key);
      if (this.#host.neighbourByKey(key) === undefined) this.#pass(this.table.lost(key));
    }
    for (const [link, { at }] of this.#nonces) {
      const child = this.#host.neighbour(link);
      if (child !== undefined && now - at > REFRESH * (0.9 + ((link * 2_654_435_761) % 1_000) / 5_000)) this.#challenge(child);
    }
    this.#pass(this.table.expire(now));
    for (const [id, pending] of this.#lookups) {
      if (now - pending.at > LOOKUP_TIMEOUT) this.#finish(id, pending, { status: 'unreachable' });
      else if (pending.done !== undefined && now - pending.at > 700 * pending.tries) {
        pending.tries += 1;
        const parent = this.parent();
        if (parent !== undefined) this.#host.send(parent.id, pending.frame);
      }
    }
    this.setups.tick();
  }

  // ── frames ────────────────────────────────────────────────────────────────────────────────────────────────────────────

  handle(link: Neighbour, generation: Generation, bytes: Uint8Array): void {
    if (bytes[0] === EDGE_HALF || bytes[0] === EDGE_FULL) return this.#attestation(link, bytes);
    const frame = decodeFrame(bytes);
    if (frame === undefined) return this.#count('malformedFrame');
    switch (frame.kind) {
      case 'announce': {
        if (link.role !== 'child') return this.#count('notAChild');
        const change = this.table.announced(link.key, frame.items, this.#host.rights(link.key), this.#host.now());
        return this.#pass(change);
      }
      case 'withdraw':
        if (link.role === 'child') this.#pass(this.table.withdrawn(link.key, frame.keys));
        return;
      case 'nonce':
        if (link.role === 'parent') this.#sign(link, frame.nonce);
        return;
      case 'lookup':
        return this.#lookup(link, frame);
      case 'found':
        return this.#found(link, frame);
      default:
        return this.setups.handle(link.id, generation, frame, link.role === 'child' ? this.table.subtree(link.key) : 1);
    }
  }

  #challenge(child: Neighbour): void {
    const nonce = this.#host.random(16);
    this.#nonces.set(child.id, { nonce, at: this.#host.now() });
    this.#host.send(child.id, encodeFrame({ kind: 'nonce', nonce }));
  }

  /** Our parent wants our place signed with its nonce: the half-signed edge, then our parent set and all that is ours. */
  #sign(parent: Neighbour, nonce: Uint8Array): void {
    const { pair } = this.#host;
    const edge = { child: pair.publicKey, parent: parent.key, nonce, epoch: this.#host.epoch(), seq: this.#nextSeq() };
    this.#host.send(parent.id, prefixed(EDGE_HALF, signEdge(edge, pair)));
    this.#parentNonce = { link: parent.id, nonce };
    const parents = this.#host.parents().slice(0, 4);
    const set = signParentSet({ child: pair.publicKey, parents, epoch: this.#host.epoch(), seq: this.#nextSeq() }, pair);
    for (const frame of announceFrames([{ type: 'parentSet', bytes: set }])) this.#host.send(parent.id, frame);
    this.#announceOwn(parent, nonce);
    for (const frame of announceFrames(this.table.everything())) this.#host.send(parent.id, frame);
  }

  #announceOwn(parent: Neighbour, nonce: Uint8Array): void {
    const { pair } = this.#host;
    const stamp = (): { epoch: bigint; seq: bigint } => ({ epoch: this.#host.epoch(), seq: this.#nextSeq() });
    const items: Announced[] = this.#host.names().map((name) => ({ type: 'name', bytes: signNameRecord(stamp(), name, pair) }));
    for (const endpoint of this.#host.endpoints()) {
      const edge = { child: endpoint.pair.publicKey, parent: pair.publicKey, nonce, ...stamp() };
      items.push({ type: 'endpointEdge', bytes: signEndpointEdge(edge, endpoint.pair, pair) });
      for (const name of endpoint.names) items.push({ type: 'name', bytes: signNameRecord(stamp(), name, endpoint.pair) });
    }
    for (const frame of announceFrames(items)) this.#host.send(parent.id, frame);
  }

  /** Parent: verify the child's half and sign ours. Child: take note that our place stands. */
  #attestation(link: Neighbour, bytes: Uint8Array): void {
    try {
      const statement = bytes.subarray(1);
      if (bytes[0] === EDGE_FULL) {
        verifyEdge(statement);
        return;
      }
      const nonce = this.#nonces.get(link.id)?.nonce;
      if (link.role !== 'child' || nonce === undefined) return this.#count('notAsked');
      const { edge, bytes: full } = countersignEdge(statement, this.#host.pair);
      const right = edge.child === link.key && edge.parent === this.#host.pair.publicKey && equalBytes(edge.nonce, nonce);
      if (!right) return this.#count('badAttestation');
      this.#host.send(link.id, prefixed(EDGE_FULL, full));
      this.#lost.delete(link.key);
      this.#pass(this.table.addChild(edge, full, this.#host.now()));
    } catch {
      this.#count('badStatement');
    }
  }

  /** Passes changes on to our own parent. */
  #pass(change: Change): void {
    for (const reason of change.refused) this.#count(reason);
    const parent = this.parent();
    if (parent === undefined) return;
    for (const frame of withdrawFrames(change.withdraw)) this.#host.send(parent.id, frame);
    for (const frame of announceFrames(change.announce)) this.#host.send(parent.id, frame);
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
    const ofLink = [...this.#lookups.values()].filter((p) => p.from?.link === link.id).length;
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

  #nextSeq(): bigint {
    this.#seq += 1n;
    return this.#seq;
  }

  #count(reason: string): void {
    this.counters[reason] = (this.counters[reason] ?? 0) + 1;
  }
}

/** Kinds of the attestation exchange besides the nonce: the child's half, and the whole back to it. */
const EDGE_HALF = 18;
const EDGE_FULL = 19;

function prefixed(kind: number, body: Uint8Array): Uint8Array {
  const frame = new Uint8Array(1 + body.length);
  frame[0] = kind;
  frame.set(body, 1);
  return frame;
}

function view(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
