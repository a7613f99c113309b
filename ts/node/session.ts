/** What sessions are to the rest of the node, and what they need of it. */
import type { Logger } from 'pino';
import type { DataPlane, Hop, Ingress, SessionId } from '../dataplane/data-plane.js';
import type { PublicKey, VerifiedIdentity } from '../trust/index.js';
import type { Clock, Milliseconds } from './clock.js';
import type { HandleSource } from './handles.js';
import type { Handshakes } from './ports.js';
import type { OfferedService } from './session-control.js';

export type SessionState = 'dialing' | 'up' | 'lost';

export interface Session {
  readonly id: SessionId;
  readonly own: PublicKey;
  readonly peer: PublicKey;
  readonly identity: VerifiedIdentity;
  readonly state: SessionState;
  /** Rekeys done since the session began. */
  readonly rekeys: number;
  /** What the far end lets us reach there, and whether it has told us yet. */
  readonly offered: readonly OfferedService[];
  readonly greeted: boolean;
  readonly since: Milliseconds;
  /** The hop by which our packets leave, for `trace`. */
  readonly egress: Hop | undefined;
  readonly ingress: Ingress | undefined;
}

/** How a path is set up and let go through the tree (ts/routing). */
export interface PathSetup {
  /**
   * Sends message 1 towards `destination`; calls back once: with the answer and the hops, or with the reason why not.
   * The returned function gives up.
   */
  open(destination: PublicKey, message: Uint8Array, done: (result: SetupResult) => void): () => void;
  /** A sealed close towards both neighbours of the path: relays free their labels. */
  close(ingress: Ingress, egress: Hop): void;
}

export type FailureReason = 'noRoute' | 'noParent' | 'unreachable' | 'timeout' | 'refused';

export type SetupResult =
  | { readonly ok: true; readonly message: Uint8Array; readonly ingress: Ingress; readonly egress: Hop }
  | { readonly ok: false; readonly reason: FailureReason };

/** Set-up that arrived for one of our keys: answer with the label that packets to us shall carry. */
export interface IncomingSetup {
  readonly destination: PublicKey;
  readonly message: Uint8Array;
  /** It replaces a path that ended here and carried packets. */
  readonly renews: boolean;
  /** The way back. */
  readonly egress: Hop;
  /** Picks our label and sends message 2; returns the ingress to install first. */
  readonly reserve: () => Ingress;
  readonly answer: (ingress: Ingress, message: Uint8Array) => void;
  /** Answers without a path; nothing is to be closed afterwards. */
  readonly refuse: (message: Uint8Array) => void;
}

export interface SessionsListener {
  /** Both ends admit each other: addresses, policy. Called before the first path is installed. */
  sessionOpened(session: Session): void;
  /** It came up, got another path or identity, or its far end told what it offers. */
  sessionUp(session: Session): void;
  sessionClosed(session: Session, reason: string): void;
  behind(own: PublicKey, epoch: bigint): void;
}

export interface SessionsOptions {
  readonly plane: DataPlane;
  readonly handshakes: () => Handshakes;
  readonly paths: PathSetup;
  readonly clock: Clock;
  readonly handles: HandleSource;
  readonly log: Logger;
  readonly listener: SessionsListener;
  readonly rekey: () => Milliseconds;
  /** Throws a typed refusal unless we admit this identity to sessions. */
  readonly admit: (identity: VerifiedIdentity) => void;
  /** What `session`'s far end may reach here, told to it in the hello. */
  readonly offer: (own: PublicKey, identity: VerifiedIdentity) => readonly OfferedService[];
  readonly isOwn: (key: PublicKey) => boolean;
}
