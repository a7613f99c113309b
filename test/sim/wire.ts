/** The underlay: carries datagrams between addresses with latency, loss, reordering and duplication, all from one seed. */
import type { SocketAddress } from '../../ts/dataplane/data-plane.js';
import type { VirtualClock } from './clock.js';
import type { Random } from './random.js';

/** What simulated data planes send each other: the fields of native/core's formats, sealed by name instead of by cipher. */
export type Datagram =
  | { readonly type: 'handshake'; readonly bytes: Uint8Array }
  | { readonly type: 'link'; readonly index: number; readonly counter: number; readonly key: string; readonly plain: Uint8Array }
  | {
      readonly type: 'data';
      readonly label: number;
      readonly slot: number;
      readonly counter: number;
      /** Stands for the hop tag: the name of the key that made it. */
      readonly hop: string;
      readonly key: string;
      readonly kind: 'control' | 'user';
      readonly plain: Uint8Array;
    };

export interface Quality {
  readonly latency: number;
  /** Up to so much is added at random: packets overtake each other. */
  readonly jitter: number;
  readonly loss: number;
  readonly duplication: number;
}

export interface Sent {
  readonly from: SocketAddress;
  readonly to: SocketAddress;
  readonly datagram: Datagram;
}

type Receive = (from: SocketAddress, datagram: Datagram) => void;

export const text = (address: SocketAddress): string => `${address.host} ${address.port}`;

export class Wire {
  readonly #clock: VirtualClock;
  readonly #random: Random;
  readonly #sockets = new Map<string, Receive>();
  readonly #qualities = new Map<string, Quality>();
  readonly #cuts = new Set<string>();
  /** NAT bindings: what an inside address looks like outside. */
  readonly #outside = new Map<string, SocketAddress>();
  readonly #inside = new Map<string, SocketAddress>();
  quality: Quality = { latency: 5, jitter: 0, loss: 0, duplication: 0 };
  /** Everything sent so far, where a test asked for it. */
  record: Sent[] | undefined;
  sent = 0;
  /** What happens to a datagram that a test has something in mind for. */
  intercept: ((sent: Sent) => 'pass' | 'drop') | undefined;

  constructor(clock: VirtualClock, random: Random) {
    this.#clock = clock;
    this.#random = random;
  }

  open(at: SocketAddress, receive: Receive): () => void {
    this.#sockets.set(text(at), receive);
    return () => {
      if (this.#sockets.get(text(at)) === receive) this.#sockets.delete(text(at));
    };
  }

  /** Between two hosts, both ways. */
  between(a: string, b: string, quality: Partial<Quality>): void {
    this.#qualities.set(pair(a, b), { ...this.quality, ...quality });
  }

  cut(a: string, b: string): void {
    this.#cuts.add(pair(a, b));
  }

  heal(a: string, b: string): void {
    this.#cuts.delete(pair(a, b));
  }

  /** A NAT gives `inside` another outside address; the old one leads nowhere. */
  rebind(inside: SocketAddress, outside: SocketAddress): void {
    const before = this.#outside.get(text(inside));
    if (before !== undefined) this.#inside.delete(text(before));
    this.#outside.set(text(inside), outside);
    this.#inside.set(text(outside), inside);
  }

  send(from: SocketAddress, to: SocketAddress, datagram: Datagram): void {
    this.sent += 1;
    const seen = this.#outside.get(text(from)) ?? from;
    this.record?.push({ from: seen, to, datagram });
    if (this.intercept?.({ from: seen, to, datagram }) === 'drop') return;
    const quality = this.#qualities.get(pair(from.host, to.host)) ?? this.quality;
    if (this.#cuts.has(pair(from.host, to.host)) || this.#random.chance(quality.loss)) return;
    const copies = this.#random.chance(quality.duplication) ? 2 : 1;
    for (let copy = 0; copy < copies; copy += 1) this.#arrive(seen, to, datagram, quality.latency + quality.jitter * this.#random.next());
  }

  /** A datagram as an attacker puts it on the wire: any source, any time. */
  inject(from: SocketAddress, to: SocketAddress, datagram: Datagram): void {
    this.#arrive(from, to, datagram, 1);
  }

  #arrive(from: SocketAddress, to: SocketAddress, datagram: Datagram, delay: number): void {
    this.#clock.after(delay, () => {
      const inside = this.#inside.get(text(to));
      // Behind a NAT nobody reaches the inside address itself.
      if (inside === undefined && this.#outside.has(text(to))) return;
      this.#sockets.get(text(inside ?? to))?.(from, datagram);
    });
  }
}

const pair = (a: string, b: string): string => (a < b ? `${a} ${b}` : `${b} ${a}`);
