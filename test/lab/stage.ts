/** Where hosts stand: in network namespaces (Lab), or all on this machine's loopback (Loopback). */
import type { Host } from './host.js';
import type { HostName } from './plan.js';

export interface Stage {
  /** A folder of this run, removed with the stage. */
  readonly dir: string;
  host(name: HostName): Host;
  /** Ends all programs and removes everything. May be called twice. */
  destroy(): Promise<void>;
}
