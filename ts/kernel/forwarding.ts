/**
 * Which parameters must be set so that the overlay's packets, and no others, are forwarded: on the TUN and on the LAN interfaces in use. Where
 * forwarding was off before, the firewall drops what else those interfaces bring (`Opened`).
 */
import type { Opened } from './ruleset.js';
import type { Sysctls } from './sysctls.js';

export interface Wanted {
  readonly tun: string;
  /** Interfaces that lead to IPv4 targets, to IPv6 targets. */
  readonly lan4: readonly string[];
  readonly lan6: readonly string[];
  /** A target is 127.0.0.0/8 on this host. */
  readonly loopback: boolean;
}

const ALL6 = 'net/ipv6/conf/all/forwarding';
const forwarding4 = (name: string): string => `net/ipv4/conf/${name}/forwarding`;
const force6 = (name: string): string => `net/ipv6/conf/${name}/force_forwarding`;
const localnet = (name: string): string => `net/ipv4/conf/${name}/route_localnet`;

/** Parameters to be 1. */
function switches(sysctls: Sysctls, wanted: Wanted): string[] {
  const { tun, lan4, lan6 } = wanted;
  const list = lan4.length === 0 ? [] : [tun, ...lan4].map(forwarding4);
  if (lan6.length > 0 && !forwards6(sysctls)) list.push(...(hasForce(sysctls) ? [tun, ...lan6].map(force6) : [ALL6]));
  if (wanted.loopback) list.push(localnet(tun));
  return list;
}

/** Whether somebody else made this host an IPv6 router. */
function forwards6(sysctls: Sysctls): boolean {
  return (sysctls.before(ALL6) ?? sysctls.get(ALL6)) !== '0';
}

/** Linux 6.17 and later: forwarding per interface, as IPv4 always had it. */
function hasForce(sysctls: Sysctls): boolean {
  return sysctls.get(force6('default')) !== undefined || sysctls.get(force6('lo')) !== undefined;
}

/** What is opened now, or will be after `openForwarding(wanted)`. */
export function openedBy(sysctls: Sysctls, wanted: Wanted): Opened {
  const all = [
    ...sysctls.changed().filter((path) => sysctls.before(path) === '0'),
    ...switches(sysctls, wanted).filter((p) => closed(sysctls, p)),
  ];
  const names = (pattern: RegExp): string[] => {
    const found = all.map((path) => pattern.exec(path)?.[1]).filter((name) => name !== undefined && name !== wanted.tun);
    return [...new Set(found as string[])].sort();
  };
  return {
    v4: names(/^net\/ipv4\/conf\/(.+)\/forwarding$/),
    v6: all.includes(ALL6) ? 'all' : names(/^net\/ipv6\/conf\/(.+)\/force_forwarding$/),
  };
}

const closed = (sysctls: Sysctls, path: string): boolean => (sysctls.before(path) ?? sysctls.get(path)) === '0';

/** Turns off again what is wanted no more. */
export function closeForwarding(sysctls: Sysctls, wanted: Wanted): void {
  const keep = switches(sysctls, wanted);
  // What `beforeAll6` noted goes back with the one that changed it, and after it.
  const withAll6 = (path: string): boolean => /^net\/ipv6\/conf\/[^/]+\/(forwarding|accept_ra)$/.test(path);
  for (const path of sysctls.changed()) {
    const kept = withAll6(path) ? keep.includes(ALL6) : keep.includes(path);
    if (!kept) sysctls.restore(path);
  }
}

/** Turns on what is wanted. The firewall must know `openedBy(wanted)` by now. */
export function openForwarding(sysctls: Sysctls, wanted: Wanted): void {
  for (const path of switches(sysctls, wanted)) {
    if (path === ALL6 && sysctls.get(ALL6) === '0') beforeAll6(sysctls);
    sysctls.set(path, '1');
  }
}

/** `all` sets forwarding on every interface, and a router takes no advertisements unless accept_ra is 2: then this host would lose its route. */
function beforeAll6(sysctls: Sysctls): void {
  const names = sysctls.list('net/ipv6/conf').filter((name) => name !== 'all');
  sysctls.remember([ALL6, ...names.map((name) => `net/ipv6/conf/${name}/forwarding`)]);
  for (const name of names) {
    const path = `net/ipv6/conf/${name}/accept_ra`;
    if (sysctls.get(path) === '1' && sysctls.get(`net/ipv6/conf/${name}/forwarding`) === '0') sysctls.set(path, '2');
  }
}
