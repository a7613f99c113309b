/**
 * Noise_IK_25519_ChaChaPoly_BLAKE2b (The Noise Protocol Framework, revision 34), names as there. Proven with the public cacophony vectors.
 *
 * IK: ← s  …  → e, es, s, ss  ← e, ee, se
 */
import { ThicketError } from '../errors.js';
import { sodium } from '../trust/index.js';

const PROTOCOL = 'Noise_IK_25519_ChaChaPoly_BLAKE2b';
const HASH = 64;
const BLOCK = 128;
const TAG = 16;
const EMPTY = new Uint8Array(0);

/** A Diffie–Hellman key pair, 32 bytes each. */
export interface DhPair {
  readonly publicKey: Uint8Array;
  readonly secret: Uint8Array;
}

export function generateDhPair(): DhPair {
  const { publicKey, privateKey } = sodium.crypto_box_keypair();
  return { publicKey, secret: privateKey };
}

function hash(...pieces: readonly Uint8Array[]): Uint8Array {
  const state = sodium.crypto_generichash_init(null, HASH);
  for (const piece of pieces) sodium.crypto_generichash_update(state, piece);
  return sodium.crypto_generichash_final(state, HASH);
}

/** HMAC (RFC 2104) over BLAKE2b-512, as Noise asks, not BLAKE2b's own keyed mode. */
function hmac(key: Uint8Array, ...pieces: readonly Uint8Array[]): Uint8Array {
  const block = new Uint8Array(BLOCK);
  block.set(key.length > BLOCK ? hash(key) : key);
  const inner = block.map((byte) => byte ^ 0x36);
  const outer = block.map((byte) => byte ^ 0x5c);
  return hash(outer, hash(inner, ...pieces));
}

function hkdf2(chainingKey: Uint8Array, input: Uint8Array): [Uint8Array, Uint8Array] {
  const temporary = hmac(chainingKey, input);
  const first = hmac(temporary, Uint8Array.of(1));
  return [first, hmac(temporary, first, Uint8Array.of(2))];
}

function dh(secret: Uint8Array, publicKey: Uint8Array): Uint8Array {
  try {
    return sodium.crypto_scalarmult(secret, publicKey);
  } catch (error) {
    // libsodium refuses points of small order, whose result would be zero.
    throw new ThicketError('BAD_HANDSHAKE', 'a public key of small order', { cause: error });
  }
}

class CipherState {
  #key: Uint8Array | undefined;
  #counter = 0n;

  initializeKey(key: Uint8Array): void {
    this.#key = key.slice(0, 32);
    this.#counter = 0n;
  }

  copy(other: CipherState): void {
    this.#key = other.#key;
    this.#counter = other.#counter;
  }

  #nonce(): Uint8Array {
    const nonce = new Uint8Array(12);
    new DataView(nonce.buffer).setBigUint64(4, this.#counter, true);
    this.#counter += 1n;
    return nonce;
  }

  encryptWithAd(ad: Uint8Array, plaintext: Uint8Array): Uint8Array {
    if (this.#key === undefined) return plaintext;
    return sodium.crypto_aead_chacha20poly1305_ietf_encrypt(plaintext, ad, null, this.#nonce(), this.#key);
  }

  decryptWithAd(ad: Uint8Array, ciphertext: Uint8Array): Uint8Array {
    if (this.#key === undefined) return ciphertext;
    try {
      return sodium.crypto_aead_chacha20poly1305_ietf_decrypt(null, ciphertext, ad, this.#nonce(), this.#key);
    } catch (error) {
      throw new ThicketError('BAD_HANDSHAKE', "a message that doesn't open", { cause: error });
    }
  }
}

class SymmetricState {
  readonly cipher = new CipherState();
  chainingKey: Uint8Array;
  handshakeHash: Uint8Array;

  constructor() {
    const name = new TextEncoder().encode(PROTOCOL);
    this.handshakeHash = new Uint8Array(HASH);
    // The name is shorter than a hash: padded with zeros.
    this.handshakeHash.set(name);
    this.chainingKey = this.handshakeHash;
  }

  clone(): SymmetricState {
    const copy = new SymmetricState();
    copy.chainingKey = this.chainingKey;
    copy.handshakeHash = this.handshakeHash;
    copy.cipher.copy(this.cipher);
    return copy;
  }

  mixKey(input: Uint8Array): void {
    const [chainingKey, key] = hkdf2(this.chainingKey, input);
    this.chainingKey = chainingKey;
    this.cipher.initializeKey(key);
  }

  mixHash(data: Uint8Array): void {
    this.handshakeHash = hash(this.handshakeHash, data);
  }

  encryptAndHash(plaintext: Uint8Array): Uint8Array {
    const ciphertext = this.cipher.encryptWithAd(this.handshakeHash, plaintext);
    this.mixHash(ciphertext);
    return ciphertext;
  }

  decryptAndHash(ciphertext: Uint8Array): Uint8Array {
    const plaintext = this.cipher.decryptWithAd(this.handshakeHash, ciphertext);
    this.mixHash(ciphertext);
    return plaintext;
  }

  split(): [Uint8Array, Uint8Array] {
    const [a, b] = hkdf2(this.chainingKey, EMPTY);
    return [a.slice(0, 32), b.slice(0, 32)];
  }
}

/** What a handshake leaves: transport keys by direction, and its hash. */
export interface Transport {
  readonly send: Uint8Array;
  readonly receive: Uint8Array;
  readonly handshakeHash: Uint8Array;
  /** 64 bytes, for deriving further secrets. */
  readonly chainingKey: Uint8Array;
}

/** The calling side. */
export class Initiator {
  readonly #symmetric = new SymmetricState();
  readonly #s: DhPair;
  readonly #rs: Uint8Array;
  readonly #e: DhPair;

  constructor(prologue: Uint8Array, own: DhPair, remote: Uint8Array, ephemeral: DhPair = generateDhPair()) {
    this.#s = own;
    this.#rs = remote;
    this.#e = ephemeral;
    this.#symmetric.mixHash(prologue);
    this.#symmetric.mixHash(remote);
  }

  /** → e, es, s, ss. `payload` may be made from the transcript's hash up to it. 96 bytes longer than the payload. */
  writeMessage1(payload: Uint8Array | ((transcript: Uint8Array) => Uint8Array)): Uint8Array {
    const sym = this.#symmetric;
    sym.mixHash(this.#e.publicKey);
    sym.mixKey(dh(this.#e.secret, this.#rs));
    const s = sym.encryptAndHash(this.#s.publicKey);
    sym.mixKey(dh(this.#s.secret, this.#rs));
    const body = sym.encryptAndHash(typeof payload === 'function' ? payload(sym.handshakeHash) : payload);
    return concat(this.#e.publicKey, s, body);
  }

  /** ← e, ee, se. Throws BAD_HANDSHAKE, and then another message may be tried. */
  readMessage2(message: Uint8Array): { readonly payload: Uint8Array; readonly transcript: Uint8Array; readonly transport: Transport } {
    if (message.length < 32 + TAG) throw new ThicketError('BAD_HANDSHAKE', 'too short');
    // A forged answer must not spoil what the true one is to be read with.
    const sym = this.#symmetric.clone();
    const re = message.subarray(0, 32);
    sym.mixHash(re);
    sym.mixKey(dh(this.#e.secret, re));
    sym.mixKey(dh(this.#s.secret, re));
    const transcript = sym.handshakeHash;
    const payload = sym.decryptAndHash(message.subarray(32));
    const [send, receive] = sym.split();
    sodium.memzero(this.#e.secret);
    return { payload, transcript, transport: { send, receive, handshakeHash: sym.handshakeHash, chainingKey: sym.chainingKey } };
  }
}

/** The called side, in stages, so that the dear ones come after the caller's judgement of the cheap ones. */
export class Responder {
  readonly #symmetric = new SymmetricState();
  readonly #s: DhPair;
  #rs: Uint8Array | undefined;
  #re: Uint8Array | undefined;

  constructor(prologue: Uint8Array, own: DhPair) {
    this.#s = own;
    this.#symmetric.mixHash(prologue);
    this.#symmetric.mixHash(own.publicKey);
  }

  /** → e, es, s: who calls (one DH). Throws BAD_HANDSHAKE. */
  readStatic(message: Uint8Array): Uint8Array {
    if (message.length < 96) throw new ThicketError('BAD_HANDSHAKE', 'too short');
    const sym = this.#symmetric;
    this.#re = message.slice(0, 32);
    sym.mixHash(this.#re);
    sym.mixKey(dh(this.#s.secret, this.#re));
    this.#rs = sym.decryptAndHash(message.subarray(32, 80));
    return this.#rs;
  }

  /** ss, payload (another DH). Throws BAD_HANDSHAKE. */
  readPayload(message: Uint8Array): { readonly payload: Uint8Array; readonly transcript: Uint8Array } {
    if (this.#rs === undefined) throw new ThicketError('BAD_HANDSHAKE', 'out of order');
    const sym = this.#symmetric;
    sym.mixKey(dh(this.#s.secret, this.#rs));
    const transcript = sym.handshakeHash;
    return { payload: sym.decryptAndHash(message.subarray(80)), transcript };
  }

  /** ← e, ee, se. 48 bytes longer than the payload. */
  writeMessage2(
    payload: Uint8Array | ((transcript: Uint8Array) => Uint8Array),
    ephemeral: DhPair = generateDhPair(),
  ): { readonly message: Uint8Array; readonly transport: Transport } {
    if (this.#rs === undefined || this.#re === undefined) throw new ThicketError('BAD_HANDSHAKE', 'out of order');
    const sym = this.#symmetric;
    sym.mixHash(ephemeral.publicKey);
    sym.mixKey(dh(ephemeral.secret, this.#re));
    sym.mixKey(dh(ephemeral.secret, this.#rs));
    const body = sym.encryptAndHash(typeof payload === 'function' ? payload(sym.handshakeHash) : payload);
    const [receive, send] = sym.split();
    const transport = { send, receive, handshakeHash: sym.handshakeHash, chainingKey: sym.chainingKey };
    return { message: concat(ephemeral.publicKey, body), transport };
  }
}

export function concat(...pieces: readonly Uint8Array[]): Uint8Array {
  const out = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    out.set(piece, at);
    at += piece.length;
  }
  return out;
}
