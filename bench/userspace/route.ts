/** A tunnel between two loopback ports, as the measurements see it. */
import type { Host } from '../../test/lab/index.js';
import type { UserSpaceTunnel } from './results.js';

/** Ports of iperf3's server and of the web server, behind the tunnel. */
export const SERVED = { iperf: 5_202, web: 8_080 } as const;

export interface Route {
  readonly name: UserSpaceTunnel;
  readonly version: string;
  readonly client: Host;
  /** Ports on the client's loopback that lead to the servers. */
  readonly ports: { readonly [S in keyof typeof SERVED]: number };
  /** Process ids of the tunnel's programs on the way. */
  readonly processes: readonly number[];
  stop(): Promise<void>;
}
