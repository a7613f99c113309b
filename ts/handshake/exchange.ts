/**
 * Thicket's three uses of Noise IK: links, sessions, and rekeys inside either. Messages have fixed sizes; the prologue binds protocol version, kind and responder
 * (and, in a rekey, the handshake that it renews).
 */
import { ThicketError } from '../errors.js';
import { agreementKey, equalBytes, type KeyPair, keyBytes, type PublicKey, sodium } from '../trust/index.js';
import { concat, Initiator, Responder, type Transport } from './noise.js';
import {
  decodeBehind,
  decodeIdentity,
  decodeRekey,
  decodeRekeyAnswer,
  encodeBehind,
  encodeIdentity,
  encodeRekey,
  encodeSendAll,
  type IdentityPayload,
} from './payload.js';

/** Sizes of the Noise messages, bytes. */
export const SIZES = {
  link: { first: 1_192, second: 1_188 },
  session: { first: 1_148, second: 1_148 },
  rekey: { first: 400, second: 400 },
} as const;

const VERSION = 1;
const OVERHEAD_1 = 96;
const OVERHEAD_2 = 48;

export type ExchangeKind = 'link' | 'session';

/** Features of message 1: this handshake renews a link that stands, and its labels with it. */
export const RENEWS = 1;

/** What we show of ourselves. */
export interface Own {
  readonly pair: KeyPair;
  readonly chain: readonly Uint8Array[];
  readonly grant: Uint8Array | undefined;
  readonly epoch: bigint;
}

/** Keys that both sides hold. */
export interface Keys {
  readonly sendKey: Uint8Array;
  readonly receiveKey: Uint8Array;
  readonly hopSecret: Uint8Array;
  /** Names this handshake in later rekeys, 32 bytes. */
  readonly binding: Uint8Array;
}

export type Answer = { readonly keys: Keys; readonly peer: IdentityPayload } | { readonly behind: bigint };

function prologue(kind: ExchangeKind | 'rekey', responder: PublicKey, binding?: Uint8Array): Uint8Array {
  const label = new TextEncoder().encode(`thicket ${VERSION} ${kind}\0`);
  return binding === undefined ? concat(label, keyBytes(responder)) : concat(label, keyBytes(responder), binding);
}

function dhPair(pair: KeyPair): { readonly publicKey: Uint8Array; readonly secret: Uint8Array } {
  return { publicKey: agreementKey(pair.publicKey), secret: pair.agreementSecret() };
}

function keysOf(transport: Transport): Keys {
  return {
    sendKey: transport.send,
    receiveKey: transport.receive,
    hopSecret: sodium.crypto_generichash(32, new TextEncoder().encode('thicket hop secret'), transport.chainingKey),
    binding: transport.handshakeHash.slice(0, 32),
  };
}

function exactly(message: Uint8Array, size: number): void {
  if (message.length !== size) throw new ThicketError('BAD_HANDSHAKE', `a message of ${size} bytes is wanted`);
}

/** A first handshake that we begin. */
export class Call {
  readonly message: Uint8Array;
  readonly #kind: ExchangeKind;
  readonly #remote: PublicKey;
  readonly #noise: Initiator;

  constructor(kind: ExchangeKind, own: Own, remote: PublicKey, features = 0) {
    this.#kind = kind;
    this.#remote = remote;
    this.#noise = new Initiator(prologue(kind, remote), dhPair(own.pair), agreementKey(remote));
    const size = SIZES[kind].first - OVERHEAD_1;
    this.message = this.#noise.writeMessage1((transcript) => encodeIdentity(own.pair, { ...own, features }, transcript, size));
  }

  /** Throws BAD_HANDSHAKE, BAD_ENCODING, BAD_SIGNATURE or WRONG_KEY. Good for one answer. */
  finish(message: Uint8Array): Answer {
    exactly(message, SIZES[this.#kind].second);
    const { payload, transcript, transport } = this.#noise.readMessage2(message);
    const behind = decodeBehind(payload, this.#remote, transcript);
    if (behind !== undefined) return { behind };
    const peer = decodeIdentity(payload, transcript);
    if (peer.key !== this.#remote) throw new ThicketError('WRONG_KEY', 'another key answered');
    return { keys: keysOf(transport), peer };
  }
}

/** A first handshake that somebody else begins, read in stages. */
export class Callee {
  readonly #kind: ExchangeKind;
  readonly #own: Own;
  readonly #message: Uint8Array;
  readonly #noise: Responder;
  /** The caller's X25519 key: all that is known after one Diffie–Hellman. */
  readonly agreementKey: Uint8Array;
  #peer: IdentityPayload | undefined;

  constructor(kind: ExchangeKind, own: Own, message: Uint8Array) {
    exactly(message, SIZES[kind].first);
    this.#kind = kind;
    this.#own = own;
    this.#message = message;
    this.#noise = new Responder(prologue(kind, own.pair.publicKey), dhPair(own.pair));
    this.agreementKey = this.#noise.readStatic(message);
  }

  /** Who calls; the signature holds and the keys belong together. Certificates are the caller's to verify. */
  identify(): IdentityPayload {
    const { payload, transcript } = this.#noise.readPayload(this.#message);
    const peer = decodeIdentity(payload, transcript);
    if (!equalBytes(agreementKey(peer.key), this.agreementKey)) {
      throw new ThicketError('WRONG_KEY', "the caller's two keys don't belong together");
    }
    this.#peer = peer;
    return peer;
  }

  accept(): { readonly message: Uint8Array; readonly keys: Keys } {
    if (this.#peer === undefined) throw new ThicketError('INTERNAL', 'identify first');
    const size = SIZES[this.#kind].second - OVERHEAD_2;
    const own = this.#own;
    const { message, transport } = this.#noise.writeMessage2((t) => encodeIdentity(own.pair, { ...own, features: 0 }, t, size));
    return { message, keys: keysOf(transport) };
  }

  /** Tells the caller, sealed and bound to its own fresh challenge, that its epoch is behind `seen`. */
  refuseEpoch(seen: bigint): Uint8Array {
    const size = SIZES[this.#kind].second - OVERHEAD_2;
    return this.#noise.writeMessage2((t) => encodeBehind(this.#own.pair, seen, t, size)).message;
  }
}

/** What a rekey agreed: keys, the index that the far end wants, and the hash of the certificates that it shows now. */
export interface Rekeyed extends Keys {
  readonly peerIndex: number;
  readonly chain: Uint8Array;
}

/** A rekey that we begin, inside what `binding` names. */
export class RekeyCall {
  readonly message: Uint8Array;
  readonly #remote: PublicKey;
  readonly #noise: Initiator;

  constructor(pair: KeyPair, chain: Uint8Array, remote: PublicKey, binding: Uint8Array, index: number) {
    this.#remote = remote;
    this.#noise = new Initiator(prologue('rekey', remote, binding), dhPair(pair), agreementKey(remote));
    this.message = this.#noise.writeMessage1((t) => encodeRekey(pair, { index, chain }, t, SIZES.rekey.first - OVERHEAD_1));
  }

  /** `sendAll`: the far end doesn't know our certificates, and wants a first handshake. */
  finish(message: Uint8Array): Rekeyed | 'sendAll' {
    exactly(message, SIZES.rekey.second);
    const { payload, transcript, transport } = this.#noise.readMessage2(message);
    const answer = decodeRekeyAnswer(payload, this.#remote, transcript);
    return answer === 'sendAll' ? answer : { ...keysOf(transport), peerIndex: answer.index, chain: answer.chain };
  }
}

/** Both ends of a rekey as its callee knows them. */
export interface RekeyEnds {
  readonly pair: KeyPair;
  /** The hash of the certificates that we show now. */
  readonly chain: Uint8Array;
  readonly remote: PublicKey;
  /** The hash of those that the far end last showed. */
  readonly remoteChain: Uint8Array;
}

/** Answers a rekey of the peer whose key is known already; without keys when its certificates are others than we know. */
export function answerRekey(
  ends: RekeyEnds,
  binding: Uint8Array,
  message: Uint8Array,
  index: number,
): { readonly message: Uint8Array; readonly keys: Rekeyed | undefined } {
  exactly(message, SIZES.rekey.first);
  const { pair, chain, remote } = ends;
  const noise = new Responder(prologue('rekey', pair.publicKey, binding), dhPair(pair));
  if (!equalBytes(noise.readStatic(message), agreementKey(remote))) throw new ThicketError('WRONG_KEY', 'a rekey by another key');
  const { payload, transcript } = noise.readPayload(message);
  const asked = decodeRekey(payload, remote, transcript);
  const size = SIZES.rekey.second - OVERHEAD_2;
  if (!equalBytes(asked.chain, ends.remoteChain)) {
    return { message: noise.writeMessage2((t) => encodeSendAll(pair, t, size)).message, keys: undefined };
  }
  const { message: answer, transport } = noise.writeMessage2((t) => encodeRekey(pair, { index, chain }, t, size));
  return { message: answer, keys: { ...keysOf(transport), peerIndex: asked.index, chain: asked.chain } };
}
