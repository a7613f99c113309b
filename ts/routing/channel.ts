/**
 * Frames between two neighbours that must arrive, each once and in order: what the tree's tables are made of, and reports of dead labels. Links lose datagrams;
 * a lost announcement would leave a branch unreachable until the next refresh, an hour later.
 *
 * Each frame travels numbered (kind 20) until the other side has acknowledged it (kind 21: the next number wanted, and which later ones have
 * come). Numbers begin at 0 with every fresh handshake of the link. A receiver that has no time for a frame yet keeps it unacknowledged: the sender's
 * window stops there, so neither side holds more of what the other says than a window.
 */
import { type Announced, announceFrame, encodeFrame, type Frame } from './frames.js';

/** Frames under way at once, and how far ahead of the next one the receiver keeps them. */
const WINDOW = 32;
/** First wait for an acknowledgement before anything is known of the round trip; bounds of every later one, milliseconds. */
const WAIT_FIRST = 400;
const WAIT_LEAST = 100;
const WAIT_MOST = 2_000;
/** Announcements that share a frame. */
const BATCH = 8;

/** A neighbour that acknowledges nothing for so long, though its link is alive, is given up, milliseconds. */
const STUCK = 60_000;
/** Reports that may wait; what comes beyond is dropped, since dead paths are noticed without them, too. */
const URGENT_MAX = 16_384;

export interface ChannelHost {
  send(frame: Uint8Array): void;
  now(): number;
  /** Frames and announcements that may wait for the other side. */
  most(): number;
}

interface Sent {
  readonly frame: Uint8Array;
  at: number;
  tries: number;
}

export class Channel {
  readonly #host: ChannelHost;
  /** What waits for room in the window; announcements are cut into frames when their turn comes. */
  #queue: (Announced | Uint8Array)[] = [];
  #head = 0;
  readonly #urgent: Uint8Array[] = [];
  readonly #sent = new Map<number, Sent>();
  #nextOut = 0;
  #nextIn = 0;
  readonly #early = new Map<number, Uint8Array>();
  #rtt: number | undefined;
  #deviation = 0;
  /** When the other side last acknowledged something, or began to have something to acknowledge. */
  #progressAt = 0;
  /** Something has come, or been taken, since we last said what we have. */
  #changed = false;
  #failure: string | undefined;
  /** Reports that found no room. */
  dropped = 0;

  constructor(host: ChannelHost) {
    this.#host = host;
  }

  /** Why the link is to be given up: the other side takes nothing, or not as much as there is for it. */
  get failure(): string | undefined {
    return this.#failure;
  }

  /** Frames and announcements that the other side hasn't acknowledged. */
  get waiting(): number {
    return this.#sent.size + this.#urgent.length + this.#queue.length - this.#head;
  }

  push(frame: Uint8Array): void {
    this.#queue.push(frame);
    this.#checkRoom();
    this.#flush();
  }

  /** Before whatever still waits: reports that somebody's traffic depends on. */
  pushUrgent(frame: Uint8Array): void {
    if (this.#urgent.length < URGENT_MAX) this.#urgent.push(frame);
    else this.dropped += 1;
    this.#flush();
  }

  announce(items: readonly Announced[]): void {
    for (const item of items) this.#queue.push(item);
    this.#checkRoom();
    this.#flush();
  }

  /** A numbered frame has come: `take` gives what it brought, when its turn comes. */
  receive(frame: Frame & { kind: 'numbered' }): void {
    const ahead = frame.number - this.#nextIn;
    if (ahead >= 0 && ahead < WINDOW) this.#early.set(frame.number, frame.body);
    this.#changed = true;
  }

  /** The body whose turn it is, if it has come. */
  take(): Uint8Array | undefined {
    const body = this.#early.get(this.#nextIn);
    if (body === undefined) return undefined;
    this.#early.delete(this.#nextIn);
    this.#nextIn += 1;
    this.#changed = true;
    return body;
  }

  /** Whether a body waits to be taken. */
  get pending(): boolean {
    return this.#early.has(this.#nextIn);
  }

  /** Says what we have taken and what has come ahead of its turn, where that is new. */
  acknowledge(): void {
    if (!this.#changed) return;
    this.#changed = false;
    let later = 0;
    for (const number of this.#early.keys()) if (number > this.#nextIn) later |= 1 << (number - this.#nextIn - 1);
    this.#host.send(encodeFrame({ kind: 'acknowledged', next: this.#nextIn, later: later >>> 0 }));
  }

  acknowledged(frame: Frame & { kind: 'acknowledged' }): void {
    const now = this.#host.now();
    for (const [number, sent] of this.#sent) {
      const ahead = number - frame.next;
      const come = ahead < 0 || (ahead > 0 && ahead <= 32 && ((frame.later >>> (ahead - 1)) & 1) === 1);
      if (!come) continue;
      this.#sent.delete(number);
      this.#progressAt = now;
      // Karn: the answer to a repeated frame tells nothing about the round trip.
      if (sent.tries === 1) this.#measure(now - sent.at);
    }
    this.#flush();
  }

  /** Repeats what has waited too long. */
  tick(): void {
    const now = this.#host.now();
    if (this.#sent.size > 0 && now - this.#progressAt >= STUCK) return this.#giveUp('it acknowledges nothing');
    for (const [number, sent] of this.#sent) {
      if (now - sent.at < Math.min(this.#wait() * 2 ** (sent.tries - 1), WAIT_MOST)) continue;
      sent.at = now;
      sent.tries += 1;
      this.#host.send(encodeFrame({ kind: 'numbered', number, body: sent.frame }));
    }
  }

  #wait(): number {
    if (this.#rtt === undefined) return WAIT_FIRST;
    return Math.min(Math.max(this.#rtt + 4 * this.#deviation + 50, WAIT_LEAST), WAIT_MOST);
  }

  /** RFC 6298's weights. */
  #measure(sample: number): void {
    if (this.#rtt === undefined) {
      this.#rtt = sample;
      this.#deviation = sample / 2;
    } else {
      this.#deviation = 0.75 * this.#deviation + 0.25 * Math.abs(this.#rtt - sample);
      this.#rtt = 0.875 * this.#rtt + 0.125 * sample;
    }
  }

  #checkRoom(): void {
    if (this.#queue.length - this.#head > this.#host.most()) this.#giveUp('it takes less than there is to say');
  }

  /** Whatever still waits is for nobody. */
  #giveUp(reason: string): void {
    this.#failure ??= reason;
    this.#queue = [];
    this.#head = 0;
  }

  #flush(): void {
    if (this.#sent.size === 0) this.#progressAt = this.#host.now();
    while (this.#sent.size < WINDOW && this.#nextOut - this.#oldest() < WINDOW) {
      const frame = this.#take();
      if (frame === undefined) return;
      const number = this.#nextOut;
      this.#nextOut += 1;
      this.#sent.set(number, { frame, at: this.#host.now(), tries: 1 });
      this.#host.send(encodeFrame({ kind: 'numbered', number, body: frame }));
    }
  }

  #oldest(): number {
    return this.#sent.keys().next().value ?? this.#nextOut;
  }

  #take(): Uint8Array | undefined {
    const urgent = this.#urgent.shift();
    if (urgent !== undefined) return urgent;
    if (this.#head > 1_024 && 2 * this.#head > this.#queue.length) {
      this.#queue = this.#queue.slice(this.#head);
      this.#head = 0;
    }
    const first = this.#queue[this.#head];
    if (first === undefined) {
      this.#queue = [];
      this.#head = 0;
      return undefined;
    }
    if (first instanceof Uint8Array) {
      this.#head += 1;
      return first;
    }
    const batch: Announced[] = [];
    for (let next = this.#queue[this.#head]; next !== undefined && batch.length < BATCH; next = this.#queue[this.#head + batch.length]) {
      if (next instanceof Uint8Array) break;
      batch.push(next);
    }
    const { frame, count } = announceFrame(batch);
    this.#head += count;
    return frame;
  }
}
