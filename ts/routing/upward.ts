/**
 * What goes up to our parents, and how often: a child that signs its place anew all the time must not keep everybody up to the root busy. A key's edge goes
 * up a few times at once, then every few seconds, and so do the other statements about it; the newest of what came in between follows when its time has come.
 */
import type { PublicKey } from '../trust/index.js';
import type { Announced } from './frames.js';
import type { News } from './table.js';

interface Pace {
  /** Milliseconds that one statement takes up, and how many may come at once. */
  readonly each: number;
  readonly burst: number;
}

const EDGES: Pace = { each: 3_000, burst: 4 };
/** Parent set and names: up to nine statements for each edge. */
const OTHERS: Pace = { each: 300, burst: 40 };

export class Upward {
  /** When each key's statements will have taken up their time. */
  readonly #busy = { edges: new Map<PublicKey, number>(), others: new Map<PublicKey, number>() };
  /** What waits, the newest of each kind, by the key that it is about. */
  readonly #owed = new Map<PublicKey, Map<string, News>>();
  readonly #count: (reason: string) => void;

  /** `count`: one more statement was overtaken by a newer one while it waited, for `status`. */
  constructor(count: (reason: string) => void) {
    this.#count = count;
  }

  /** What of this may go up now; the rest waits. */
  admit(news: readonly News[], now: number): Announced[] {
    return news.filter((one) => {
      if (this.#goes(one, now)) {
        this.#owed.get(one.subject)?.delete(kindOf(one));
        return true;
      }
      const waiting = this.#owed.get(one.subject) ?? new Map<string, News>();
      if (waiting.has(kindOf(one))) this.#count('overtaken');
      waiting.set(kindOf(one), one);
      this.#owed.set(one.subject, waiting);
      return false;
    });
  }

  /** What has waited long enough. */
  due(now: number): Announced[] {
    const found: News[] = [];
    for (const [subject, waiting] of this.#owed) {
      for (const [kind, one] of waiting) {
        if (!this.#goes(one, now)) continue;
        waiting.delete(kind);
        found.push(one);
      }
      if (waiting.size === 0) this.#owed.delete(subject);
    }
    return found;
  }

  /** These keys have left the table: nothing that waits may bring them back. */
  gone(keys: readonly PublicKey[]): void {
    for (const key of keys) this.#owed.delete(key);
  }

  /** Forgets keys that nobody has heard of for a while. */
  sweep(now: number): void {
    for (const times of [this.#busy.edges, this.#busy.others]) for (const [key, until] of times) if (until <= now) times.delete(key);
  }

  #goes({ type, subject }: News, now: number): boolean {
    const isEdge = type === 'edge' || type === 'endpointEdge';
    const [times, { each, burst }] = isEdge ? [this.#busy.edges, EDGES] : [this.#busy.others, OTHERS];
    const until = Math.max(times.get(subject) ?? 0, now) + each;
    if (until - now > each * burst) return false;
    times.set(subject, until);
    return true;
  }
}

/** Edges of either kind replace each other; names are told apart by their key, behind the version. */
function kindOf({ type, bytes }: News): string {
  if (type === 'name') return `name ${Buffer.from(bytes.subarray(4, 36)).toString('hex')}`;
  return type === 'endpointEdge' ? 'edge' : type;
}
