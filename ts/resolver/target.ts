/** What the host's resolver is to be told: which names to ask Thicket's DNS server for, and where it is. */
import { firstAddress, reverseZones } from '../naming/pool-ranges.js';

export interface ResolverTarget {
  /** Where the node's DNS server listens, IPv4 first. */
  readonly addresses: readonly string[];
  readonly port: number;
  readonly domain: string;
  /** The TUN's name. */
  readonly interfaceName: string;
  /** CIDRs of the node's pools, for reverse names. */
  readonly pools: readonly string[];
}

/** The addresses that the DNS server takes on these pools. */
export function serverAddresses(pools: readonly string[]): string[] {
  return pools.map(firstAddress);
}

export function targetZones(target: ResolverTarget): string[] {
  return target.pools.flatMap(reverseZones);
}

/** The server that resolvers are pointed to: every pool has IPv4. */
export function serverAddress(target: ResolverTarget): string {
  return target.addresses[0] ?? firstAddress(target.pools[0] ?? '');
}
