/**
 * What the node needs of the handshakes, in the node's own terms: `handshakes.ts` fills it from ts/handshake with this node's keys,
 * certificates and epoch, tests fill it with what they like.
 */
import type { PublicKey, VerifiedIdentity } from '../trust/index.js';

/** What both sides hold after a handshake. Keys are 32 bytes each. */
export interface Established {
  readonly peer: PublicKey;
  /** The verified certificate chain; absent on links whose far end showed none that we know. */
  readonly identity: VerifiedIdentity | undefined;
  /** Boot epoch of the far end's running program. */
  readonly epoch: bigint;
  readonly sendKey: Uint8Array;
  readonly receiveKey: Uint8Array;
  readonly hopSecret: Uint8Array;
  /** Binds later rekeys to this handshake, 32 bytes. */
  readonly binding: Uint8Array;
}

export interface EstablishedLink extends Established {
  /** The index that the far end wants in frames to it. */
  readonly peerIndex: number;
}

export interface LinkInitiation {
  /** Message 1, 1,232 bytes, to be repeated as it is until answered. */
  readonly datagram: Uint8Array;
  /** Takes a cookie reply; message 1 carries mac2 from then on. Returns whether the reply was ours. */
  cookie(reply: Uint8Array): boolean;
  /** Throws a ThicketError when message 2 isn't the answer. `behind`: our epoch is lower than the far end has seen. */
  finish(datagram: Uint8Array): EstablishedLink | { readonly behind: bigint };
}

export interface LinkResponse {
  readonly datagram: Uint8Array;
  /** Absent when the answer repeats an earlier one or refuses: nothing to install. */
  readonly established: EstablishedLink | undefined;
}

export interface SessionInitiation {
  /** Message 1, 1,148 bytes. */
  readonly message: Uint8Array;
  finish(message: Uint8Array): Established | { readonly behind: bigint };
}

export interface SessionResponse {
  readonly message: Uint8Array;
  readonly established: Established | undefined;
}

export interface RekeyInitiation {
  /** 400 bytes. */
  readonly message: Uint8Array;
  finish(message: Uint8Array): {
    readonly sendKey: Uint8Array;
    readonly receiveKey: Uint8Array;
    readonly hopSecret: Uint8Array;
    readonly peerIndex: number;
  };
}

export interface RekeyResponse {
  readonly message: Uint8Array;
  readonly sendKey: Uint8Array;
  readonly receiveKey: Uint8Array;
  readonly hopSecret: Uint8Array;
  readonly peerIndex: number;
}

/** Judges who calls: throws a typed refusal. */
export type Admit = (peer: PublicKey, identity: VerifiedIdentity | undefined) => void;

export interface Handshakes {
  initiateLink(remote: PublicKey, index: number): LinkInitiation;
  /** Throws a ThicketError for whatever must go unanswered; `admit` throws one too, before anything is answered or remembered. */
  respondLink(datagram: Uint8Array, index: number, admit: Admit): LinkResponse;
  /** `own`: the node's key or that of an endpoint hosted here. */
  initiateSession(own: PublicKey, remote: PublicKey): SessionInitiation;
  respondSession(own: PublicKey, message: Uint8Array, admit: Admit): SessionResponse;
  /** `index`: what the far end shall write into link frames under the new keys; 0 in sessions. */
  initiateRekey(own: PublicKey, remote: PublicKey, binding: Uint8Array, index: number): RekeyInitiation;
  respondRekey(own: PublicKey, remote: PublicKey, binding: Uint8Array, message: Uint8Array, index: number): RekeyResponse;
}
