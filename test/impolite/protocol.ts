/** What is said to the impolite client's program, one JSON document per line each way. Bytes are hexadecimal, counters decimal strings. */
import type { PublicKey } from '../../ts/trust/index.js';

export type Order =
  /** Links, sessions with their labels, counters, what came in. */
  | { readonly do: 'status' }
  /** All that others told it: frames of links and control packets of sessions, without their seals. */
  | { readonly do: 'heard' }
  /** Sets a session up like any node; the result names it. */
  | { readonly do: 'dial'; readonly peer: PublicKey }
  /** TCP SYNs or UDP datagrams for ports of the far end, past our own policy. There is no address inside the seal: ports are all that can be forged. */
  | {
      readonly do: 'knock';
      readonly session: number;
      readonly protocol: 'tcp' | 'udp';
      readonly ports: readonly number[];
      /** Source port, such as that of somebody else's flow; default 40,000. */
      readonly from?: number;
      /** Text; for TCP it goes in a segment with ACK behind the SYN. */
      readonly payload?: string;
    }
  /** An echo request. */
  | { readonly do: 'echo'; readonly session: number }
  /** Any bytes under the seal: inner header and body, or nothing like it. */
  | { readonly do: 'inner'; readonly session: number; readonly bytes: string; readonly times?: number }
  /** A datagram for `port` with one thing wrong. */
  | { readonly do: 'spoil'; readonly session: number; readonly port: number; readonly what: 'key' | 'slot' | 'hopTag' | 'counter' }
  /** Data packets on labels that aren't ours: those given, and so many random ones. */
  | { readonly do: 'labels'; readonly labels?: readonly number[]; readonly random?: number }
  /** Control frames to our parent, sealed as they should be; their content is the caller's. */
  | {
      readonly do: 'frames';
      readonly frames: readonly string[];
      /** Among the frames that must arrive in order, as announcements have to be; default false. */
      readonly numbered?: boolean;
    }
  /** Announces `key` as our child, as our endpoint, with a parent set and a name of ours, without having its signature. */
  | { readonly do: 'impersonate'; readonly key: PublicKey }
  | { readonly do: 'withdraw'; readonly keys: readonly PublicKey[] }
  /** Sends again what was sent (or sends to our parent what was received), from the same or from another source port. */
  | { readonly do: 'replay'; readonly what: 'sent' | 'received'; readonly from: 'same' | 'other' }
  /** Sends captured or made-up datagrams to anybody. */
  | {
      readonly do: 'datagrams';
      readonly to: { readonly host: string; readonly port: number };
      readonly datagrams: readonly string[];
      readonly from: 'same' | 'other';
    }
  | { readonly do: 'stop' };

/** Every datagram that an order made or repeated, so that a test finds it in its captures. */
export interface Sent {
  readonly sent: readonly string[];
}

export interface SessionReport {
  readonly id: number;
  readonly peer: PublicKey;
  readonly state: string;
  /** Our label, and the one that our packets go out under. */
  readonly ingress: number | undefined;
  readonly egress: number | undefined;
  readonly offered: readonly { readonly protocol: string; readonly port: number }[];
}

/** What somebody said to this node alone, as it was under the seal. */
export interface Heard {
  readonly in: 'link' | 'session';
  /** The neighbour, or the session's far end. */
  readonly key: PublicKey | undefined;
  readonly bytes: string;
}

export interface StatusReport {
  readonly key: PublicKey;
  readonly links: readonly {
    readonly key: PublicKey;
    readonly role: string;
    readonly remote: { readonly host: string; readonly port: number };
  }[];
  readonly sessions: readonly SessionReport[];
  readonly drops: Readonly<Record<string, string>>;
  /** Packets that the far ends got through to our side, as IP packets. */
  readonly delivered: readonly string[];
  readonly events: readonly object[];
}

/** What each order is answered with. */
export interface Results {
  readonly status: StatusReport;
  readonly heard: readonly Heard[];
  readonly dial: { readonly session: number };
  readonly knock: Sent;
  readonly echo: Sent;
  readonly inner: Sent;
  readonly spoil: Sent;
  readonly labels: Sent & { readonly labels: readonly number[] };
  readonly frames: Sent;
  readonly impersonate: Sent;
  readonly withdraw: Sent;
  readonly replay: Sent;
  readonly datagrams: Sent;
  readonly stop: Record<string, never>;
}

export interface Request {
  readonly id: number;
  readonly order: Order;
}

export type Reply =
  | { readonly id: number; readonly ok: true; readonly result: Results[Order['do']] }
  | { readonly id: number; readonly ok: false; readonly error: string };
