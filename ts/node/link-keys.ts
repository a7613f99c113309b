/**
 * The keys of one link: rekeys inside it, and how long old keys stay. The child asks for new keys; the parent switches to them at the first valid frame
 * under them.
 *
 * ```
 * child:   due ──rekey1, repeated──▶ asked ──rekey2──▶ sends under the new keys, shows them until the parent uses them
 * parent:  rekey1 ──▶ receives under the new keys too, rekey2 ──first frame under them──▶ sends under them
 * ```
 */
import type { Logger } from 'pino';
import { prefixed } from '../bytes.js';
import type { DataPlane, Generation, LinkId, SocketAddress } from '../dataplane/data-plane.js';
import { describe } from '../errors.js';
import { equalBytes, type PublicKey } from '../trust/index.js';
import { type Milliseconds, ms } from './clock.js';
import { type HandleSource, randomU32 } from './handles.js';
import { frameKind } from './liveness.js';
import type { Handshakes, RekeyInitiation, RekeyKeys } from './ports.js';

/** Old link keys still open frames for so long after newer ones were confirmed. */
const OVERLAP = ms(10_000);
const RETRY = ms(1_000);
/** Keys that we answered with and that the far end never used are forgotten. */
const HALF_OPEN = ms(15_000);
/** New keys are shown to the far end so often until it uses them. */
const PROVE_EVERY = ms(500);
/** So long a fresh handshake may take before we ask the far end for a rekey again. */
const RENEWAL = ms(10_000);

export interface LinkKeysOptions {
  readonly plane: DataPlane;
  readonly handshakes: () => Handshakes;
  readonly handles: HandleSource;
  readonly log: Logger;
  readonly self: PublicKey;
  readonly peer: PublicKey;
  readonly link: LinkId;
  /** We are the child, whose handshake made the link. */
  readonly initiator: boolean;
  readonly interval: () => Milliseconds;
  /** Where the far end is. */
  readonly at: () => { readonly socket: number; readonly remote: SocketAddress };
  /** Sends a question under the keys in use. */
  readonly show: () => void;
  /** One of us shows other certificates than in the last handshake: another one is wanted. */
  readonly renew: () => void;
}

/** What a first handshake agreed, beside keys. */
interface Agreed {
  readonly generation: Generation;
  readonly binding: Uint8Array;
  readonly chain: Uint8Array;
}

export class LinkKeys {
  readonly #o: LinkKeysOptions;
  #agreed: Agreed;
  /** What we send under. */
  #generation: Generation;
  #keyedAt: Milliseconds;
  #retired: { readonly generation: Generation; readonly at: Milliseconds }[] = [];
  #asked:
    | { readonly generation: Generation; readonly index: number; readonly initiation: RekeyInitiation; sentAt: Milliseconds }
    | undefined;
  #askAt = ms(0);
  /** Keys that we send under and the far end hasn't used yet: it may not know that it can. */
  #unproven: { readonly generation: Generation; sentAt: Milliseconds } | undefined;
  /** The last question, so that a repeated one gets the same answer, and the keys that come of it. */
  #answered:
    | {
        readonly question: Uint8Array;
        readonly answer: Uint8Array;
        readonly generation: Generation;
        readonly at: Milliseconds;
        used: boolean;
      }
    | undefined;

  constructor(agreed: Agreed, now: Milliseconds, options: LinkKeysOptions) {
    this.#o = options;
    this.#agreed = agreed;
    this.#generation = agreed.generation;
    this.#keyedAt = now;
  }

  get generation(): Generation {
    return this.#generation;
  }

  /** When the keys in use were agreed. */
  get keyedAt(): Milliseconds {
    return this.#keyedAt;
  }

  /** Asks where that is due, repeats what may have been lost, lets old keys go. */
  tick(now: Milliseconds): void {
    this.#prove(now);
    const answered = this.#answered;
    if (answered !== undefined && !answered.used && now - answered.at >= HALF_OPEN) this.#unanswer();
    this.#retired = this.#retired.filter(({ generation, at }) => {
      // As long as the far end may be sending under the old keys, they stay.
      if (now - at < OVERLAP || this.#unproven !== undefined) return true;
      this.#o.plane.linkRetire(this.#o.link, generation);
      return false;
    });
    this.#ask(now);
  }

  /** The far end asks for new keys. */
  question(bytes: Uint8Array, now: Milliseconds): void {
    const { plane, link, self, peer, handles } = this.#o;
    const last = this.#answered;
    if (last !== undefined && equalBytes(last.question, bytes)) return plane.linkSend(link, last.answer);
    const index = randomU32();
    const { binding, chain } = this.#agreed;
    const response = this.#attempt(() => this.#o.handshakes().respondRekey(self, peer, binding, bytes, index, chain));
    if (response === undefined) return;
    const answer = prefixed(frameKind.rekey2, response.message);
    if (response.keys !== undefined) {
      this.#unanswer();
      const generation = handles.generation();
      this.#install(generation, index, response.keys, false);
      this.#answered = { question: bytes.slice(), answer, generation, at: now, used: false };
    }
    plane.linkSend(link, answer);
  }

  /** The far end has answered. */
  answer(bytes: Uint8Array, now: Milliseconds): void {
    const asked = this.#asked;
    if (asked === undefined) return;
    const keys = this.#attempt(() => asked.initiation.finish(bytes));
    if (keys === undefined) return;
    this.#asked = undefined;
    if (keys === 'sendAll') {
      // The keys in use live on meanwhile, but not for ever.
      this.#askAt = ms(now + RENEWAL);
      return this.#o.renew();
    }
    this.#install(asked.generation, asked.index, keys, true);
    this.#switchTo(asked.generation, now);
    this.#show(now);
    if (!equalBytes(keys.chain, this.#agreed.chain)) this.#o.renew();
  }

  /** A frame came under keys: the far end has them. */
  used(generation: Generation): void {
    if (generation === this.#unproven?.generation) this.#unproven = undefined;
  }

  /** The first frame under keys that we answered with; false when they aren't of a rekey. */
  confirmed(generation: Generation, now: Milliseconds): boolean {
    const answered = this.#answered;
    if (answered?.generation !== generation || answered.used) return false;
    answered.used = true;
    this.#switchTo(generation, now);
    return true;
  }

  /** A first handshake has replaced the keys of this link. `show`: the far end sends under them from our first frame on. */
  adopt(agreed: Agreed, now: Milliseconds, show: boolean): void {
    this.#unanswer();
    this.#answered = undefined;
    this.#agreed = agreed;
    this.#askAt = ms(0);
    this.#switchTo(agreed.generation, now);
    if (show) this.#show(now);
  }

  #switchTo(generation: Generation, now: Milliseconds): void {
    this.#retired.push({ generation: this.#generation, at: now });
    this.#generation = generation;
    this.#keyedAt = now;
    this.#asked = undefined;
    this.#unproven = undefined;
  }

  #ask(now: Milliseconds): void {
    const { plane, link, self, peer, handles, initiator } = this.#o;
    // Only when the child doesn't ask for long does the parent let the link go.
    if (!initiator) return;
    if (this.#asked === undefined) {
      if (now - this.#keyedAt < this.#o.interval() || now < this.#askAt) return;
      const index = randomU32();
      const initiation = this.#o.handshakes().initiateRekey(self, peer, this.#agreed.binding, index);
      this.#asked = { generation: handles.generation(), index, initiation, sentAt: ms(now - RETRY) };
    }
    if (now - this.#asked.sentAt < RETRY) return;
    this.#asked.sentAt = now;
    plane.linkSend(link, prefixed(frameKind.rekey1, this.#asked.initiation.message));
  }

  /** Keys that we answered with and that nobody used. */
  #unanswer(): void {
    if (this.#answered === undefined || this.#answered.used) return;
    this.#o.plane.linkRetire(this.#o.link, this.#answered.generation);
    this.#answered = undefined;
  }

  #show(now: Milliseconds): void {
    this.#unproven = { generation: this.#generation, sentAt: ms(now - PROVE_EVERY) };
    this.#prove(now);
  }

  /** The far end sends under new keys from our first frame under them on; until it does, that frame may have been lost. */
  #prove(now: Milliseconds): void {
    if (this.#unproven === undefined || now - this.#unproven.sentAt < PROVE_EVERY) return;
    this.#unproven.sentAt = now;
    this.#o.show();
  }

  #install(generation: Generation, receiveIndex: number, keys: RekeyKeys, confirmed: boolean): void {
    const { sendKey, receiveKey, hopSecret, peerIndex: sendIndex } = keys;
    const { link, initiator } = this.#o;
    this.#o.plane.linkInstall({
      link,
      generation,
      ...this.#o.at(),
      initiator,
      receiveIndex,
      sendIndex,
      sendKey,
      receiveKey,
      hopSecret,
      confirmed,
    });
  }

  #attempt<T>(run: () => T): T | undefined {
    try {
      return run();
    } catch (error) {
      this.#o.log.debug({ error: describe(error) }, 'a rekey was refused');
      return undefined;
    }
  }
}
