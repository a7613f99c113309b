/** The kernel's control plane as Thicket sees it; `loadKernel` gives one. Nothing here blocks the event loop. */

/** Who made a route or rule, in the kernel's tables (`ip route` prints it as `proto 116`): what bears this number is Thicket's. */
export const ROUTE_PROTOCOL = 116;

export interface KernelLink {
  readonly index: number;
  readonly name: string;
  readonly mtu: number;
  readonly up: boolean;
}

export interface LinkChange {
  readonly up?: boolean;
  readonly mtu?: number;
  /** Segments of a super-packet at most (1 to 65,535). */
  readonly gsoMaxSegments?: number;
  /** Packets (super-packets count once) that may wait for whoever reads the interface. */
  readonly transmitQueue?: number;
  /** False: no IPv6 link-local address but what somebody adds. */
  readonly generateAddresses?: boolean;
}

export interface InterfaceAddress {
  readonly interface: string;
  readonly address: string;
  readonly prefix: number;
}

export type RouteType =
  | 'unicast'
  | 'local'
  | 'broadcast'
  | 'anycast'
  | 'multicast'
  | 'blackhole'
  | 'unreachable'
  | 'prohibit'
  | 'throw'
  | 'other';

export interface NewRoute {
  /** `198.18.0.0/15` */
  readonly destination: string;
  /** Default unicast. */
  readonly type?: RouteType;
  readonly interface?: string;
  readonly gateway?: string;
  /** The source address of packets that have none yet. */
  readonly source?: string;
  /** Default 0; IPv6 makes 1024 of that. */
  readonly metric?: number;
  /** Default 254, main. */
  readonly table?: number;
  readonly protocol: number;
}

export interface Route extends NewRoute {
  readonly type: RouteType;
  readonly metric: number;
  readonly table: number;
}

/** Which way the kernel would send a packet from this host now. */
export interface RouteChoice {
  readonly source: string;
  readonly interface: string;
  readonly gateway?: string;
}

export interface Rule {
  readonly family: 4 | 6;
  readonly priority: number;
  readonly from?: string;
  readonly to?: string;
  readonly input?: string;
  readonly output?: string;
  readonly mark?: number;
  /** Default lookup. */
  readonly action?: 'lookup' | 'goto' | 'nop' | 'blackhole' | 'unreachable' | 'prohibit' | 'other';
  readonly table?: number;
  readonly protocol?: number;
}

export interface FlowTuple {
  readonly source: string;
  readonly destination: string;
  /** 6 TCP, 17 UDP, 1 ICMP, 58 ICMPv6. */
  readonly protocol: number;
  /** 0 where the protocol has no ports. */
  readonly sourcePort: number;
  readonly destinationPort: number;
}

/** A tracked connection. */
export interface Flow {
  readonly original: FlowTuple;
  readonly reply: FlowTuple;
  /** Bits of the kernel's `enum ip_conntrack_status`. */
  readonly status: number;
}

/** By a flow's original direction; what is absent matches all. */
export interface FlowFilter {
  readonly source?: string;
  readonly destination?: string;
  readonly protocol?: number;
  readonly destinationPort?: number;
}

/**
 * Every promise rejects with a ThicketError: NO_PRIVILEGE where CAP_NET_ADMIN is missing, NO_ROUTE from `routeTo`, NFT_MISSING and NFT_FAILED from
 * `nft`, else NETLINK.
 */
export interface KernelNet {
  links(): Promise<readonly KernelLink[]>;
  setLink(name: string, change: LinkChange): Promise<void>;
  addresses(): Promise<readonly InterfaceAddress[]>;
  /** `prefix` as `198.18.0.2/32`. The address serves at once, and brings no route of its prefix. */
  addAddress(name: string, prefix: string): Promise<void>;
  /** Also resolves when it isn't there. */
  deleteAddress(name: string, prefix: string): Promise<void>;
  /** All routes of all tables; with `overlapping`, those that have an address in common with one of these prefixes. */
  routes(overlapping?: readonly string[]): Promise<readonly Route[]>;
  /** Resolves with whether it was added: false when there is one with this destination and metric. */
  addRoute(route: NewRoute): Promise<boolean>;
  /** Also resolves when it isn't there. */
  deleteRoute(route: NewRoute): Promise<void>;
  routeTo(host: string): Promise<RouteChoice>;
  rules(): Promise<readonly Rule[]>;
  addRule(rule: Rule): Promise<boolean>;
  deleteRule(rule: Rule): Promise<void>;
  /** Tracked connections that match one of the filters. */
  flows(filters: readonly FlowFilter[]): Promise<readonly Flow[]>;
  /** Makes the kernel forget those; resolves with how many, once it has acknowledged each. */
  deleteFlows(filters: readonly FlowFilter[]): Promise<number>;
  /** Runs nft commands as one transaction: all of them or, when one is refused, none. Resolves with what they print. */
  nft(commands: string): Promise<string>;
}
