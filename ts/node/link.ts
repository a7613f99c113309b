/** What links are to the rest of the node, and what they need of it. */
import type { Logger } from 'pino';
import type { DataPlane, Generation, LinkId, SocketAddress } from '../dataplane/data-plane.js';
import type { PublicKey, VerifiedIdentity } from '../trust/index.js';
import type { Clock, Milliseconds } from './clock.js';
import type { HandleSource } from './handles.js';
import type { Handshakes } from './ports.js';

export type LinkRole = 'parent' | 'child';

/** A parent as configured: `udp://host:port#key`. */
export interface ParentAddress {
  readonly host: string;
  readonly port: number;
  readonly key: PublicKey;
}

/** A neighbour with live keys. */
export interface Link {
  readonly id: LinkId;
  readonly key: PublicKey;
  readonly role: LinkRole;
  /** Undefined, too, once its certificate has expired. */
  readonly identity: VerifiedIdentity | undefined;
  /** What we send under. */
  readonly generation: Generation;
  readonly remote: SocketAddress;
  readonly socket: number;
  /** Boot epoch of the neighbour's running program. */
  readonly epoch: bigint;
  readonly rtt: Milliseconds | undefined;
  readonly since: Milliseconds;
}

export interface LinksListener {
  /** Keys agreed with a neighbour; `restarted`: it, or the link, is new, and labels over an earlier one are void. */
  linkUp(link: Link, restarted: boolean): void;
  linkDown(link: Link, reason: string): void;
  /** Over a link that stands other certificates were shown, or the neighbour's has expired: it may have other rights now. */
  linkRenewed(link: Link): void;
  /** A control frame other than liveness and rekey, which are answered here. */
  linkFrame(link: Link, generation: Generation, frame: Uint8Array): void;
  /** Our boot epoch is behind what a neighbour has seen (a restored state directory): jump ahead. */
  behind(epoch: bigint): void;
}

export interface LinksOptions {
  readonly plane: DataPlane;
  readonly handshakes: () => Handshakes;
  readonly self: PublicKey;
  readonly clock: Clock;
  readonly handles: HandleSource;
  readonly log: Logger;
  readonly listener: LinksListener;
  /** Interval between rekeys of a link. */
  readonly rekey: () => Milliseconds;
  /** Throws a typed refusal unless we take this child: relay rules, caps. Asked when it calls, again when it proves to be there, and by `judge`. */
  readonly accept: (peer: PublicKey, identity: VerifiedIdentity | undefined, from: SocketAddress) => void;
}
