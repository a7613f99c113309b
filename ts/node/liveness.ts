/**
 * Liveness of one link: probe when there is traffic and no answer, be silent but for what the NAT in front needs when idle. Pure:
 * times and counters go in, frames and a verdict come out.
 */
import type { LinkStats, SocketAddress } from '../dataplane/data-plane.js';
import { type Milliseconds, ms } from './clock.js';

/** First byte of the link control frames that `Links` answers itself. */
export const frameKind = { keepAlive: 0, ping: 1, pong: 2, rekey1: 3, rekey2: 4, goodbye: 17 } as const;

/** Silence after something was sent that makes us ask. */
const ANSWER_WITHIN = ms(1_000);
/** Unanswered questions, one a second, until the link counts as dead. */
const PROBES = 3;
/** Idle links: shorter than the 30 s after which the meanest common NATs forget a UDP mapping. */
const KEEP_ALIVE = ms(25_000);
/** The round trip is measured at least this often while a link carries anything. */
const MEASURE = ms(10_000);

export interface LivenessVerdict {
  readonly dead: boolean;
  readonly frames: readonly { readonly bytes: Uint8Array; readonly keepAlive: boolean }[];
}

interface Probe {
  readonly nonce: bigint;
  readonly sentAt: Milliseconds;
  readonly address: SocketAddress | undefined;
}

export class Liveness {
  readonly #random: () => bigint;
  #probes: Probe[] = [];
  #unanswered = 0;
  #lastProbe: Milliseconds;
  #lastAnswer: Milliseconds;
  #lastTx = 0n;
  #lastRx = 0n;
  #lastRxAt: Milliseconds;
  #lastTxAt: Milliseconds;
  #rtt: number | undefined;

  constructor(now: Milliseconds, random: () => bigint) {
    this.#random = random;
    this.#lastProbe = ms(now - MEASURE);
    this.#lastAnswer = now;
    this.#lastRxAt = now;
    this.#lastTxAt = now;
  }

  /** Smoothed round trip (RFC 6298's weights). */
  get rtt(): Milliseconds | undefined {
    return this.#rtt === undefined ? undefined : ms(this.#rtt);
  }

  /** What to send at once over new keys: a question, so that the far end confirms and the round trip is known. */
  probeNow(now: Milliseconds): { readonly bytes: Uint8Array }[] {
    return [{ bytes: this.#probe(now, undefined) }];
  }

  /** A question to another address from which a valid frame came; at most one a second. */
  addressProbe(now: Milliseconds, address: SocketAddress): Uint8Array | undefined {
    const recent = this.#probes.some((p) => p.address !== undefined && now - p.sentAt < ANSWER_WITHIN);
    return recent ? undefined : this.#probe(now, address);
  }

  /** Returns the probed address when the answered question was an address probe. */
  pong(now: Milliseconds, frame: Uint8Array): SocketAddress | undefined {
    if (frame.length < 9) return undefined;
    const nonce = new DataView(frame.buffer, frame.byteOffset, frame.byteLength).getBigUint64(1);
    const probe = this.#probes.find((p) => p.nonce === nonce);
    if (probe === undefined) return undefined;
    this.#probes = this.#probes.filter((p) => p !== probe);
    const sample = now - probe.sentAt;
    this.#rtt = this.#rtt === undefined ? sample : this.#rtt * 0.875 + sample * 0.125;
    this.#unanswered = 0;
    this.#lastAnswer = now;
    return probe.address;
  }

  tick(now: Milliseconds, stats: LinkStats | undefined): LivenessVerdict {
    if (stats !== undefined) {
      if (stats.rxPackets !== this.#lastRx) {
        this.#lastRx = stats.rxPackets;
        this.#lastRxAt = ms(now - Math.max(0, stats.idleMs));
        this.#unanswered = 0;
      }
      if (stats.txPackets !== this.#lastTx) {
        this.#lastTx = stats.txPackets;
        this.#lastTxAt = now;
      }
    }
    this.#probes = this.#probes.filter((p) => now - p.sentAt < 10_000);
    const waited = now - this.#lastProbe;
    const asking = this.#unanswered > 0;
    if (asking && this.#unanswered >= PROBES && waited >= ANSWER_WITHIN) return { dead: true, frames: [] };
    const unanswered = this.#lastTxAt > this.#lastRxAt && now - this.#lastRxAt >= ANSWER_WITHIN;
    const active = now - this.#lastTxAt < MEASURE || now - this.#lastRxAt < MEASURE;
    if ((unanswered || asking) && waited >= ANSWER_WITHIN) return this.#ask(now, false);
    if (active && now - this.#lastAnswer >= MEASURE && waited >= MEASURE) return this.#ask(now, true);
    if (now - Math.max(this.#lastRxAt, this.#lastTxAt) >= KEEP_ALIVE) return this.#ask(now, true);
    return { dead: false, frames: [] };
  }

  #ask(now: Milliseconds, keepAlive: boolean): LivenessVerdict {
    this.#unanswered += 1;
    return { dead: false, frames: [{ bytes: this.#probe(now, undefined), keepAlive }] };
  }

  #probe(now: Milliseconds, address: SocketAddress | undefined): Uint8Array {
    const nonce = this.#random();
    this.#probes.push({ nonce, sentAt: now, address });
    this.#lastProbe = now;
    this.#lastTxAt = now;
    const frame = new Uint8Array(9);
    frame[0] = frameKind.ping;
    new DataView(frame.buffer).setBigUint64(1, nonce);
    return frame;
  }
}
