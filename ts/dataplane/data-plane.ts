/**
 * The seam between deciding and moving: TypeScript decides, a `DataPlane` moves packets.
 *
 * Every command is fire-and-forget and ordered; what the packets cause comes back as batches of events. Handles (links, paths,
 * sessions) and labels are chosen by TypeScript, so no command needs an answer. A command that names something unknown is ignored and
 * counted under `staleCommand`: the thing may have just been closed. No data packet ever crosses this interface on the native backend.
 */

import type { Duplex } from 'node:stream';
import type { UserSpace, UserSpaceOptions, UserSpaceStats } from './userspace.js';

declare const brand: unique symbol;
type Brand<T, B extends string> = T & { readonly [brand]: B };

/** Local handle of one adjacent node, u32, chosen by TypeScript, stable over rekeys and reconnects of that neighbour. */
export type LinkId = Brand<number, 'LinkId'>;
/** Local handle of one set-up path (one session handshake: a label pair, a key space of its own), u32. */
export type PathId = Brand<number, 'PathId'>;
/** Local handle of one session (a pair of keys: ours and theirs), u32; outlives its paths. */
export type SessionId = Brand<number, 'SessionId'>;
/** 32-bit path label, 256 … 2^32 − 1, random, unique at the node that receives it. */
export type Label = Brand<number, 'Label'>;
/** Local number of one set of link keys on one link (one handshake or rekey), u32, strictly rising per link. */
export type Generation = Brand<number, 'Generation'>;

export interface SocketAddress {
  /** Numeric IPv4 or IPv6 address (v4-mapped never appears; the data plane unmaps). */
  readonly host: string;
  readonly port: number;
  /**
   * Which of our own addresses it talks to, where we listen on several: handed back with the rest, what we answer leaves from there. No part
   * of what the neighbour's address is.
   */
  readonly local?: string;
}

export interface Listen {
  readonly host: string;
  readonly port: number;
}

export interface TunOptions {
  /** Interface name, at most 15 bytes. The data plane creates the device; addresses and routes are the kernel addon's work. */
  readonly name: string;
  /** `auto`: virtio headers with every offload that the kernel takes; `off`: plain packets. */
  readonly offload: 'auto' | 'off';
}

export interface DataPlaneOptions {
  /** Our own public key (32 bytes): what mac1 and cookies are keyed by. */
  readonly nodeKey: Uint8Array;
  /** Empty on a leaf: then one unconnected dual-stack socket on an ephemeral port, and handshake initiations are dropped unread. */
  readonly listen: readonly Listen[];
  /** Absent: no kernel interface (user-space mode, relays). */
  readonly tun?: TunOptions;
  /** Instead of `tun`: a TCP/IP host of our own stands where the kernel's would. With neither, no packet leaves or enters a session here (relays). */
  readonly userspace?: UserSpaceOptions;
  /** `auto` (the default): trains of packets are sealed in the processor's vector lanes where it has them; `ring`: never. Native backend only. */
  readonly aead?: 'auto' | 'ring';
  /** Threads that move packets; `auto` (the default): one for each processor. Native backend only. */
  readonly threads?: 'auto' | number;
}

export interface LinkKeys {
  readonly link: LinkId;
  readonly generation: Generation;
  /** Index into `DataPlane.sockets`. */
  readonly socket: number;
  readonly remote: SocketAddress;
  /** True at the node that sent handshake message 1 of the link's first generation (the child). Fixes directions in hop keys. */
  readonly initiator: boolean;
  /** Chosen by us, random u32, unique among our live link keys: peers write it into frames for us. */
  readonly receiveIndex: number;
  readonly sendIndex: number;
  readonly sendKey: Uint8Array;
  readonly receiveKey: Uint8Array;
  /** 32 bytes from which hop keys of labels announced under this generation are derived. */
  readonly hopSecret: Uint8Array;
  /**
   * True (handshake initiator): send under these keys from now on. False (responder): receive only; the first valid frame under
   * them switches sending and is reported as `linkConfirmed`. A link that was never up is where that frame came from; one that was stays
   * where it is, and when that is elsewhere `linkRoamed` follows. Keys that nobody replaces seal and open nothing after 180 s.
   */
  readonly confirmed: boolean;
}

/** Where packets go next: the label that `link`'s far end picked, announced to us in a frame under `generation`. */
export interface Hop {
  readonly link: LinkId;
  readonly label: Label;
  readonly generation: Generation;
}

/** What we picked: packets carrying `label` come in over `link`; we announced it in a frame under `generation`. */
export type Ingress = Hop;

export interface PathKeys {
  readonly path: PathId;
  readonly session: SessionId;
  readonly ingress: Ingress;
  readonly egress: Hop;
  readonly sendKey: Uint8Array;
  readonly receiveKey: Uint8Array;
  /** As for links: true at the session handshake's initiator. The session sends over its newest confirmed path. */
  readonly confirmed: boolean;
}

/**
 * The local addresses by which the kernel knows a session. Text form. `sessionOpen` again for the same session adds another pair (an
 * alias: one key may be reached by its key address and by several names, each with an address of its own) unless that pair is there
 * already. Flows remember the pair that they were opened with; flows opened by the remote side get the first pair.
 */
export interface SessionAddresses {
  readonly session: SessionId;
  /** Ours: the node's own address (viewer) or the endpoint's (gateway). */
  readonly own4?: string;
  readonly own6?: string;
  /** The remote key's (or name's) address in our pool. */
  readonly peer4?: string;
  readonly peer6?: string;
}

export type Protocol = 'tcp' | 'udp';

/**
 * One line of a session's compiled policy: what the remote side may reach at our side. With a TUN, NAT makes the way to `target`. In user-space mode the data plane
 * connects an ordinary socket to it before it answers the caller, who so sees the device's refusal, or its silence, as its own; a UDP flow has a socket
 * of its own, until nothing has passed for 60 s (180 s once the device has answered).
 */
export interface AllowedService {
  readonly protocol: Protocol;
  readonly port: number;
  /** Family in which packets for this service are handed to the TUN, or the host in its place: that of its target. */
  readonly family: 4 | 6;
  /** Absent only where `local`. */
  readonly target?: SocketAddress;
  /** User-space mode, TCP: this program itself answers, by an `incoming` event for each stream. */
  readonly local?: true;
  /** Present: the RTSP helper watches flows to this service. `lan` is our address on the device's LAN (media ports are reserved on it). */
  readonly rtsp?: { readonly lan: string };
  /** Index for accounting (`stats().services`), u32, chosen by TypeScript. */
  readonly account: number;
}

export interface SessionPolicy {
  readonly session: SessionId;
  /** Replaces the whole list; flows that it no longer allows are cut. */
  readonly inbound: readonly AllowedService[];
  /** Whether local programs may open flows to the remote side (viewer). Replies to inbound flows always may pass. */
  readonly outbound: boolean;
  /** Echo requests from the remote side are delivered (it has at least one allowed service here). */
  readonly echo: boolean;
  /** Ports at the remote side that it names `proto: rtsp`: the viewer's core opens media ports for these flows only. */
  readonly rtspPorts: readonly number[];
}

export type DataPlaneEvent =
  /** A handshake datagram (types 1 to 3) that passed the gates: exact length, mac1, cookie when loaded, rate. */
  | { readonly type: 'handshake'; readonly socket: number; readonly from: SocketAddress; readonly bytes: Uint8Array }
  | {
      readonly type: 'linkFrame';
      readonly link: LinkId;
      readonly generation: Generation;
      readonly socket: number;
      readonly from: SocketAddress;
      readonly bytes: Uint8Array;
    }
  | { readonly type: 'linkConfirmed'; readonly link: LinkId; readonly generation: Generation; readonly from: SocketAddress }
  /**
   * A valid link frame with the highest counter yet came from another address (or to another of ours): probe it (`linkSend` with `to`), then
   * `linkMove`.
   */
  | { readonly type: 'linkRoamed'; readonly link: LinkId; readonly socket: number; readonly from: SocketAddress }
  | { readonly type: 'pathConfirmed'; readonly session: SessionId; readonly path: PathId }
  | { readonly type: 'pathKeyConfirmed'; readonly session: SessionId; readonly path: PathId; readonly slot: number }
  | { readonly type: 'sessionControl'; readonly session: SessionId; readonly path: PathId; readonly bytes: Uint8Array }
  /** A program sent to a pool address that has no session (rate-limited per pair). */
  | { readonly type: 'sessionNeeded'; readonly own: string; readonly peer: string }
  /** A packet with an unknown label came from a live link's address (rate-limited): tell that neighbour. */
  | { readonly type: 'labelUnknown'; readonly link: LinkId; readonly label: Label }
  /** A relay's label was freed: nothing valid came under it for 10 minutes (20 seconds where nothing ever did). */
  | { readonly type: 'labelExpired'; readonly link: LinkId; readonly label: Label }
  /** The far end refused a flow of ours, sealed and with a reason; the local program has been told (reset or ICMP error). */
  | {
      readonly type: 'flowDenied';
      readonly session: SessionId;
      readonly protocol: Protocol;
      readonly port: number;
      readonly reason: number;
    }
  /**
   * User-space mode: a caller's stream to a `local` service, connected. Who calls is the session's far end; `peer` is its address in our pool. Nobody takes it:
   * destroy it.
   */
  | {
      readonly type: 'incoming';
      readonly session: SessionId;
      readonly account: number;
      readonly peer: string;
      readonly peerPort: number;
      readonly stream: Duplex;
    }
  /** A path's counter passed 2^60 under one key: rekey it now. */
  | { readonly type: 'rekeyNeeded'; readonly session: SessionId; readonly path: PathId }
  /** A line for the log, from the data plane itself (never a packet's content, never a key). */
  | { readonly type: 'log'; readonly level: 'debug' | 'info' | 'warn' | 'error'; readonly message: string }
  /** The TUN or a socket died for good; the node stops. */
  | { readonly type: 'fatal'; readonly message: string };

export interface LinkStats {
  readonly link: LinkId;
  readonly rxBytes: bigint;
  readonly txBytes: bigint;
  readonly rxPackets: bigint;
  readonly txPackets: bigint;
  /** Monotonic milliseconds since anything valid came in over the link. */
  readonly idleMs: number;
}

export interface SessionStats {
  readonly session: SessionId;
  readonly rxBytes: bigint;
  readonly txBytes: bigint;
  readonly rxPackets: bigint;
  readonly txPackets: bigint;
  readonly flows: number;
  /** Milliseconds since a valid packet came in, −1 for never. */
  readonly idleMs: number;
  /** Milliseconds since a data packet went out, −1 for never. */
  readonly sentMs: number;
  /** Bytes of the longest IP packet that its path carries, as the first link sees it; 0 before anything long was sent (then nothing is probed). */
  readonly pathMtu: number;
}

export interface ServiceStats {
  readonly account: number;
  readonly payloadBytes: bigint;
  readonly overheadBytes: bigint;
}

export interface DataPlaneStats {
  readonly links: readonly LinkStats[];
  readonly sessions: readonly SessionStats[];
  readonly services: readonly ServiceStats[];
  /** Data packets forwarded by label for others. */
  readonly relay: { readonly packets: bigint; readonly bytes: bigint; readonly labels: number };
  /** Streams set up by RTSP whose datagrams may pass now, at a gateway or at a viewer. */
  readonly media: number;
  readonly ledger: { readonly payload: bigint; readonly overhead: bigint; readonly control: bigint; readonly keepAlive: bigint };
  /** How full trains are: so many calls of the AEAD had 1, 2–3, 4–7, 8–15, 16–31, 32–63, and 64 or more packets. */
  readonly trains: { readonly sealed: readonly bigint[]; readonly opened: readonly bigint[] };
  /** In user-space mode. */
  readonly userspace?: UserSpaceStats;
  /** Dropped packets by reason; the reasons are listed in native/core's `DropReason`. */
  readonly drops: Readonly<Record<string, bigint>>;
}

export interface DataPlane {
  readonly backend: 'native' | 'wasm';
  /** Bound addresses, in the order of `listen` (or the single ephemeral one). */
  readonly sockets: readonly SocketAddress[];
  /** The TUN's real name and what it offloads, for `status`. */
  readonly tun: { readonly name: string; readonly offload: string } | undefined;
  /** Present when opened with `userspace`: the local programs' way into sessions, which with a TUN is the kernel. */
  readonly userspace: UserSpace | undefined;

  /** Sends one datagram as it is: handshake messages only. */
  sendHandshake(socket: number, to: SocketAddress, bytes: Uint8Array): void;

  linkInstall(keys: LinkKeys): void;
  /** Seals and sends one control frame (at most 1,200 bytes) under the given or the current generation; `to` for address probes. */
  linkSend(
    link: LinkId,
    frame: Uint8Array,
    options?: {
      readonly generation?: Generation;
      readonly to?: { readonly socket: number; readonly remote: SocketAddress };
      readonly keepAlive?: boolean;
    },
  ): void;
  linkMove(link: LinkId, socket: number, remote: SocketAddress): void;
  linkRetire(link: LinkId, generation: Generation): void;
  /** Forgets the link, its keys and every label over it (both directions). */
  linkRemove(link: LinkId): void;

  /** Relay: packets with `ingress.label` go out over `egress`. One direction; a path through a relay is two of these. */
  labelForward(ingress: Ingress, egress: Hop): void;
  labelRemove(label: Label): void;

  sessionOpen(addresses: SessionAddresses): void;
  /** Takes one alias away again (a name moved to another key); its flows are cut. */
  sessionAliasRemove(addresses: SessionAddresses): void;
  sessionPolicy(policy: SessionPolicy): void;
  /** Installs a new path with its own keys, counters and replay window; older paths still receive until `pathRemove`. */
  pathInstall(keys: PathKeys): void;
  /** Rekey inside a path: `slot` (0–3, the counter's two top bits) gets new keys; the counter goes on. */
  pathRekey(path: PathId, slot: number, sendKey: Uint8Array, receiveKey: Uint8Array, confirmed: boolean): void;
  /** Forgets a slot's keys after their overlap. */
  pathRetire(path: PathId, slot: number): void;
  pathRemove(path: PathId): void;
  /** Seals one session control packet (at most 1,192 bytes) over the session's current path, or the given one. */
  sessionSend(session: SessionId, bytes: Uint8Array, path?: PathId): void;
  /** Forgets the session, its paths, labels and flows. */
  sessionRemove(session: SessionId): void;

  /** Counters, summed now. */
  stats(): DataPlaneStats;
  close(): Promise<void>;
}

export type OnEvents = (events: readonly DataPlaneEvent[]) => void;
