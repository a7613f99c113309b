/**
 * Keys. An identity is always an Ed25519 public key (RFC 8032), written as 52 characters of base32 (RFC 4648, lower case, no padding). X25519 for
 * key agreement comes from it by libsodium's standard conversion.
 */
import { inspect } from 'node:util';
import { base32nopad } from '@scure/base';
import { ThicketError } from '../errors.js';
import { sodium } from './sodium.js';

declare const brand: unique symbol;
/** An Ed25519 public key as 52 characters of base32; good as a map key. */
export type PublicKey = string & { readonly [brand]: 'PublicKey' };

/** What a signature is for: no signature is valid under another context. */
export type SignatureContext =
  | 'certificate'
  | 'endpoint certificate'
  | 'grant'
  | 'request'
  | 'link attestation'
  | 'parent set'
  | 'endpoint edge'
  | 'name record'
  | 'key exchange';

const KEY_TEXT = /^[a-z2-7]{52}$/;
const cache = new Map<PublicKey, Uint8Array>();
const CACHE = 65_536;

export const base32 = {
  encode: (bytes: Uint8Array): string => base32nopad.encode(bytes).toLowerCase(),
  decode: (text: string): Uint8Array => base32nopad.decode(text.toUpperCase()),
};

/** Reads a key as text. Throws BAD_KEY. */
export function parseKey(text: string): PublicKey {
  const lower = text.toLowerCase();
  if (!KEY_TEXT.test(lower)) throw new ThicketError('BAD_KEY', `"${text.slice(0, 52)}" is not a key: 52 characters a–z and 2–7 are wanted`);
  // 52 characters hold 260 bits: the last four must be zero, or one key would have several names.
  let bytes: Uint8Array;
  try {
    bytes = base32.decode(lower);
  } catch (error) {
    throw new ThicketError('BAD_KEY', `"${text}" is not a key: its last character is wrong`, { cause: error });
  }
  return keyFromBytes(bytes);
}

/** 32 bytes to a key. Throws BAD_KEY for another length. */
export function keyFromBytes(bytes: Uint8Array): PublicKey {
  if (bytes.length !== 32) throw new ThicketError('BAD_KEY', 'a key has 32 bytes');
  return base32.encode(bytes) as PublicKey;
}

/** A key's 32 bytes; not to be written to. */
export function keyBytes(key: PublicKey): Uint8Array {
  let bytes = cache.get(key);
  if (bytes === undefined) {
    bytes = base32.decode(key);
    if (cache.size >= CACHE) cache.clear();
    cache.set(key, bytes);
  }
  return bytes;
}

/** The X25519 image of a key. Throws BAD_KEY for points that are none, or of small order. */
export function agreementKey(key: PublicKey): Uint8Array {
  try {
    return sodium.crypto_sign_ed25519_pk_to_curve25519(keyBytes(key));
  } catch (error) {
    throw new ThicketError('BAD_KEY', 'that key is no point of the curve', { cause: error });
  }
}

function message(context: SignatureContext, bytes: Uint8Array): Uint8Array {
  const prefix = new TextEncoder().encode(`thicket ${context}\0`);
  const whole = new Uint8Array(prefix.length + bytes.length);
  whole.set(prefix);
  whole.set(bytes, prefix.length);
  return whole;
}

/** Strict verification: S < L, canonical points, no small-order keys (libsodium's rule). Never throws. */
export function verify(key: PublicKey, context: SignatureContext, bytes: Uint8Array, signature: Uint8Array): boolean {
  if (signature.length !== 64) return false;
  try {
    return sodium.crypto_sign_verify_detached(signature, message(context, bytes), keyBytes(key));
  } catch {
    return false;
  }
}

/** A key pair. The private half leaves this object only to be stored. */
export class KeyPair {
  readonly publicKey: PublicKey;
  readonly #secret: Uint8Array;
  #agreement: Uint8Array | undefined;

  private constructor(publicKey: Uint8Array, secret: Uint8Array) {
    this.publicKey = keyFromBytes(publicKey);
    this.#secret = secret;
  }

  static generate(): KeyPair {
    const { publicKey, privateKey } = sodium.crypto_sign_keypair();
    return new KeyPair(publicKey, privateKey);
  }

  /** From a 32-byte seed. */
  static fromSeed(seed: Uint8Array): KeyPair {
    const { publicKey, privateKey } = sodium.crypto_sign_seed_keypair(seed);
    return new KeyPair(publicKey, privateKey);
  }

  /** The 32-byte seed, for the key file only. */
  exportSeed(): Uint8Array {
    return this.#secret.slice(0, 32);
  }

  sign(context: SignatureContext, bytes: Uint8Array): Uint8Array {
    return sodium.crypto_sign_detached(message(context, bytes), this.#secret);
  }

  /** Our X25519 private key, for handshakes. */
  agreementSecret(): Uint8Array {
    this.#agreement ??= sodium.crypto_sign_ed25519_sk_to_curve25519(this.#secret);
    return this.#agreement;
  }

  toJSON(): string {
    return `[key pair of ${this.publicKey}]`;
  }

  [inspect.custom](): string {
    return this.toJSON();
  }
}

/** The key pair under which a name of a network is looked up: only who knows the naming secret can make, and so ask for, it. */
export function nameKeyPair(namingSecret: Uint8Array, name: string): KeyPair {
  const input = new TextEncoder().encode(`thicket name\0${name}`);
  return KeyPair.fromSeed(sodium.crypto_generichash(32, input, namingSecret));
}
