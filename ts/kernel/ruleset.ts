/**
 * The nft table that fences the overlay off, as text. All that comes from outside is an address, a prefix or a number in canonical form, or an
 * interface name in quotes, so that no text becomes a command.
 */
import ipaddr from 'ipaddr.js';
import { ThicketError } from '../errors.js';

/** Interfaces that we turned forwarding on for. Packets they bring that aren't the overlay's are not forwarded, as before. */
export interface Opened {
  readonly v4: readonly string[];
  /** `all`: the kernel can turn IPv6 forwarding on for all interfaces only. */
  readonly v6: readonly string[] | 'all';
}

export interface Fence {
  readonly interface: string;
  readonly pool4: string;
  readonly pool6: string | undefined;
  readonly own4: string;
  readonly own6: string | undefined;
  readonly dnsPort: number;
}

export interface ServiceElement {
  readonly endpoint: string;
  readonly protocol: 'tcp' | 'udp';
  readonly port: number;
  readonly target: { readonly host: string; readonly port: number };
}

export interface EchoElement {
  readonly endpoint: string;
  readonly target: string;
}

/** One family's DNAT. */
export interface Maps {
  readonly services: readonly ServiceElement[];
  readonly echo: readonly EchoElement[];
}

/**
 * The table's name: `thicket` for the default interface, else with the interface's name, so that two nodes in one namespace each have their
 * own. What nft doesn't take in a name is written as `_` and its code, so no two interfaces share one.
 */
export function tableName(name: string): string {
  if (name === 'thicket0') return 'thicket';
  return `thicket_${[...name].map((c) => (/[A-Za-z0-9]/.test(c) ? c : `_${(c.codePointAt(0) ?? 0).toString(16)}_`)).join('')}`;
}

/** How long a media sender may send after the last TCP segment to it. */
const MEDIA = '10m';

/** Replaces the whole table, whether there was one or not. `dialled`: peers that local programs have TCP connections to (see `input`). */
export function tableCommands(fence: Fence, opened: Opened, dialled: readonly string[]): string {
  const table = tableName(fence.interface);
  const tun = quote(fence.interface);
  const { pool4, pool6, own4, own6 } = fence;
  const six = (line: string): string => (pool6 === undefined ? '' : line);
  const sixOwn = (line: string): string => (own6 === undefined ? '' : line);
  const dialled4 = dialled.filter((address) => !address.includes(':'));
  const dialled6 = dialled.filter((address) => address.includes(':'));
  return `
add table inet ${table}
delete table inet ${table}
table inet ${table} {
  map services4 { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }
  map services6 { type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service; }
  map echo4 { type ipv4_addr : ipv4_addr; }
  map echo6 { type ipv6_addr : ipv6_addr; }
  set dialled4 { type ipv4_addr; size 65535; flags dynamic,timeout; timeout ${MEDIA}; ${elements(dialled4)} }
  set dialled6 { type ipv6_addr; size 65535; flags dynamic,timeout; timeout ${MEDIA}; ${elements(dialled6)} }

  # The host answers on every interface for every address of its own (weak host model): local addresses mean something on lo and the TUN only.
  # Before conntrack, which would undo NAT.
  chain guard {
    type filter hook prerouting priority raw; policy accept;
    iifname "lo" accept
    iifname ${tun} goto from_overlay
    ip daddr ${pool4} counter drop comment "to the pool from elsewhere"
    ip saddr ${pool4} counter drop comment "from the pool by elsewhere"
    ${six(`ip6 daddr ${pool6} counter drop comment "to the pool from elsewhere"`)}
    ${six(`ip6 saddr ${pool6} counter drop comment "from the pool by elsewhere"`)}
  }
  chain from_overlay {
    ip saddr ${pool4} ip daddr ${pool4} accept
    ${six(`ip6 saddr ${pool6} ip6 daddr ${pool6} accept`)}
    counter drop comment "not between local addresses"
  }

  chain to_devices {
    type nat hook prerouting priority dstnat; policy accept;
    iifname != ${tun} accept
    dnat ip to ip daddr . meta l4proto . th dport map @services4
    dnat ip6 to ip6 daddr . meta l4proto . th dport map @services6
    icmp type echo-request dnat ip to ip daddr map @echo4
    icmpv6 type echo-request dnat ip6 to ip6 daddr map @echo6
  }
  chain as_gateway {
    type nat hook postrouting priority srcnat; policy accept;
    oifname { "lo", ${tun} } accept
    ip saddr ${pool4} ct status dnat masquerade
    ${six(`ip6 saddr ${pool6} ct status dnat masquerade`)}
  }

  # RTSP's UDP media comes to the program that asked for it over TCP without a packet of its own before; the data plane lets only such ports
  # pass, and this only senders that are being talked to. Everything else of this host is not the overlay's to reach, the DNS server least.
  chain input {
    type filter hook input priority filter; policy accept;
    iifname != ${tun} accept
    ip daddr ${own4} meta l4proto { tcp, udp } th dport ${fence.dnsPort} counter drop comment "DNS"
    ${sixOwn(`ip6 daddr ${own6} meta l4proto { tcp, udp } th dport ${fence.dnsPort} counter drop comment "DNS"`)}
    ct state established,related accept
    ct status dnat accept
    ip daddr ${own4} ip saddr @dialled4 udp dport >= 1024 accept
    ${sixOwn(`ip6 daddr ${own6} ip6 saddr @dialled6 udp dport >= 1024 accept`)}
    counter drop comment "overlay to this host"
  }

  chain forward {
    type filter hook forward priority filter; policy accept;
    iifname ${tun} ct status dnat accept
    iifname ${tun} counter drop comment "overlay to the LAN"
    oifname ${tun} ct state established,related accept
    oifname ${tun} counter drop comment "LAN to the overlay"
    jump opened
  }
  chain opened {
    ${openedRules(opened).join('\n    ')}
  }

  # Whatever policy routing or somebody's route says: local addresses leave by no other interface, and nothing else by the TUN.
  chain egress {
    type filter hook postrouting priority 300; policy accept;
    oifname "lo" accept
    oifname ${tun} goto to_overlay
    ip daddr ${pool4} counter drop comment "to the pool by elsewhere"
    ip saddr ${pool4} counter drop comment "from the pool to elsewhere"
    ${six(`ip6 daddr ${pool6} counter drop comment "to the pool by elsewhere"`)}
    ${six(`ip6 saddr ${pool6} counter drop comment "from the pool to elsewhere"`)}
  }
  chain to_overlay {
    ip saddr ${own4} meta l4proto tcp update @dialled4 { ip daddr }
    ${sixOwn(`ip6 saddr ${own6} meta l4proto tcp update @dialled6 { ip6 daddr }`)}
    ip daddr ${pool4} accept
    ${six(`ip6 daddr ${pool6} accept`)}
    counter drop comment "not the overlay's"
  }
}
`;
}

/** Replaces what the maps say and which interfaces are opened, at once. */
export function serviceCommands(name: string, v4: Maps, v6: Maps, opened: Opened): string {
  const table = `inet ${tableName(name)}`;
  return [
    ...mapCommands(table, 'services4', v4.services.map(serviceText)),
    ...mapCommands(table, 'services6', v6.services.map(serviceText)),
    ...mapCommands(table, 'echo4', v4.echo.map(echoText)),
    ...mapCommands(table, 'echo6', v6.echo.map(echoText)),
    `flush chain ${table} opened`,
    ...openedRules(opened).map((rule) => `add rule ${table} opened ${rule}`),
  ].join('\n');
}

/** Takes the table away, if it is there. */
export function removeCommands(name: string): string {
  const table = tableName(name);
  return `add table inet ${table}\ndelete table inet ${table}`;
}

function mapCommands(table: string, map: string, contents: readonly string[]): string[] {
  const flush = `flush map ${table} ${map}`;
  return contents.length === 0 ? [flush] : [flush, `add element ${table} ${map} { ${contents.join(', ')} }`];
}

function serviceText({ endpoint, protocol, port, target }: ServiceElement): string {
  return `${canonical(endpoint)} . ${protocol} . ${port} : ${canonical(target.host)} . ${target.port}`;
}

function echoText({ endpoint, target }: EchoElement): string {
  return `${canonical(endpoint)} : ${canonical(target)}`;
}

function openedRules({ v4, v6 }: Opened): string[] {
  const rules: string[] = [];
  const comment = 'counter drop comment "forwarding was off"';
  if (v4.length > 0) rules.push(`meta nfproto ipv4 iifname { ${v4.map(quote).join(', ')} } ${comment}`);
  if (v6 === 'all') rules.push(`meta nfproto ipv6 ${comment}`);
  else if (v6.length > 0) rules.push(`meta nfproto ipv6 iifname { ${v6.map(quote).join(', ')} } ${comment}`);
  return rules;
}

const elements = (addresses: readonly string[]): string =>
  addresses.length === 0 ? '' : `elements = { ${addresses.map(canonical).join(', ')} }`;

const canonical = (address: string): string => ipaddr.parse(address).toString();

/** An interface's name as nft reads it: no quotes or backslashes, no `*` at its end, which would match others. */
function quote(name: string): string {
  if (!/^[\w.:@+-]{1,15}$/.test(name)) {
    throw new ThicketError('NFT_FAILED', `the interface name '${name}' can't stand in a firewall rule: rename the interface`);
  }
  return `"${name}"`;
}
