/**
 * Paths that carry packets, or did until lately: a set-up that replaces one of them has a budget of its own, so that strangers who set up all they can
 * don't keep apart those who were talking. The proof is the path's label: only the neighbour that sent under it was ever told.
 */
import type { Label } from '../dataplane/data-plane.js';
import type { PublicKey } from '../trust/index.js';

/** A label that is older has carried something: the data plane frees those that never do after 20 s. Milliseconds. */
export const CARRIED = 22_000;
/** So long, and so many, are remembered. */
const REMEMBERED = 600_000;
const MAX = 65_536;
/** One path may be replaced so often: a few tries at once, then one each so many milliseconds. */
const TRIES = 6;
const EACH = 500;

/** A hop by its neighbour's key, which stays when the link is another. */
export interface NamedHop {
  readonly key: PublicKey;
  readonly label: Label;
}

export interface CarriedPath {
  /** Who sent under the label. */
  readonly from: PublicKey;
  readonly destination: PublicKey;
  /** Where its packets went on; undefined where the path ended. */
  readonly onward: NamedHop | undefined;
}

interface Remembered extends CarriedPath {
  readonly at: number;
  /** When the tries so far will have taken up their time. */
  busyUntil: number;
}

export class CarriedPaths {
  readonly #paths = new Map<Label, Remembered>();

  remember(label: Label, path: CarriedPath, now: number): void {
    const busyUntil = this.#paths.get(label)?.busyUntil ?? 0;
    this.#paths.delete(label);
    this.#paths.set(label, { ...path, at: now, busyUntil });
    for (const [oldest, { at }] of this.#paths) {
      if (this.#paths.size <= MAX && now - at <= REMEMBERED) break;
      this.#paths.delete(oldest);
    }
  }

  /** The path that a neighbour may replace now by naming its label; counts the try. */
  use(label: Label, from: PublicKey | undefined, destination: PublicKey, now: number): CarriedPath | undefined {
    const path = this.#paths.get(label);
    if (path === undefined || path.from !== from || path.destination !== destination || now - path.at > REMEMBERED) return undefined;
    const until = Math.max(path.busyUntil, now) + EACH;
    if (until - now > EACH * TRIES) return undefined;
    path.busyUntil = until;
    return path;
  }
}
