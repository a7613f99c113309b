/**
 * Path set-ups: how a session's handshake, routed by full key, leaves label pairs behind at every hop. The same code runs at the ends and at relays.
 *
 * ```
 * A ── set-up{La, D} ──▶ R ── set-up{Lr, D} ──▶ D         La, Lr, Ld, Lf: each picked by who will receive packets under it
 * A ◀── answer{La, Lf} ── R ◀── answer{Lr, Ld} ── D
 *        R: packets with Lr → A as La;  packets with Lf → D as Ld
 * ```
 *
 * Only the neighbour to whom a label was announced may use, answer, close or report it. Each hop repeats what it sent until its neighbour has
 * answered, so a lost datagram costs one wait of one hop; reports of dead and closed labels go through the links' channels.
 */
import type { Generation, Hop, Ingress, Label, LinkId } from '../dataplane/data-plane.js';
import { isThicketError } from '../errors.js';
import type { PublicKey } from '../trust/index.js';
import { encodeFrame, type Frame, type PathErrorReason } from './frames.js';
import { HalfOpen } from './half-open.js';
import { type Called, type Calling, type Entry, Labels, type Relayed, type Waiting } from './labels.js';
import { SetupRights } from './setup-rights.js';
import { Traces } from './traces.js';

export interface SetupHost {
  isLocal(key: PublicKey): boolean;
  /** The link to the child that `key` is reached through. */
  childLink(key: PublicKey): LinkId | undefined;
  parentLink(): LinkId | undefined;
  /** Whether there should be a parent: without one, who isn't known here is nowhere. */
  hasParents(): boolean;
  /** What we send under on a link; undefined when it is gone. */
  generation(link: LinkId): Generation | undefined;
  send(link: LinkId, frame: Uint8Array, generation: Generation): void;
  /** Sends what must arrive. */
  report(link: LinkId, frame: Uint8Array): void;
  labelForward(ingress: Ingress, egress: Hop): void;
  labelRemove(label: Label): void;
  /** A set-up for one of our own keys. A typed refusal is silence towards the caller. */
  incoming(setup: Incoming): void;
  /** A path of ours that leaves, or comes in, by this label over this link is dead. */
  pathLost(label: Label, link: LinkId): void;
  randomLabel(): Label;
  randomU64(): bigint;
  now(): number;
  readonly self: PublicKey;
}

export interface Incoming {
  readonly destination: PublicKey;
  readonly message: Uint8Array;
  /** It replaces a path that ended here and carried packets. */
  readonly renews: boolean;
  readonly egress: Hop;
  readonly reserve: () => Ingress;
  readonly answer: (ingress: Ingress, message: Uint8Array) => void;
  /** Answers without a path: the label lives only until the caller must have heard. */
  readonly refuse: (message: Uint8Array) => void;
}

export type SetupOutcome =
  | { readonly ok: true; readonly message: Uint8Array; readonly ingress: Ingress; readonly egress: Hop }
  | { readonly ok: false; readonly reason: 'noRoute' | 'noParent' | 'unreachable' | 'timeout' | 'refused' };

/** RFC-less: more hops than any sane tree has. */
const HOPS = 32;
/** Wait for an answer before the first repetition; then twice that, three times, …; milliseconds. */
const RETRY = 400;
const TRIES = 6;
/** An unanswered set-up is forgotten after so many milliseconds: a little longer than callers wait. */
const HALF_OPEN = 6_000;
export class PathSetups {
  readonly #host: SetupHost;
  readonly #labels: Labels;
  /** Sent on and not answered, oldest first: ours, those of strangers, and those that replace a path. */
  readonly #calls = new Set<Calling>();
  readonly #first = new HalfOpen();
  readonly #again = new HalfOpen();
  readonly #rights: SetupRights;
  /** What is kept for a while only: answers to repeat, refusals. */
  readonly #brief = new Set<Called | Relayed>();
  /** Set-ups under way here; one that comes by again has gone in a circle. */
  readonly #ids = new Set<bigint>();
  readonly #traces: Traces;
  /** Dropped set-ups by reason, for `status`. */
  readonly counters: Record<string, number> = {};

  constructor(host: SetupHost) {
    this.#host = host;
    this.#labels = new Labels(() => host.randomLabel());
    this.#rights = new SetupRights(this.#labels);
    this.#traces = new Traces({
      self: host.self,
      now: () => host.now(),
      randomU64: () => host.randomU64(),
      reverse: (entry) => this.#reverse(entry),
      tell: (link, frame) => this.#tell(link, frame),
    });
  }

  get size(): number {
    return this.#labels.size;
  }

  // ── as an end ─────────────────────────────────────────────────────────────────────────────────────────────────────────

  open(destination: PublicKey, message: Uint8Array, done: (outcome: SetupOutcome) => void): () => void {
    const link = this.#host.childLink(destination) ?? this.#host.parentLink();
    const generation = link === undefined ? undefined : this.#host.generation(link);
    if (link === undefined || generation === undefined) {
      done({ ok: false, reason: this.#isCutOff() ? 'noParent' : 'noRoute' });
      return () => {};
    }
    const now = this.#host.now();
    const label = this.#labels.pick();
    const id = this.#host.randomU64();
    const replaces = this.#rights.replacing(link, destination);
    const frame = encodeFrame({ kind: 'setup', hops: HOPS, label, destination, id, replaces, message });
    const waiting: Waiting = { frame, tries: 1, nextAt: now + RETRY };
    const entry: Calling = { role: 'calling', label, link, generation, at: now, id, destination, waiting, done, egress: undefined };
    this.#labels.add(entry);
    this.#calls.add(entry);
    this.#ids.add(id);
    this.#host.send(link, frame, generation);
    return () => {
      if (entry.egress === undefined) this.#forget(entry);
    };
  }

  /** An end lets a path go: relays free their labels. */
  close(ingress: Ingress, egress: Hop): void {
    const entry = this.#labels.get(ingress.label);
    if (entry?.role === 'calling' || entry?.role === 'called') this.#forget(entry);
    this.#host.report(egress.link, encodeFrame({ kind: 'close', label: egress.label }));
  }

  /** Asks the `hops`-th relay behind the first neighbour (the end, if there are fewer) to answer. */
  trace(egress: Hop, hops: number, done: (key: PublicKey) => void): void {
    this.#traces.ask(egress, hops, done);
  }

  // ── frames ────────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** `weight`: how many keys the link has announced. */
  handle(link: LinkId, generation: Generation, frame: Frame, weight: number): void {
    switch (frame.kind) {
      case 'setup':
        return this.#setup(link, generation, frame, weight);
      case 'answer':
        return this.#answer(link, generation, frame);
      case 'error':
        return frame.reason === 'dead' ? this.#dead(link, frame.label) : this.#failed(link, frame.label, frame.reason);
      case 'close': {
        const entry = this.#owned(link, frame.label);
        if (entry?.role === 'relayed') this.#dropPair(entry, 'close', link);
        else if (entry !== undefined) this.#end(entry);
        return;
      }
      case 'probe':
      case 'probed':
        return this.#traces.handle(this.#owned(link, frame.label), frame);
      default:
        return;
    }
  }

  #setup(link: LinkId, generation: Generation, frame: Frame & { kind: 'setup' }, weight: number): void {
    const known = this.#labels.leavingBy(link, frame.label);
    if (known !== undefined) return this.#repeat(known, frame.id);
    if (this.#ids.has(frame.id)) return this.#refuse(link, this.#count('loop', 'noRoute'), frame.label);
    if (frame.hops === 0) return this.#refuse(link, this.#count('hopLimit', 'noRoute'), frame.label);
    const replaced = this.#rights.replaced(link, frame, this.#host.now());
    const isLocal = this.#host.isLocal(frame.destination);
    // Silence: the neighbour repeats it, and by then there may be room. What our parent brings for ourselves is rated by who calls, see `Callers`.
    if (!(isLocal && link === this.#host.parentLink()) && !this.#rights.take(link, weight, replaced !== undefined, this.#host.now())) {
      this.#count('rate', 'refused');
      return;
    }
    const back: Hop = { link, label: frame.label, generation };
    if (isLocal) return this.#called(link, back, frame, replaced !== undefined);
    const next = this.#nextHop(link, frame.destination);
    const nextGeneration = next === undefined ? undefined : this.#host.generation(next);
    if (next === undefined || nextGeneration === undefined) {
      return this.#refuse(link, this.#isCutOff() ? 'unreachable' : 'noRoute', frame.label);
    }
    const halfOpen = replaced === undefined ? this.#first : this.#again;
    this.#makeRoom(halfOpen.excess(link, frame.destination, weight));
    const label = this.#labels.pick();
    const now = this.#host.now();
    const forwarded = encodeFrame({ ...frame, hops: frame.hops - 1, label, replaces: this.#rights.labelAt(next, replaced?.onward) });
    const entry: Relayed = {
      role: 'relayed',
      label,
      link: next,
      generation: nextGeneration,
      at: now,
      toward: back,
      pair: undefined,
      destination: frame.destination,
      id: frame.id,
      renews: replaced !== undefined,
      waiting: { frame: forwarded, tries: 1, nextAt: now + RETRY },
      answer: undefined,
    };
    this.#labels.add(entry);
    halfOpen.add(entry);
    this.#ids.add(frame.id);
    this.#host.send(next, forwarded, nextGeneration);
  }

  /** Down to the child that knows the key, else up; what came from above and isn't known here goes nowhere. */
  #nextHop(from: LinkId, destination: PublicKey): LinkId | undefined {
    const child = this.#host.childLink(destination);
    const next = child ?? this.#host.parentLink();
    return next === from ? undefined : next;
  }

  #isCutOff(): boolean {
    return this.#host.hasParents() && this.#host.parentLink() === undefined;
  }

  /** The neighbour hasn't had our answer: again, if there is one. Onward it is repeated by our own timer. */
  #repeat(entry: Entry, id: bigint): void {
    if (entry.role === 'called' && entry.answer !== undefined) this.#host.send(entry.link, entry.answer, entry.generation);
    if (entry.role !== 'relayed' || entry.id !== id) return;
    const forth = this.#labels.get(entry.pair);
    if (forth?.role === 'relayed' && forth.answer !== undefined) this.#host.send(forth.link, forth.answer, forth.generation);
  }

  #called(link: LinkId, egress: Hop, frame: Frame & { kind: 'setup' }, renews: boolean): void {
    let entry: Called | undefined;
    const reserve = (): Ingress => {
      const label = this.#labels.pick();
      const generation = this.#host.generation(link) ?? egress.generation;
      const { destination } = frame;
      entry = { role: 'called', label, link, generation, at: this.#host.now(), egress, destination, answer: undefined, refused: false };
      this.#labels.add(entry);
      return { link, label, generation };
    };
    const answer = (ingress: Ingress, message: Uint8Array): void => {
      const bytes = encodeFrame({ kind: 'answer', label: frame.label, forward: ingress.label, id: frame.id, message });
      if (entry !== undefined) {
        entry.answer = bytes;
        this.#brief.add(entry);
      }
      this.#host.send(link, bytes, ingress.generation);
    };
    const refuse = (message: Uint8Array): void => {
      answer(reserve(), message);
      if (entry !== undefined) entry.refused = true;
    };
    try {
      this.#host.incoming({ destination: frame.destination, message: frame.message, renews, egress, reserve, answer, refuse });
    } catch (error) {
      if (entry !== undefined) this.#forget(entry);
      if (!isThicketError(error)) throw error;
      this.#count(error.code === 'BUSY' ? 'busy' : 'notAdmitted', 'refused');
    }
  }

  #answer(link: LinkId, generation: Generation, frame: Frame & { kind: 'answer' }): void {
    const entry = this.#owned(link, frame.label);
    if (entry === undefined || entry.role === 'called') return;
    const egress: Hop = { link, label: frame.forward, generation };
    const ingress: Ingress = { link, label: entry.label, generation: entry.generation };
    if (entry.role === 'calling') {
      if (entry.egress !== undefined) return;
      this.#settled(entry);
      this.#labels.answered(entry, egress);
      this.#rights.reached(entry.destination, egress);
      entry.done({ ok: true, message: frame.message, ingress, egress });
      return;
    }
    const back = entry.toward;
    const backGeneration = this.#host.generation(back.link);
    if (backGeneration === undefined || entry.id !== frame.id) return;
    let forth = this.#labels.get(entry.pair);
    if (forth === undefined) {
      const label = this.#labels.pick();
      const made: Relayed = {
        role: 'relayed',
        label,
        link: back.link,
        generation: backGeneration,
        at: this.#host.now(),
        toward: egress,
        pair: entry.label,
        destination: entry.destination,
        id: entry.id,
        renews: entry.renews,
        waiting: undefined,
        answer: undefined,
      };
      this.#settled(entry);
      entry.pair = label;
      this.#labels.add(made);
      this.#brief.add(made);
      this.#host.labelForward(ingress, back);
      this.#host.labelForward({ link: back.link, label, generation: backGeneration }, egress);
      forth = made;
    }
    const answer = encodeFrame({ kind: 'answer', label: back.label, forward: forth.label, id: frame.id, message: frame.message });
    if (forth.role === 'relayed') forth.answer = answer;
    this.#host.send(back.link, answer, forth.generation);
  }

  /** The set-up that we sent under `label` went nowhere. */
  #failed(link: LinkId, label: Label, reason: PathErrorReason): void {
    const entry = this.#owned(link, label);
    if (entry?.role === 'calling' && entry.egress === undefined) {
      this.#forget(entry);
      entry.done({ ok: false, reason: reason === 'dead' ? 'noRoute' : reason });
    } else if (entry?.role === 'relayed' && entry.pair === undefined) {
      this.#drop(entry);
      this.#tell(entry.toward.link, { kind: 'error', label: entry.toward.label, reason });
    }
  }

  /** A neighbour doesn't know the label under which we send to it. */
  #dead(link: LinkId, label: Label): void {
    const entry = this.#labels.leavingBy(link, label);
    if (entry === undefined) return;
    if (entry.role === 'relayed') this.#dropPair(entry, 'dead', link);
    else this.#end(entry);
  }

  /** The data plane saw a packet from this neighbour under a label that isn't known: say so. */
  unknownLabel(link: LinkId, label: Label): void {
    const entry = this.#labels.get(label);
    if (entry === undefined) return this.#tell(link, { kind: 'error', label, reason: 'dead' });
    // The data plane has freed what nothing came under for long.
    if (entry.link === link && entry.role === 'relayed' && entry.pair !== undefined) this.#dropPair(entry, 'dead', undefined);
  }

  linkUp(link: LinkId, key: PublicKey): void {
    this.#rights.linkUp(link, key);
  }

  /** A link is gone, or its far end has started anew: every label over it is void, and the other sides hear of it. */
  linkLost(link: LinkId): void {
    for (const entry of this.#labels.all()) {
      if (this.#labels.get(entry.label) === undefined) continue;
      if (entry.role === 'relayed') {
        if (entry.link === link || entry.toward.link === link) this.#dropPair(entry, 'dead', link);
      } else if (entry.link === link) {
        this.#end(entry);
      }
    }
    this.#rights.linkLost(link);
  }

  tick(): void {
    const now = this.#host.now();
    this.#traces.tick(now);
    for (const call of [...this.#calls]) {
      if (now < call.waiting.nextAt) continue;
      if (call.waiting.tries < TRIES) {
        this.#repeatOn(call, call.waiting, now);
        continue;
      }
      this.#forget(call);
      call.done({ ok: false, reason: 'timeout' });
    }
    for (const entry of [...this.#first, ...this.#again]) {
      if (now - entry.at > HALF_OPEN) this.#drop(entry);
      else if (entry.waiting !== undefined && now >= entry.waiting.nextAt) this.#repeatOn(entry, entry.waiting, now);
    }
    for (const entry of this.#brief) {
      if (now - entry.at <= HALF_OPEN) break;
      this.#brief.delete(entry);
      entry.answer = undefined;
      if (entry.role === 'called' && entry.refused) this.#forget(entry);
    }
  }

  #repeatOn(entry: Calling | Relayed, waiting: Waiting, now: number): void {
    waiting.tries += 1;
    waiting.nextAt = now + RETRY * waiting.tries;
    this.#host.send(entry.link, waiting.frame, entry.generation);
  }

  /** A relay's label was freed by the data plane because nothing valid came for long. */
  expired(label: Label): void {
    const entry = this.#labels.get(label);
    if (entry?.role === 'relayed') this.#dropPair(entry, 'close', undefined);
  }

  // ── bookkeeping ───────────────────────────────────────────────────────────────────────────────────────────────────────

  #makeRoom(oldest: Relayed | undefined): void {
    if (oldest === undefined) return;
    this.#drop(oldest);
    this.#tell(oldest.toward.link, { kind: 'error', label: oldest.toward.label, reason: this.#count('halfOpen', 'refused') });
  }

  #reverse(entry: Relayed): Hop | undefined {
    const pair = this.#labels.get(entry.pair);
    return pair?.role === 'relayed' ? pair.toward : undefined;
  }

  #count(reason: string, answer: PathErrorReason): PathErrorReason {
    this.counters[reason] = (this.counters[reason] ?? 0) + 1;
    return answer;
  }

  #refuse(link: LinkId, reason: PathErrorReason, label: Label): void {
    this.#host.report(link, encodeFrame({ kind: 'error', label, reason }));
  }

  #owned(link: LinkId, label: Label): Entry | undefined {
    const entry = this.#labels.get(label);
    if (entry === undefined || entry.link === link) return entry;
    this.#count('foreignLabel', 'refused');
    return undefined;
  }

  /** Answered: nothing is repeated any more. */
  #settled(entry: Calling | Relayed): void {
    this.#ids.delete(entry.id);
    if (entry.role === 'calling') this.#calls.delete(entry);
    else (entry.renews ? this.#again : this.#first).remove(entry);
  }

  /** An end's entry, and what hangs on it. */
  #forget(entry: Calling | Called): void {
    this.#rights.remember(entry, this.#host.now());
    this.#labels.delete(entry);
    if (entry.role === 'calling') this.#settled(entry);
    else this.#brief.delete(entry);
  }

  #drop(entry: Relayed): void {
    this.#rights.remember(entry, this.#host.now());
    this.#settled(entry);
    this.#brief.delete(entry);
    this.#labels.delete(entry);
    this.#host.labelRemove(entry.label);
  }

  /** Removes both directions and tells every neighbour of them but `from`, who knows. */
  #dropPair(entry: Relayed, how: 'dead' | 'close', from: LinkId | undefined): void {
    const pair = this.#labels.get(entry.pair);
    for (const one of [entry, pair]) {
      if (one?.role !== 'relayed') continue;
      this.#drop(one);
      if (one.pair === undefined) {
        // Not answered yet: the caller hears that it failed.
        if (one.toward.link !== from) this.#tell(one.toward.link, { kind: 'error', label: one.toward.label, reason: 'unreachable' });
        continue;
      }
      if (how === 'dead' && one.link !== from) this.#tell(one.link, { kind: 'error', label: one.label, reason: 'dead' });
      if (how === 'close' && one.toward.link !== from) this.#tell(one.toward.link, { kind: 'close', label: one.toward.label });
    }
  }

  #end(entry: Calling | Called): void {
    this.#forget(entry);
    if (entry.role === 'calling' && entry.egress === undefined) entry.done({ ok: false, reason: 'noParent' });
    else this.#host.pathLost(entry.label, entry.link);
  }

  #tell(link: LinkId, frame: Frame): void {
    if (frame.kind === 'error' || frame.kind === 'close') return this.#host.report(link, encodeFrame(frame));
    const generation = this.#host.generation(link);
    if (generation !== undefined) this.#host.send(link, encodeFrame(frame), generation);
  }
}
