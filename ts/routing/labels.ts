/** The labels that this node has picked, and what each stands for: the end of a path, or one direction through a relay. */
import type { Generation, Hop, Label, LinkId } from '../dataplane/data-plane.js';
import type { PublicKey } from '../trust/index.js';
import type { SetupOutcome } from './setup.js';

interface Base {
  readonly label: Label;
  /** To whom we announced it. */
  readonly link: LinkId;
  readonly generation: Generation;
  readonly at: number;
}

/** A set-up that was sent on and is repeated until answered. */
export interface Waiting {
  readonly frame: Uint8Array;
  tries: number;
  nextAt: number;
}

/** Our own call, waiting or answered. */
export interface Calling extends Base {
  readonly role: 'calling';
  readonly id: bigint;
  readonly destination: PublicKey;
  readonly waiting: Waiting;
  readonly done: (outcome: SetupOutcome) => void;
  egress: Hop | undefined;
}

/** A path that ends here. */
export interface Called extends Base {
  readonly role: 'called';
  readonly egress: Hop;
  readonly destination: PublicKey;
  answer: Uint8Array | undefined;
  /** Answered without a path: forgotten by itself. */
  refused: boolean;
}

/** One direction through a relay. */
export interface Relayed extends Base {
  readonly role: 'relayed';
  /** Where packets with this label go on; unknown on the way forth until the answer has come. */
  readonly toward: Hop;
  /** The other direction. */
  pair: Label | undefined;
  readonly destination: PublicKey;
  readonly id: bigint;
  /** It replaces a path that carried packets. */
  readonly renews: boolean;
  /** On the label for the way back: the set-up that we sent on. */
  readonly waiting: Waiting | undefined;
  /** On the label for the way forth: our answer, for a while, in case it gets lost. */
  answer: Uint8Array | undefined;
}

export type Entry = Calling | Called | Relayed;

export class Labels {
  readonly #entries = new Map<Label, Entry>();
  /** By the hop that packets leave over: for reports of dead labels, and repeated set-ups. */
  readonly #byEgress = new Map<string, Label>();
  readonly #random: () => Label;

  constructor(random: () => Label) {
    this.#random = random;
  }

  get size(): number {
    return this.#entries.size;
  }

  /** A label that is free. */
  pick(): Label {
    for (;;) {
      const label = this.#random();
      if (label >= 256 && !this.#entries.has(label)) return label;
    }
  }

  get(label: Label | undefined): Entry | undefined {
    return label === undefined ? undefined : this.#entries.get(label);
  }

  all(): Entry[] {
    return [...this.#entries.values()];
  }

  add(entry: Entry): void {
    this.#entries.set(entry.label, entry);
    const egress = egressOf(entry);
    if (egress !== undefined) this.#byEgress.set(hopKey(egress.link, egress.label), entry.label);
  }

  /** A call was answered: from now on its packets leave by `egress`. */
  answered(entry: Calling, egress: Hop): void {
    entry.egress = egress;
    this.#byEgress.set(hopKey(egress.link, egress.label), entry.label);
  }

  delete(entry: Entry): void {
    this.#entries.delete(entry.label);
    const egress = egressOf(entry);
    if (egress !== undefined) this.#byEgress.delete(hopKey(egress.link, egress.label));
  }

  /** What packets leave under a neighbour's label for. */
  leavingBy(link: LinkId, label: Label): Entry | undefined {
    return this.get(this.#byEgress.get(hopKey(link, label)));
  }
}

const egressOf = (entry: Entry): Hop | undefined => (entry.role === 'relayed' ? entry.toward : entry.egress);
const hopKey = (link: LinkId, label: Label): string => `${link}/${label}`;
