/** What bench/isolation measures: how much of one child's traffic is left while others do their worst. */

/**
 * What a relay is loaded with.
 * - `udp200`, `udp1316`, `tcp`: another child sends as much as it can.
 * - `handshakes`: made-up initiations with a valid mac1, from everywhere.
 */
export type Load = 'udp200' | 'udp1316' | 'tcp' | 'handshakes';

/** A flow that stands before the load begins, and under it. */
export interface ShareRun {
  readonly round: number;
  readonly load: Load;
  /** Where the load goes: through a gateway of its own, through the flow's (`same`), or to the relay itself. */
  readonly far: 'other' | 'same' | 'relay';
  /** Mbit/s of the flow that arrive. */
  readonly alone: number;
  readonly loaded: number;
  /** How strong the load was: what arrived of it; of handshakes what was sent. */
  readonly strength: number;
  readonly unit: 'Mbit/s' | 'kpps';
  /** Of handshakes, those that the relay answered with a cookie, kpps: the rest it lost. */
  readonly answered?: number;
}

/** Seconds from the start of a new child's program until its link is up. */
export interface JoinRun {
  readonly round: number;
  readonly flooded: boolean;
  readonly seconds: number;
}

/** Round trips through the tunnel beside one TCP stream that takes all it gets. */
export interface PingRun {
  readonly round: number;
  /** Mbit/s that the way carries; none: as much as the machine can. */
  readonly limit?: number;
  /** Milliseconds. */
  readonly median: number;
  readonly p99: number;
  /** What the stream carried, Mbit/s. */
  readonly stream: number;
}

/** How long the event loop of a Node process kept others waiting, milliseconds. */
export interface DelayRun {
  readonly round: number;
  readonly node: 'relay' | 'gateway';
  readonly load: 'idle' | 'tcp' | 'udp200';
  readonly median: number;
  readonly p99: number;
  readonly most: number;
}

export interface Isolation {
  readonly seconds: number;
  readonly rounds: number;
  readonly bitsPerSecond: number;
  readonly packetBytes: number;
  readonly shares: readonly ShareRun[];
  readonly joins: readonly JoinRun[];
  readonly pings: readonly PingRun[];
  readonly delays: readonly DelayRun[];
}
