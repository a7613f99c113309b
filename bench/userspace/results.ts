/** What bench/userspace measures: nodes without kernel interfaces, TCP through `forward`. */

/** `native`: the addon; `wasm`: the portable core; both user-space at viewer, relay and gateway. `hypertele`: two ends, no relay, over loopback. */
export type UserSpaceTunnel = 'native' | 'wasm' | 'hypertele';

export interface UserSpaceRun {
  readonly round: number;
  readonly tunnel: UserSpaceTunnel;
  readonly direction: 'up' | 'down';
  /** What arrived, Mbit/s. */
  readonly value: number;
  /** User and system seconds of the tunnel's processes per 10^9 bytes that arrived. */
  readonly cpuPerGB: number;
  /** Resident memory of each of the tunnel's processes afterwards, MiB. */
  readonly residentMiB: readonly number[];
}

/** Somebody sends as fast as he can, and the reader takes little. */
export interface SlowRun {
  readonly tunnel: UserSpaceTunnel;
  readonly seconds: number;
  /** What the reader takes, Mbit/s. */
  readonly readMbit: number;
  /** Most resident memory of each of the tunnel's processes meanwhile, MiB. */
  readonly mostMiB: readonly number[];
}

export interface UserSpace {
  readonly seconds: number;
  readonly rounds: number;
  readonly versions: Readonly<Record<UserSpaceTunnel, string>>;
  readonly runs: readonly UserSpaceRun[];
  readonly slow: readonly SlowRun[];
}
