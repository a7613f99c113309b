/**
 * A node's routing table: its whole subtree, who is reached through which child, and the names that its descendants hold. Everything in it is signed by the two ends of
 * each edge; a child can take away from its own branch only.
 */
import { equalBytes, keyFromBytes, type PublicKey } from '../trust/index.js';
import type { Announced } from './frames.js';
import {
  compareStamps,
  type Edge,
  type NameRecord,
  type ParentSet,
  type Stamp,
  verifyEdge,
  verifyEndpointEdge,
  verifyNameRecord,
  verifyParentSet,
} from './statements.js';

export type RefusalReason =
  | 'badStatement'
  | 'badNonce'
  | 'notBelow'
  | 'ownAncestor'
  | 'stale'
  | 'outsideParentSet'
  | 'noRelayRight'
  | 'noGatewayRight'
  | 'tooMany';

/** What a child may announce, by its certificate and our relay rules. */
export interface ChildRights {
  readonly relay: boolean;
  readonly gateway: boolean;
  /** Edges that it may announce in all. */
  readonly cap: number;
}

export interface Entry extends Stamp {
  readonly key: PublicKey;
  readonly parent: PublicKey;
  /** The child of ours that it is reached through; the key itself for a child. */
  readonly via: PublicKey;
  readonly endpoint: boolean;
  /** Monotonic milliseconds of the last rise of its stamp. */
  readonly at: number;
  readonly bytes: Uint8Array;
}

/** `round`: the child's reconnection at which it was last announced. */
interface Stored extends Entry {
  via: PublicKey;
  round: number;
}

interface Name {
  readonly record: NameRecord;
  readonly bytes: Uint8Array;
}

/** An edge is dropped when its stamp hasn't risen for so long, milliseconds of our own monotonic clock. */
export const EXPIRY = 3 * 3_600_000;
/** Names that one key may hold. */
const NAMES_PER_KEY = 8;
const CANDIDATES = 4;

/** Something accepted, and the key that it is about: with that key's edge it goes. */
export interface News extends Announced {
  readonly subject: PublicKey;
}

export interface Change {
  /** To be passed up to the parent. */
  readonly announce: readonly News[];
  readonly withdraw: readonly PublicKey[];
  readonly refused: readonly RefusalReason[];
}

export class RoutingTable {
  readonly #self: PublicKey;
  readonly #entries = new Map<PublicKey, Stored>();
  readonly #below = new Map<PublicKey, Set<PublicKey>>();
  readonly #sets = new Map<PublicKey, { readonly set: ParentSet; readonly bytes: Uint8Array }>();
  readonly #names = new Map<PublicKey, Map<PublicKey, Name>>();
  readonly #namesOf = new Map<PublicKey, Set<PublicKey>>();
  readonly #countVia = new Map<PublicKey, number>();
  readonly #rounds = new Map<PublicKey, number>();
  /** Signatures checked so far. */
  checks = 0;
  /** Our own parents: an edge that puts one of them below us would close a circle. */
  parents: ReadonlySet<PublicKey> = new Set();

  constructor(self: PublicKey) {
    this.#self = self;
  }

  get size(): number {
    return this.#entries.size;
  }

  get(key: PublicKey): Entry | undefined {
    return this.#entries.get(key);
  }

  /** The child through which `key` is reached. */
  via(key: PublicKey): PublicKey | undefined {
    return this.#entries.get(key)?.via;
  }

  all(): IterableIterator<Entry> {
    return this.#entries.values();
  }

  /** How many keys lie below a child, itself included. */
  subtree(child: PublicKey): number {
    return this.#countVia.get(child) ?? 0;
  }

  /** The edge to a child of our own, countersigned by us. */
  addChild(edge: Edge, bytes: Uint8Array, now: number): Change {
    return this.#addEdge(edge, bytes, edge.child, false, now);
  }

  /** A child has connected anew, and will announce all that it knows. */
  begin(child: PublicKey): void {
    this.#rounds.set(child, this.#round(child) + 1);
  }

  /** It has: what it didn't name again since `begin` is no longer below it. */
  complete(child: PublicKey): Change {
    const gone: PublicKey[] = [];
    const round = this.#round(child);
    for (const entry of this.#branch(child)) {
      if (entry.key !== child && entry.via === child && entry.round < round && this.#entries.has(entry.key))
        gone.push(...this.#remove(entry.key));
    }
    return { announce: [], withdraw: gone, refused: [] };
  }

  /**
   * What a child announced, item by item; what is refused is counted, the rest stands. `nonces`: those that we gave the child lately, with one of
   * which its endpoints must be signed.
   */
  announced(from: PublicKey, items: readonly Announced[], rights: ChildRights, now: number, nonces?: readonly Uint8Array[]): Change {
    const announce: News[] = [];
    const withdraw: PublicKey[] = [];
    const refused: RefusalReason[] = [];
    for (const item of items) {
      const change = this.#repeated(from, item) ? NOTHING : this.#announcedOne(from, item, rights, now, nonces);
      announce.push(...change.announce);
      withdraw.push(...change.withdraw);
      refused.push(...change.refused);
    }
    return { announce, withdraw, refused };
  }

  /** What stands already, byte for byte, needn't be verified again: who reconnects announces everything. */
  #repeated(from: PublicKey, item: Announced): boolean {
    const key = keyAt(item.bytes, 0);
    if (key === undefined) return false;
    switch (item.type) {
      case 'edge':
      case 'endpointEdge': {
        const known = this.#entries.get(key);
        if (known === undefined || known.via !== from || !equalBytes(known.bytes, item.bytes)) return false;
        known.round = this.#round(from);
        return true;
      }
      case 'parentSet': {
        const known = this.#sets.get(key);
        return known !== undefined && this.via(key) === from && equalBytes(known.bytes, item.bytes);
      }
      case 'name': {
        const holder = keyAt(item.bytes, 1);
        const known = holder === undefined ? undefined : this.#names.get(key)?.get(holder);
        return known !== undefined && holder !== undefined && this.via(holder) === from && equalBytes(known.bytes, item.bytes);
      }
    }
  }

  #announcedOne(from: PublicKey, item: Announced, rights: ChildRights, now: number, nonces?: readonly Uint8Array[]): Change {
    // Until both have signed that it is our child, nothing lies below it.
    if (!this.#entries.has(from)) return refuse('notBelow');
    this.checks += item.type === 'parentSet' ? 1 : 2;
    try {
      switch (item.type) {
        case 'edge': {
          const edge = verifyEdge(item.bytes);
          if (!rights.relay) return refuse('noRelayRight');
          if (edge.child === from || !this.#isBelow(from, edge.parent)) return refuse('notBelow');
          return this.#overCap(from, edge.child, rights) ? refuse('tooMany') : this.#addEdge(edge, item.bytes, from, false, now);
        }
        case 'endpointEdge': {
          const edge = verifyEndpointEdge(item.bytes);
          if (!this.#isBelow(from, edge.parent)) return refuse('notBelow');
          const allowed = edge.parent === from ? rights.gateway || rights.relay : rights.relay;
          if (!allowed) return refuse('noGatewayRight');
          const fresh = edge.parent !== from || nonces === undefined || nonces.some((nonce) => equalBytes(nonce, edge.nonce));
          if (!fresh) return refuse('badNonce');
          return this.#overCap(from, edge.child, rights) ? refuse('tooMany') : this.#addEdge(edge, item.bytes, from, true, now);
        }
        case 'parentSet': {
          const set = verifyParentSet(item.bytes);
          if (!this.#isBelow(from, set.child)) return refuse('notBelow');
          return this.#addParentSet(set, item.bytes);
        }
        case 'name': {
          const record = verifyNameRecord(item.bytes);
          if (!this.#isBelow(from, record.holder)) return refuse('notBelow');
          return this.#addName(record, item.bytes);
        }
      }
    } catch {
      return refuse('badStatement');
    }
  }

  /** A child takes keys of its own branch away. */
  withdrawn(from: PublicKey, keys: readonly PublicKey[]): Change {
    const gone: PublicKey[] = [];
    const refused: RefusalReason[] = [];
    for (const key of keys) {
      if (key !== from && this.via(key) === from) gone.push(...this.#remove(key));
      else if (this.#entries.has(key)) refused.push('notBelow');
    }
    return { announce: [], withdraw: gone, refused };
  }

  /** A child is gone, with all below it. */
  lost(child: PublicKey): Change {
    this.#rounds.delete(child);
    // By now it may be reached through another child of ours.
    return { announce: [], withdraw: this.via(child) === child ? this.#remove(child) : [], refused: [] };
  }

  /** A child's rights have changed: what it may announce no longer is taken away. */
  trim(child: PublicKey, rights: ChildRights): Change {
    const withdraw: PublicKey[] = [];
    for (const { key, parent, endpoint } of this.#branch(child)) {
      if (key === child || this.via(key) !== child) continue;
      const allowed = rights.relay || (endpoint && parent === child && rights.gateway);
      if (!allowed) withdraw.push(...this.#remove(key));
    }
    // The last ones announced, and so the lowest, go first.
    const left = this.#branch(child).filter((entry) => entry.via === child);
    for (const { key } of left.slice(rights.cap + 1).reverse()) if (this.via(key) === child) withdraw.push(...this.#remove(key));
    return { announce: [], withdraw, refused: [] };
  }

  /** Drops what nobody has confirmed for long. */
  expire(now: number): Change {
    const withdraw: PublicKey[] = [];
    for (const entry of [...this.#entries.values()]) {
      if (now - entry.at > EXPIRY && this.#entries.has(entry.key)) withdraw.push(...this.#remove(entry.key));
    }
    return { announce: [], withdraw, refused: [] };
  }

  /** Holders of a name, at most four, without those known to be wrong. */
  holders(name: PublicKey, exclude: readonly PublicKey[]): PublicKey[] {
    const found: PublicKey[] = [];
    for (const key of this.#names.get(name)?.keys() ?? []) {
      if (found.length === CANDIDATES) break;
      if (!exclude.includes(key)) found.push(key);
    }
    return found;
  }

  /** All that a new parent must hear, edges from the top down. */
  everything(): Announced[] {
    const items: Announced[] = [];
    const visit = (parent: PublicKey): void => {
      for (const key of this.#below.get(parent) ?? []) {
        const entry = this.#entries.get(key);
        if (entry === undefined) continue;
        items.push({ type: entry.endpoint ? 'endpointEdge' : 'edge', bytes: entry.bytes });
        const set = this.#sets.get(key);
        if (set !== undefined) items.push({ type: 'parentSet', bytes: set.bytes });
        for (const name of this.#namesOf.get(key) ?? []) {
          const held = this.#names.get(name)?.get(key);
          if (held !== undefined) items.push({ type: 'name', bytes: held.bytes });
        }
        visit(key);
      }
    };
    visit(this.#self);
    return items;
  }

  // ── inside ────────────────────────────────────────────────────────────────────────────────────────────────────────────

  #isBelow(from: PublicKey, key: PublicKey): boolean {
    return key === from || this.via(key) === from;
  }

  #overCap(from: PublicKey, key: PublicKey, rights: ChildRights): boolean {
    return this.via(key) !== from && this.subtree(from) > rights.cap;
  }

  #addEdge(edge: Edge, bytes: Uint8Array, via: PublicKey, endpoint: boolean, now: number): Change {
    if (edge.child === this.#self || this.parents.has(edge.child)) return refuse('ownAncestor');
    if (this.#isAncestor(edge.child, edge.parent)) return refuse('ownAncestor');
    // A child that changes its parents signs the new edge before the new set: only a set that is newer than the edge speaks against it.
    const set = this.#sets.get(edge.child)?.set;
    if (set !== undefined && compareStamps(set, edge) > 0 && !set.parents.includes(edge.parent)) return refuse('outsideParentSet');
    const known = this.#entries.get(edge.child);
    if (known !== undefined && known.parent === edge.parent) {
      const order = compareStamps(edge, known);
      if (order < 0) return refuse('stale');
      if (order === 0) return NOTHING;
    } else if (known !== undefined && compareStamps(edge, known) <= 0) {
      // Another parent: one active edge per key in this version, the newer statement wins.
      return refuse('stale');
    }
    if (known === undefined) this.#countVia.set(via, this.subtree(via) + 1);
    else if (known.via !== via) this.#rehome(edge.child, via);
    if (known !== undefined && known.parent !== edge.parent) this.#below.get(known.parent)?.delete(edge.child);
    const { child: key, parent, epoch, seq } = edge;
    this.#entries.set(key, { key, parent, via, endpoint, epoch, seq, at: now, bytes, round: this.#round(via) });
    const siblings = this.#below.get(parent) ?? new Set();
    siblings.add(key);
    this.#below.set(parent, siblings);
    return { announce: [{ type: endpoint ? 'endpointEdge' : 'edge', bytes, subject: key }], withdraw: [], refused: [] };
  }

  /** A key has moved to another child of ours, with all below it: what hangs there came along, and needn't be heard of again to be found. */
  #rehome(key: PublicKey, via: PublicKey): void {
    const round = this.#round(via);
    for (const entry of this.#branch(key)) {
      this.#discount(entry.via);
      this.#countVia.set(via, this.subtree(via) + 1);
      entry.via = via;
      entry.round = round;
    }
  }

  /** A key's entry and all below it, from the top down. */
  #branch(key: PublicKey): Stored[] {
    const entry = this.#entries.get(key);
    const found = entry === undefined ? [] : [entry];
    for (let at = 0; at < found.length; at += 1) {
      for (const child of this.#below.get(found[at]?.key ?? key) ?? []) {
        const below = this.#entries.get(child);
        if (below !== undefined) found.push(below);
      }
    }
    return found;
  }

  #round(child: PublicKey): number {
    return this.#rounds.get(child) ?? 0;
  }

  #discount(via: PublicKey): void {
    const left = this.subtree(via) - 1;
    if (left > 0) this.#countVia.set(via, left);
    else this.#countVia.delete(via);
  }

  /** Whether `key` lies on the way from us down to `at`. */
  #isAncestor(key: PublicKey, at: PublicKey): boolean {
    let current: PublicKey | undefined = at;
    for (let hops = 0; current !== undefined && hops < 64; hops += 1) {
      if (current === key) return true;
      current = this.#entries.get(current)?.parent;
    }
    return false;
  }

  #addParentSet(set: ParentSet, bytes: Uint8Array): Change {
    const known = this.#sets.get(set.child)?.set;
    if (known !== undefined && compareStamps(set, known) < 0) return refuse('stale');
    if (known !== undefined && compareStamps(set, known) === 0) return NOTHING;
    this.#sets.set(set.child, { set, bytes });
    const entry = this.#entries.get(set.child);
    const outside = entry !== undefined && !set.parents.includes(entry.parent);
    return { announce: [{ type: 'parentSet', bytes, subject: set.child }], withdraw: outside ? this.#remove(set.child) : [], refused: [] };
  }

  #addName(record: NameRecord, bytes: Uint8Array): Change {
    const holders = this.#names.get(record.name) ?? new Map<PublicKey, Name>();
    const known = holders.get(record.holder);
    if (known !== undefined) {
      const order = compareStamps(record, known.record);
      if (order < 0) return refuse('stale');
      if (order === 0) return NOTHING;
    }
    const held = this.#namesOf.get(record.holder) ?? new Set();
    if (known === undefined && held.size >= NAMES_PER_KEY) return refuse('tooMany');
    holders.set(record.holder, { record, bytes });
    this.#names.set(record.name, holders);
    held.add(record.name);
    this.#namesOf.set(record.holder, held);
    return { announce: [{ type: 'name', bytes, subject: record.holder }], withdraw: [], refused: [] };
  }

  /** Removes a key and all below it; the keys removed. */
  #remove(key: PublicKey): PublicKey[] {
    const gone = this.#branch(key);
    for (const entry of gone) {
      this.#entries.delete(entry.key);
      this.#below.get(entry.parent)?.delete(entry.key);
      this.#below.delete(entry.key);
      this.#discount(entry.via);
      this.#sets.delete(entry.key);
      for (const name of this.#namesOf.get(entry.key) ?? []) {
        const holders = this.#names.get(name);
        holders?.delete(entry.key);
        if (holders?.size === 0) this.#names.delete(name);
      }
      this.#namesOf.delete(entry.key);
    }
    return gone.map((entry) => entry.key);
  }
}

const NOTHING: Change = { announce: [], withdraw: [], refused: [] };

function refuse(reason: RefusalReason): Change {
  return { announce: [], withdraw: [], refused: [reason] };
}

/** The first or second key of a statement, by its place in the encoding; undefined where there is none. */
function keyAt(bytes: Uint8Array, index: 0 | 1): PublicKey | undefined {
  // An array of 6 to 8, the version, then strings of 32 bytes.
  const [array = 0, version] = bytes;
  const at = 2 + index * 34;
  if (array < 0x86 || array > 0x88 || version !== 1 || bytes[at] !== 0x58 || bytes[at + 1] !== 32 || bytes.length < at + 34)
    return undefined;
  return keyFromBytes(bytes.subarray(at + 2, at + 34));
}
