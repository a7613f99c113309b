/** Which nodes a path leads through: a question goes so many hops along its labels, and whoever it ends at names itself to where it came from. */
import type { Hop, LinkId } from '../dataplane/data-plane.js';
import type { PublicKey } from '../trust/index.js';
import type { Frame } from './frames.js';
import type { Entry, Relayed } from './labels.js';

/** Nobody waits longer for an answer, milliseconds. */
const FORGET = 5_000;

export interface TraceHost {
  readonly self: PublicKey;
  now(): number;
  randomU64(): bigint;
  /** Where packets go that come from where this label's packets go on to. */
  reverse(entry: Relayed): Hop | undefined;
  tell(link: LinkId, frame: Frame): void;
}

export class Traces {
  readonly #host: TraceHost;
  readonly #asked = new Map<bigint, { readonly done: (key: PublicKey) => void; readonly at: number }>();

  constructor(host: TraceHost) {
    this.#host = host;
  }

  ask(egress: Hop, hops: number, done: (key: PublicKey) => void): void {
    const nonce = this.#host.randomU64();
    this.#asked.set(nonce, { done, at: this.#host.now() });
    this.#host.tell(egress.link, { kind: 'probe', label: egress.label, hops, nonce });
  }

  /** `entry`: what the frame's label stands for, if it was announced to the neighbour that uses it. */
  handle(entry: Entry | undefined, frame: Frame & { kind: 'probe' | 'probed' }): void {
    if (entry === undefined) return;
    if (frame.kind === 'probe') this.#probe(entry, frame);
    else this.#probed(entry, frame);
  }

  tick(now: number): void {
    for (const [nonce, { at }] of this.#asked) if (now - at > FORGET) this.#asked.delete(nonce);
  }

  #probe(entry: Entry, frame: Frame & { kind: 'probe' }): void {
    if (entry.role === 'relayed' && frame.hops > 0) {
      const { toward } = entry;
      return this.#host.tell(toward.link, { kind: 'probe', label: toward.label, hops: frame.hops - 1, nonce: frame.nonce });
    }
    const back = entry.role === 'relayed' ? this.#host.reverse(entry) : entry.egress;
    if (back === undefined) return;
    const key = entry.role === 'called' ? entry.destination : this.#host.self;
    this.#host.tell(back.link, { kind: 'probed', label: back.label, hop: 0, nonce: frame.nonce, key });
  }

  #probed(entry: Entry, frame: Frame & { kind: 'probed' }): void {
    if (entry.role === 'relayed') {
      return this.#host.tell(entry.toward.link, { ...frame, label: entry.toward.label, hop: Math.min(frame.hop + 1, 255) });
    }
    const asked = this.#asked.get(frame.nonce);
    this.#asked.delete(frame.nonce);
    asked?.done(frame.key);
  }
}
