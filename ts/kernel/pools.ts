/** Whether a pool of local addresses is free on this host. */
import ipaddr from 'ipaddr.js';
import { type InterfaceAddress, ROUTE_PROTOCOL, type Route } from './kernel-net.js';

/**
 * What occupies a pool, in words; undefined when nothing does. Routes that cover the pool count as well as those inside it, since whoever
 * made them wants its packets; only default routes don't, and their halves (0.0.0.0/1 and 128.0.0.0/1, by which VPNs override them).
 */
export function occupant(
  pools: readonly string[],
  own: { readonly interface: string },
  addresses: readonly InterfaceAddress[],
  routes: readonly Route[],
): { readonly pool: string; readonly by: string } | undefined {
  for (const pool of pools) {
    const address = addresses.find((a) => a.interface !== own.interface && contains(pool, a.address));
    if (address !== undefined) return { pool, by: `${address.address} is an address of ${address.interface}` };
    const route = routes.find((r) => !isOurs(r, pool, own.interface) && !isDefault(r) && overlap(pool, r.destination));
    if (route !== undefined) return { pool, by: `${route.destination} ${way(route)}` };
  }
  return undefined;
}

/** Left over from a crash, or of the interface that we are about to make. */
function isOurs(route: Route, pool: string, name: string): boolean {
  if (route.interface === name) return true;
  return route.type === 'blackhole' && route.protocol === ROUTE_PROTOCOL && route.destination === network(pool);
}

function isDefault(route: Route): boolean {
  return ipaddr.parseCIDR(route.destination)[1] <= 1;
}

function way(route: Route): string {
  const table = route.table === 254 || route.table === 255 ? '' : ` in table ${route.table}`;
  const name = route.type === 'unicast' ? 'is routed' : `is a ${route.type} route`;
  return `${name}${route.interface === undefined ? '' : ` through ${route.interface}`}${table}`;
}

export function contains(pool: string, address: string): boolean {
  const [net, bits] = ipaddr.parseCIDR(pool);
  const parsed = ipaddr.parse(address);
  return parsed.kind() === net.kind() && parsed.match(net, bits);
}

function overlap(a: string, b: string): boolean {
  const [netA, bitsA] = ipaddr.parseCIDR(a);
  const [netB, bitsB] = ipaddr.parseCIDR(b);
  return netA.kind() === netB.kind() && netA.match(netB, Math.min(bitsA, bitsB));
}

/** A prefix as the kernel prints it: no bits after its length. */
export function network(prefix: string): string {
  const [net, bits] = ipaddr.parseCIDR(prefix);
  const bytes = net.toByteArray().map((byte, i) => byte & (0xff00 >> Math.min(8, Math.max(0, bits - 8 * i))) & 0xff);
  return `${ipaddr.fromByteArray(bytes).toString()}/${bits}`;
}
