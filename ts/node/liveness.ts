/**
 * Liveness of one link: probe when there is traffic and no answer, be silent but for what the NAT in front needs when idle. Pure:
 * times and counters go in, frames and a verdict come out.
 */
import type { LinkStats, SocketAddress } from '../dataplane/data-plane.js';
import { type Milliseconds, ms } from './clock.js';
import { Silence } from './silence.js';

/** First byte of the link control frames that `Links` answers itself. */
export const frameKind = { keepAlive: 0, ping: 1, pong: 2, rekey1: 3, rekey2: 4, goodbye: 17 } as const;

/** Silence after something was sent that makes us ask. */
const ANSWER_WITHIN = ms(1_000);
/** Unanswered questions, one per `PROBE_EVERY`, until the link counts as dead: with a fifth of all datagrams lost, once in 400 times in vain. */
const PROBES = 6;
const PROBE_EVERY = ms(400);
/** Idle links: shorter than the 30 s after which the meanest common NATs forget a UDP mapping. The NAT is the child's, so the child speaks first. */
const KEEP_ALIVE = { child: ms(25_000), parent: ms(35_000) };
/** The round trip is measured at least this often while a link carries anything. */
const MEASURE = ms(10_000);
/** An answer this late, or three round trips late, is one to doubt the far end for. */
const DOUBT = ms(500);
/** Nobody waits longer for an answer. */
const FORGET = ms(10_000);

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
  readonly #silence: Silence;
  readonly #keepAlive: Milliseconds;
  #probes: Probe[] = [];
  #unanswered = 0;
  #askedAt: Milliseconds;
  /** When the first of the unanswered questions was asked. */
  #openSince: Milliseconds;
  #answeredAt: Milliseconds;
  #rtt: number | undefined;

  /** `side`: which of the link's two ends we are. */
  constructor(now: Milliseconds, random: () => bigint, side: 'child' | 'parent' = 'child') {
    this.#random = random;
    this.#keepAlive = KEEP_ALIVE[side];
    this.#silence = new Silence(now);
    this.#askedAt = ms(now - MEASURE);
    this.#openSince = now;
    this.#answeredAt = now;
  }

  /** Smoothed round trip (RFC 6298's weights). */
  get rtt(): Milliseconds | undefined {
    return this.#rtt === undefined ? undefined : ms(this.#rtt);
  }

  /** A frame that wants no answer is about to be sent. */
  quiet(): void {
    this.#silence.quiet();
  }

  /** A probe, the answer to one, or a keep-alive has come: no traffic. */
  noise(): void {
    this.#silence.noise();
  }

  /** What to send at once over new keys: a question, so that the far end confirms and the round trip is known. */
  probeNow(now: Milliseconds): { readonly bytes: Uint8Array }[] {
    return [{ bytes: this.#question(now) }];
  }

  /** A question to another address from which a valid frame came; at most one a second. */
  addressProbe(now: Milliseconds, address: SocketAddress): Uint8Array | undefined {
    const recent = this.#probes.some((p) => p.address !== undefined && now - p.sentAt < ANSWER_WITHIN);
    return recent ? undefined : this.#probe(now, address);
  }

  /** Whether the far end is late with an answer: not dead yet, but perhaps started anew, without the keys that would let it answer. */
  doubtful(now: Milliseconds): boolean {
    return this.#unanswered > 0 && now - this.#openSince >= Math.max(DOUBT, 3 * (this.#rtt ?? 0));
  }

  /** Returns the probed address when the answered question was an address probe. */
  pong(now: Milliseconds, frame: Uint8Array): SocketAddress | undefined {
    if (frame.length !== 9) return undefined;
    const nonce = new DataView(frame.buffer, frame.byteOffset, frame.byteLength).getBigUint64(1);
    const probe = this.#probes.find((p) => p.nonce === nonce);
    if (probe === undefined) return undefined;
    this.#probes = this.#probes.filter((p) => p !== probe);
    const sample = now - probe.sentAt;
    this.#rtt = this.#rtt === undefined ? sample : this.#rtt * 0.875 + sample * 0.125;
    this.#unanswered = 0;
    this.#answeredAt = now;
    return probe.address;
  }

  tick(now: Milliseconds, stats: LinkStats | undefined): LivenessVerdict {
    if (stats !== undefined && this.#silence.note(now, stats.rxPackets, stats.txPackets)) this.#unanswered = 0;
    this.#probes = this.#probes.filter((p) => now - p.sentAt < FORGET);
    const waited = now - this.#askedAt;
    if (this.#unanswered > 0) {
      if (waited < PROBE_EVERY) return SILENT;
      return this.#unanswered >= PROBES ? { dead: true, frames: [] } : this.#ask(now, false);
    }
    if (this.#silence.lasts(now) >= ANSWER_WITHIN) return this.#ask(now, false);
    if (this.#silence.idle(now) >= this.#keepAlive) return this.#ask(now, true);
    if (this.#silence.unused(now) < MEASURE && now - this.#answeredAt >= MEASURE && waited >= MEASURE) return this.#ask(now, true);
    return SILENT;
  }

  #ask(now: Milliseconds, keepAlive: boolean): LivenessVerdict {
    return { dead: false, frames: [{ bytes: this.#question(now), keepAlive }] };
  }

  #question(now: Milliseconds): Uint8Array {
    if (this.#unanswered === 0) this.#openSince = now;
    this.#unanswered += 1;
    this.#askedAt = now;
    return this.#probe(now, undefined);
  }

  #probe(now: Milliseconds, address: SocketAddress | undefined): Uint8Array {
    const nonce = this.#random();
    this.#probes.push({ nonce, sentAt: now, address });
    this.#silence.quiet();
    const frame = new Uint8Array(9);
    frame[0] = frameKind.ping;
    new DataView(frame.buffer).setBigUint64(1, nonce);
    return frame;
  }
}

const SILENT: LivenessVerdict = { dead: false, frames: [] };
