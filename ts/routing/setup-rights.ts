/**
 * How many set-ups a neighbour may bring: one budget for those of strangers, and one for those that replace a path which carried packets. A set-up replaces a
 * path by naming the label under which its neighbour sends, or sent, to the same destination; each relay names the label of its own next hop in turn.
 */
import { Bucket } from '../bucket.js';
import type { Hop, Label, LinkId } from '../dataplane/data-plane.js';
import type { PublicKey } from '../trust/index.js';
import { CARRIED, type CarriedPath, CarriedPaths, type NamedHop } from './carried.js';
import type { Frame } from './frames.js';
import type { Entry, Labels } from './labels.js';
import { share } from './share.js';

/** Set-ups per second and at once from one link in either budget, times the link's share. */
const RATE = 50;
const BURST = 100;
/** Own paths whose labels are remembered, to replace them. */
const OWN_PATHS = 4_096;

export class SetupRights {
  readonly #labels: Labels;
  /** Neighbours by link. */
  readonly #keys = new Map<LinkId, PublicKey>();
  readonly #budgets = new Map<LinkId, { readonly first: Bucket; readonly again: Bucket }>();
  readonly #carried = new CarriedPaths();
  /** The hop by which we last reached each destination. */
  readonly #ways = new Map<PublicKey, NamedHop>();

  constructor(labels: Labels) {
    this.#labels = labels;
  }

  linkUp(link: LinkId, key: PublicKey): void {
    this.#keys.set(link, key);
  }

  linkLost(link: LinkId): void {
    this.#keys.delete(link);
    this.#budgets.delete(link);
  }

  /** Whether one more set-up may come over this link. */
  take(link: LinkId, weight: number, renews: boolean, now: number): boolean {
    const budget = this.#budgets.get(link) ?? { first: new Bucket(RATE, BURST, now), again: new Bucket(RATE, BURST, now) };
    this.#budgets.set(link, budget);
    return (renews && budget.again.take(now, 1, share(weight))) || budget.first.take(now, 1, share(weight));
  }

  /** The path that a set-up may replace. */
  replaced(link: LinkId, frame: Frame & { kind: 'setup' }, now: number): CarriedPath | undefined {
    if (frame.replaces === undefined) return undefined;
    const standing = this.#labels.get(frame.replaces);
    if (standing !== undefined) this.remember(standing, now);
    return this.#carried.use(frame.replaces, this.#keys.get(link), frame.destination, now);
  }

  /** A path is gone, or to be replaced: if packets came under its label, that is kept in mind. */
  remember(entry: Entry, now: number): void {
    if (entry.role === 'calling' || now - entry.at < CARRIED) return;
    // Only the label of the way forth is ever named: the one under which the caller's side sends.
    if (entry.role === 'relayed' && (entry.pair === undefined || entry.waiting !== undefined)) return;
    const from = this.#keys.get(entry.link);
    if (from === undefined) return;
    const onward = entry.role === 'called' ? undefined : this.#named(entry.toward);
    this.#carried.remember(entry.label, { from, destination: entry.destination, onward }, now);
  }

  /** A call of ours was answered. */
  reached(destination: PublicKey, egress: Hop): void {
    const way = this.#named(egress);
    if (way === undefined) return;
    this.#ways.delete(destination);
    this.#ways.set(destination, way);
    const [oldest] = this.#ways.keys();
    if (oldest !== undefined && this.#ways.size > OWN_PATHS) this.#ways.delete(oldest);
  }

  /** The label that a call of ours names when it goes over `link`. */
  replacing(link: LinkId, destination: PublicKey): Label | undefined {
    return this.labelAt(link, this.#ways.get(destination));
  }

  /** The label of a hop, if `link` leads to the same neighbour as then. */
  labelAt(link: LinkId, hop: NamedHop | undefined): Label | undefined {
    return hop !== undefined && hop.key === this.#keys.get(link) ? hop.label : undefined;
  }

  #named(hop: Hop): NamedHop | undefined {
    const key = this.#keys.get(hop.link);
    return key === undefined ? undefined : { key, label: hop.label };
  }
}
