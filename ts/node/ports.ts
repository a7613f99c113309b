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
  /** What names the certificates that the far end showed, 16 bytes. */
  readonly chain: Uint8Array;
}

export interface EstablishedLink extends Established {
  /** The index that the far end wants in frames to it. */
  readonly peerIndex: number;
  /** The far end renews the link that stands: its labels go on. */
  readonly renews: boolean;
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

export interface RekeyKeys {
  readonly sendKey: Uint8Array;
  readonly receiveKey: Uint8Array;
  readonly hopSecret: Uint8Array;
  readonly peerIndex: number;
  /** What names the certificates that the far end shows now. */
  readonly chain: Uint8Array;
}

export interface RekeyInitiation {
  /** 400 bytes. */
  readonly message: Uint8Array;
  /** `sendAll`: the far end doesn't know our certificates; a first handshake shows them. */
  finish(message: Uint8Array): RekeyKeys | 'sendAll';
}

export interface RekeyResponse {
  readonly message: Uint8Array;
  /** Absent when the answer only asks for certificates. */
  readonly keys: RekeyKeys | undefined;
}

/** Judges who calls: throws a typed refusal. */
export type Admit = (peer: PublicKey, identity: VerifiedIdentity | undefined) => void;

/** Judges who calls over a link; `call` tells what its program says of itself. */
export type AdmitLink = (
  peer: PublicKey,
  identity: VerifiedIdentity | undefined,
  call: { readonly epoch: bigint; readonly renews: boolean },
) => void;

export interface Handshakes {
  /** What names the certificates that one of our keys shows now. Throws NO_KEY. */
  shown(own: PublicKey): Uint8Array;
  /** `renews`: over a link that stands, to show other certificates. */
  initiateLink(remote: PublicKey, index: number, renews?: boolean): LinkInitiation;
  /** Throws a ThicketError for whatever must go unanswered; `admit` throws one too, before anything is answered or remembered. */
  respondLink(datagram: Uint8Array, index: number, admit: AdmitLink): LinkResponse;
  /** `own`: the node's key or that of an endpoint hosted here. */
  initiateSession(own: PublicKey, remote: PublicKey): SessionInitiation;
  /** `reads`: called with the caller's X25519 key, when no more than that has been computed; throws a refusal. */
  respondSession(own: PublicKey, message: Uint8Array, admit: Admit, reads?: (agreementKey: Uint8Array) => void): SessionResponse;
  /** `index`: what the far end shall write into link frames under the new keys; 0 in sessions. */
  initiateRekey(own: PublicKey, remote: PublicKey, binding: Uint8Array, index: number): RekeyInitiation;
  /** `chain`: what names the certificates that the far end last showed. */
  respondRekey(
    own: PublicKey,
    remote: PublicKey,
    binding: Uint8Array,
    message: Uint8Array,
    index: number,
    chain: Uint8Array,
  ): RekeyResponse;
}
