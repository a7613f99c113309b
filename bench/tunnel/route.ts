/** A tunnel as the measurements see it. */
import type { Host } from '../../test/lab/index.js';
import type { Topology, Trains } from './results.js';

export interface Route {
  readonly client: Host;
  /** Where iperf3's server is, as the client sees it. */
  readonly address: string;
  /** What the bytes must come through. */
  readonly relays: readonly Host[];
  /** Process ids of the tunnel's programs on the way. */
  readonly processes: readonly number[];
  /** The relay's, where there is one. */
  readonly relayProcess?: number;
  /** How full trains were so far at client and far end; of Thicket. */
  readonly trains?: () => Promise<readonly [client: Trains, far: Trains]>;
}

export interface Contender {
  readonly name: string;
  readonly version: string;
  readonly routes: { readonly [T in Topology]?: Route };
  stop(): Promise<void>;
}
