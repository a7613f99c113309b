/** Look-ups of names on their way up: the nearest node that knows answers, only a root may say that nobody does, and each asker has a share of this node's time. */
import { Bucket } from '../bucket.js';
import type { LinkId } from '../dataplane/data-plane.js';
import type { PublicKey } from '../trust/index.js';
import { encodeFrame, type Frame } from './frames.js';
import { share } from './share.js';

export type LookupResult =
  | { readonly status: 'found'; readonly keys: readonly PublicKey[] }
  | { readonly status: 'notFound' | 'unreachable' };

export interface LookupHost {
  /** The parent in use. */
  parent(): LinkId | undefined;
  /** No parent is configured: what isn't known here is nowhere. */
  isRoot(): boolean;
  holders(name: PublicKey, exclude: readonly PublicKey[]): readonly PublicKey[];
  send(link: LinkId, frame: Uint8Array): void;
  randomU64(): bigint;
  now(): number;
  /** One more question was dropped, for `status`. */
  count(reason: string): void;
}

const TIMEOUT = 3_000;
/** The asker repeats its question so often; relays repeat it with it. */
const RETRY = 500;
const MAX = 4_096;
const MAX_PER_LINK = 256;
/** Questions per second, and at once, over one link, times the root of what it announced. */
const RATE = 50;
const BURST = 100;

interface Pending {
  readonly from: { readonly link: LinkId; readonly id: bigint } | undefined;
  readonly done: ((result: LookupResult) => void) | undefined;
  readonly at: number;
  readonly frame: Uint8Array;
  sentAt: number;
}

export class Lookups {
  readonly #host: LookupHost;
  readonly #pending = new Map<bigint, Pending>();
  /** By the link that asked and its number for the question. */
  readonly #asked = new Map<LinkId, Map<bigint, bigint>>();
  readonly #buckets = new Map<LinkId, Bucket>();

  constructor(host: LookupHost) {
    this.#host = host;
  }

  /** Our own question. */
  ask(name: PublicKey, exclude: readonly PublicKey[]): Promise<LookupResult> {
    return new Promise((resolve) => {
      const known = this.#known(name, exclude);
      if (known !== undefined) return resolve(known);
      const parent = this.#host.parent();
      if (parent === undefined || this.#pending.size >= MAX) return resolve({ status: 'unreachable' });
      const id = this.#host.randomU64();
      const frame = encodeFrame({ kind: 'lookup', id, name, exclude: exclude.slice(0, 8) });
      const now = this.#host.now();
      this.#pending.set(id, { from: undefined, done: resolve, at: now, frame, sentAt: now });
      this.#host.send(parent, frame);
    });
  }

  /** A child's question. `weight`: how many keys it has announced. */
  question(link: LinkId, frame: Frame & { kind: 'lookup' }, weight: number): void {
    const now = this.#host.now();
    const bucket = this.#buckets.get(link) ?? new Bucket(RATE, BURST, now);
    this.#buckets.set(link, bucket);
    // Silence: who asks repeats its question.
    if (!bucket.take(now, 1, share(weight))) return this.#host.count('lookupRate');
    const answer = (result: LookupResult): void => this.#answer(link, frame.id, result);
    const known = this.#known(frame.name, frame.exclude);
    if (known !== undefined) return answer(known);
    const parent = this.#host.parent();
    const ofLink = this.#asked.get(link);
    const repeated = this.#pending.get(ofLink?.get(frame.id) ?? -1n);
    if (repeated !== undefined) {
      // Asked again because the answer doesn't come: so do we.
      if (parent !== undefined && now - repeated.sentAt >= RETRY / 2) this.#send(parent, repeated, now);
      return;
    }
    if (parent === undefined || this.#pending.size >= MAX || (ofLink?.size ?? 0) >= MAX_PER_LINK) return answer({ status: 'unreachable' });
    const id = this.#host.randomU64();
    const pending: Pending = {
      from: { link, id: frame.id },
      done: undefined,
      at: now,
      frame: encodeFrame({ ...frame, id }),
      sentAt: now,
    };
    this.#pending.set(id, pending);
    this.#asked.set(link, (ofLink ?? new Map<bigint, bigint>()).set(frame.id, id));
    this.#send(parent, pending, now);
  }

  /** Our parent's answer. */
  found(frame: Frame & { kind: 'found' }): void {
    const pending = this.#pending.get(frame.id);
    if (pending === undefined) return;
    this.#finish(frame.id, pending, frame.status === 'found' ? { status: 'found', keys: frame.keys } : { status: frame.status });
  }

  /** A parent is gone: nobody will answer. */
  parentLost(): void {
    for (const [id, pending] of this.#pending) this.#finish(id, pending, { status: 'unreachable' });
  }

  childLost(link: LinkId): void {
    this.#buckets.delete(link);
    for (const id of this.#asked.get(link)?.values() ?? []) this.#pending.delete(id);
    this.#asked.delete(link);
  }

  tick(): void {
    const now = this.#host.now();
    for (const [id, pending] of this.#pending) {
      if (now - pending.at > TIMEOUT) {
        this.#finish(id, pending, { status: 'unreachable' });
        continue;
      }
      const parent = this.#host.parent();
      if (pending.done !== undefined && parent !== undefined && now - pending.sentAt > RETRY) this.#send(parent, pending, now);
    }
  }

  #known(name: PublicKey, exclude: readonly PublicKey[]): LookupResult | undefined {
    const keys = this.#host.holders(name, exclude);
    if (keys.length > 0) return { status: 'found', keys };
    return this.#host.isRoot() ? { status: 'notFound' } : undefined;
  }

  #send(parent: LinkId, pending: Pending, now: number): void {
    pending.sentAt = now;
    this.#host.send(parent, pending.frame);
  }

  #finish(id: bigint, { done, from }: Pending, result: LookupResult): void {
    this.#pending.delete(id);
    done?.(result);
    if (from === undefined) return;
    const ofLink = this.#asked.get(from.link);
    ofLink?.delete(from.id);
    if (ofLink?.size === 0) this.#asked.delete(from.link);
    this.#answer(from.link, from.id, result);
  }

  #answer(link: LinkId, id: bigint, result: LookupResult): void {
    this.#host.send(link, encodeFrame({ kind: 'found', id, status: result.status, keys: result.status === 'found' ? result.keys : [] }));
  }
}
