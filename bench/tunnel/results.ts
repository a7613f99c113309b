/** What bench/tunnel measures. */

/**
 * - `direct`: no relay between; the parent itself is the far end (`allow_unrelayed`).
 * - `relay`, `three`: so many relays between viewer and gateway.
 * - `dnat`: one relay, and the far end is a host on the gateway's LAN.
 */
export type Topology = 'direct' | 'relay' | 'three' | 'dnat';
export const TOPOLOGIES: readonly Topology[] = ['direct', 'relay', 'three', 'dnat'];

export type TestName =
  | 'tcp1 up'
  | 'tcp1 down'
  | 'tcp4 up'
  | 'tcp4 down'
  | 'udp200 up'
  | 'udp1316 up'
  | 'udp1316 down'
  | 'ping idle'
  | 'ping loaded';

/** Packets in one call of the AEAD, by column of `Trains`. */
export const TRAIN_SIZES = ['1', '2–3', '4–7', '8–15', '16–31', '32–63', '64 or more'] as const;

/** How many calls of the AEAD had so many packets, where the payload is sealed and where it is opened. */
export interface Trains {
  readonly sealed: readonly number[];
  readonly opened: readonly number[];
}

export type Unit = 'Gbit/s' | 'kpps' | 'ms';

export interface Run {
  readonly round: number;
  readonly topology: Topology;
  readonly tunnel: string;
  readonly test: TestName;
  /** What arrived a second; for pings the median time there and back. */
  readonly value: number;
  readonly unit: Unit;
  /** Payload that arrived, bytes. */
  readonly bytes?: number;
  /** User and system seconds of the tunnel's processes per 10^9 of these bytes. */
  readonly cpuPerGB?: number;
  /** Datagrams or pings that didn't come. */
  readonly lostPercent?: number;
  readonly p99?: number;
  /** Resident memory of the relay's process afterwards. */
  readonly relayMiB?: number;
  /** Of Thicket. */
  readonly trains?: Trains;
  /** The machine's load over the last minute, afterwards: our own part is in it. */
  readonly load: number;
}

export interface Tunnel {
  /** What is measured, with its version. */
  readonly tunnels: Readonly<Record<string, string>>;
  readonly seconds: number;
  readonly rounds: number;
  /** What the viewer's TUN offloads. */
  readonly offload: string;
  /** Resident memory of a `node` that does nothing. */
  readonly bareNodeMiB: number;
  readonly runs: readonly Run[];
}
