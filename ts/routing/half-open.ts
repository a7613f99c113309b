/** Set-ups that a relay has sent on and that nobody has answered yet, by the link that they came over, oldest first. */
import type { LinkId } from '../dataplane/data-plane.js';
import type { PublicKey } from '../trust/index.js';
import type { Relayed } from './labels.js';
import { share } from './share.js';

/** Beyond these, times the link's share, the oldest gives way. */
const PER_LINK = 256;
const PER_DESTINATION = 16;

interface OfLink {
  readonly all: Set<Relayed>;
  readonly byDestination: Map<PublicKey, Set<Relayed>>;
}

export class HalfOpen {
  readonly #links = new Map<LinkId, OfLink>();

  add(entry: Relayed): void {
    const { link } = entry.toward;
    const ofLink: OfLink = this.#links.get(link) ?? { all: new Set(), byDestination: new Map() };
    const same = ofLink.byDestination.get(entry.destination) ?? new Set();
    ofLink.all.add(entry);
    ofLink.byDestination.set(entry.destination, same.add(entry));
    this.#links.set(link, ofLink);
  }

  remove(entry: Relayed): void {
    const { destination, toward } = entry;
    const ofLink = this.#links.get(toward.link);
    if (ofLink?.all.delete(entry) !== true) return;
    const same = ofLink.byDestination.get(destination);
    same?.delete(entry);
    if (same?.size === 0) ofLink.byDestination.delete(destination);
    if (ofLink.all.size === 0) this.#links.delete(toward.link);
  }

  /** The one that must give way to another from this link to this destination, so that callers who get no answers can't keep out those who would. */
  excess(link: LinkId, destination: PublicKey, weight: number): Relayed | undefined {
    const ofLink = this.#links.get(link);
    const same = ofLink?.byDestination.get(destination);
    const part = share(weight);
    const full = (ofLink?.all.size ?? 0) >= PER_LINK * part;
    const crowd = (same?.size ?? 0) >= PER_DESTINATION * part ? same : full ? ofLink?.all : undefined;
    return crowd?.values().next().value;
  }

  *[Symbol.iterator](): Iterator<Relayed> {
    for (const { all } of this.#links.values()) yield* all;
  }
}
