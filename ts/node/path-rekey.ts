/**
 * Rekeys inside one path: control packets over the labels that stand, no relay takes part. The side that set the path up asks; the other one switches at
 * the first packet under the new keys. Old keys stay until the last packet under them may have come.
 *
 * ```
 * asks:     due ──rekey1, repeated──▶ asked ──rekey2──▶ sends under the new slot, shows it until ──pong──▶ the old slot runs out
 * answers:  rekey1 ──▶ receives under the new slot too, rekey2 ──first packet under it──▶ sends under it, the old slot runs out
 * ```
 */
import type { Logger } from 'pino';
import { prefixed } from '../bytes.js';
import type { DataPlane, PathId } from '../dataplane/data-plane.js';
import { describe } from '../errors.js';
import { equalBytes, type PublicKey } from '../trust/index.js';
import { type Milliseconds, ms } from './clock.js';
import { randomU64 } from './handles.js';
import type { Handshakes, RekeyInitiation } from './ports.js';
import { controlKind, nonceFrame } from './session-control.js';

const REKEY_RETRY = ms(500);
/** New keys are shown to the far end so often until it has answered under them. */
const PROVE_EVERY = ms(300);
/** So long another path may take to come up before we ask the far end for a rekey of this one again. */
const RENEWAL = ms(10_000);
/** Packets under old keys may come so late. */
const OVERLAP = ms(10_000);

export interface PathRekeyOptions {
  readonly plane: DataPlane;
  readonly handshakes: () => Handshakes;
  readonly log: Logger;
  readonly path: PathId;
  readonly own: PublicKey;
  readonly peer: PublicKey;
  readonly binding: Uint8Array;
  /** What names the certificates that the far end showed in that handshake. */
  readonly chain: Uint8Array;
  /** We set the path up, so we ask. */
  readonly initiator: boolean;
  readonly interval: () => Milliseconds;
  /** `wantsAnswer`: silence after it means that the path is dead. */
  readonly send: (bytes: Uint8Array, wantsAnswer: boolean) => void;
  readonly rekeyed: () => void;
  /** One of us shows other certificates than in the handshake: another path is wanted, whose handshake shows them. */
  readonly renew: () => void;
}

export class PathRekey {
  readonly #o: PathRekeyOptions;
  #slot = 0;
  #keyedAt: Milliseconds;
  #due = false;
  /** Not before this do we ask again. */
  #askAt = ms(0);
  #retiring: { readonly slot: number; readonly at: Milliseconds }[] = [];
  #asked: { readonly initiation: RekeyInitiation; readonly slot: number; sentAt: Milliseconds } | undefined;
  #proving: { readonly nonce: bigint; readonly before: number; sentAt: Milliseconds } | undefined;
  #answered: { readonly question: Uint8Array; readonly answer: Uint8Array; readonly slot: number; confirmed: boolean } | undefined;

  constructor(now: Milliseconds, options: PathRekeyOptions) {
    this.#o = options;
    this.#keyedAt = now;
  }

  /** When the keys in use were agreed. */
  get keyedAt(): Milliseconds {
    return this.#keyedAt;
  }

  /** The data plane has sealed as many packets under these keys as it should. */
  hurry(): void {
    this.#due = true;
  }

  /** Asks, where that is due; repeats what may have been lost; lets old keys go. */
  tick(now: Milliseconds): void {
    this.#retiring = this.#retiring.filter(({ slot, at }) => {
      if (now < at) return true;
      this.#o.plane.pathRetire(this.#o.path, slot);
      return false;
    });
    this.#prove(now);
    if (!this.#o.initiator || this.#proving !== undefined) return;
    if (this.#asked === undefined) {
      if ((!this.#due && now - this.#keyedAt < this.#o.interval()) || now < this.#askAt) return;
      const { own, peer, binding } = this.#o;
      const initiation = this.#o.handshakes().initiateRekey(own, peer, binding, 0);
      this.#asked = { initiation, slot: (this.#slot + 1) & 3, sentAt: ms(now - REKEY_RETRY) };
    }
    if (now - this.#asked.sentAt < REKEY_RETRY) return;
    this.#asked.sentAt = now;
    this.#o.send(prefixed(controlKind.rekey1, this.#asked.initiation.message), true);
  }

  /** The far end asks. */
  question(question: Uint8Array): void {
    const last = this.#answered;
    if (last !== undefined && equalBytes(last.question, question)) return this.#o.send(last.answer, false);
    // Only who set the path up asks; and until the last exchange is confirmed another one could only be an echo of it.
    if (this.#o.initiator || last?.confirmed === false) return;
    const slot = (this.#slot + 1) & 3;
    this.#attempt(() => {
      const { plane, path, own, peer, binding, chain } = this.#o;
      const { message, keys } = this.#o.handshakes().respondRekey(own, peer, binding, question, 0, chain);
      if (keys === undefined) return this.#o.send(prefixed(controlKind.rekey2, message), false);
      this.#occupy(slot);
      plane.pathRekey(path, slot, keys.sendKey, keys.receiveKey, false);
      this.#answered = { question: question.slice(), answer: prefixed(controlKind.rekey2, message), slot, confirmed: false };
      this.#o.send(this.#answered.answer, false);
    });
  }

  /** The far end has answered. */
  answer(answer: Uint8Array, now: Milliseconds): void {
    const asked = this.#asked;
    if (asked === undefined) return;
    this.#attempt(() => {
      const keys = asked.initiation.finish(answer);
      this.#asked = undefined;
      if (keys === 'sendAll') {
        // The keys in use live on meanwhile, but not for ever.
        this.#askAt = ms(now + RENEWAL);
        return this.#o.renew();
      }
      if (!equalBytes(keys.chain, this.#o.chain)) this.#o.renew();
      this.#occupy(asked.slot);
      this.#o.plane.pathRekey(this.#o.path, asked.slot, keys.sendKey, keys.receiveKey, true);
      this.#proving = { nonce: randomU64(), before: this.#slot, sentAt: ms(now - PROVE_EVERY) };
      this.#advance(asked.slot, now);
      this.#prove(now);
    });
  }

  /** The data plane has had the first packet under a slot's keys. */
  confirmed(slot: number, now: Milliseconds): void {
    const answered = this.#answered;
    if (answered === undefined || answered.slot !== slot || answered.confirmed) return;
    answered.confirmed = true;
    this.#retire(this.#slot, now);
    this.#advance(slot, now);
  }

  /** The answer to a ping: whether it was ours, and so the far end sends under the new keys. */
  pong(nonce: bigint, now: Milliseconds): boolean {
    const proving = this.#proving;
    if (proving === undefined || proving.nonce !== nonce) return false;
    this.#proving = undefined;
    this.#retire(proving.before, now);
    return true;
  }

  /** Until it has had a packet under the new keys the far end goes on under the old ones, which stay as long. */
  #prove(now: Milliseconds): void {
    if (this.#proving === undefined || now - this.#proving.sentAt < PROVE_EVERY) return;
    this.#proving.sentAt = now;
    this.#o.send(nonceFrame(controlKind.ping, this.#proving.nonce), false);
  }

  #advance(slot: number, now: Milliseconds): void {
    this.#slot = slot;
    this.#keyedAt = now;
    this.#due = false;
    this.#o.rekeyed();
  }

  #retire(slot: number, now: Milliseconds): void {
    this.#retiring.push({ slot, at: ms(now + Math.min(OVERLAP, this.#o.interval() * 1.5)) });
  }

  /** New keys move into a slot: whatever was to end there has ended, however late its time was set. */
  #occupy(slot: number): void {
    this.#retiring = this.#retiring.filter((old) => old.slot !== slot);
  }

  #attempt(run: () => void): void {
    try {
      run();
    } catch (error) {
      this.#o.log.debug({ error: describe(error) }, 'a rekey was refused');
    }
  }
}
