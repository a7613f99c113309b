/**
 * What stands under the seal of handshake messages: a length u16, deterministic CBOR, zeros up to the message's fixed size.
 *
 * message 1, and message 2 that agrees: [key 32 B, chain, grant or null, epoch, features, signature 64 B over the transcript's hash]
 * message 2 that refuses an epoch: [epoch seen, signature]
 * rekey, both ways: [link index or 0, hash 16 B of the certificates that the sender shows now, signature]
 * rekey, message 2 that asks for those certificates, since their hash is unknown: [signature]
 */
import { ThicketError } from '../errors.js';
import {
  type Cbor,
  decodeCbor,
  encodeCbor,
  Fields,
  type KeyPair,
  keyBytes,
  keyFromBytes,
  type PublicKey,
  sodium,
  verify,
} from '../trust/index.js';

const CHAIN_MAX = 320;
const GRANT_MAX = 214;

export interface IdentityPayload {
  readonly key: PublicKey;
  readonly chain: readonly Uint8Array[];
  readonly grant: Uint8Array | undefined;
  readonly epoch: bigint;
  readonly features: number;
}

function frame(value: readonly Cbor[], size: number): Uint8Array {
  const bytes = encodeCbor(value);
  if (bytes.length + 2 > size) throw new ThicketError('TOO_LONG', 'certificates too long for a handshake: use shorter names and groups');
  const out = new Uint8Array(size);
  new DataView(out.buffer).setUint16(0, bytes.length);
  out.set(bytes, 2);
  return out;
}

function unframe(payload: Uint8Array): Cbor {
  if (payload.length < 2) throw new ThicketError('BAD_ENCODING', 'too short');
  const length = new DataView(payload.buffer, payload.byteOffset, payload.byteLength).getUint16(0);
  if (length + 2 > payload.length) throw new ThicketError('BAD_ENCODING', 'too short');
  if (payload.subarray(2 + length).some((byte) => byte !== 0)) throw new ThicketError('BAD_ENCODING', 'the padding is not zero');
  return decodeCbor(payload.subarray(2, 2 + length));
}

export function encodeIdentity(pair: KeyPair, identity: Omit<IdentityPayload, 'key'>, transcript: Uint8Array, size: number): Uint8Array {
  const { chain, grant, epoch, features } = identity;
  const signature = pair.sign('key exchange', transcript);
  return frame([keyBytes(pair.publicKey), [...chain], grant ?? null, epoch, features, signature], size);
}

/** Throws BAD_ENCODING or BAD_SIGNATURE. Certificates are the caller's to verify. */
export function decodeIdentity(payload: Uint8Array, transcript: Uint8Array): IdentityPayload {
  const fields = new Fields(unframe(payload), 6);
  const key = keyFromBytes(fields.bytes(32));
  const chain = fields.list(2).map((item) => {
    if (!(item instanceof Uint8Array) || item.length > CHAIN_MAX) throw new ThicketError('BAD_ENCODING', 'not a certificate');
    return item;
  });
  const raw = fields.raw();
  if (raw !== null && (!(raw instanceof Uint8Array) || raw.length > GRANT_MAX)) throw new ThicketError('BAD_ENCODING', 'not a grant');
  const epoch = fields.u64();
  const features = fields.count();
  checkSignature(key, transcript, fields.bytes(64));
  return { key, chain, grant: raw ?? undefined, epoch, features };
}

export function encodeBehind(pair: KeyPair, seen: bigint, transcript: Uint8Array, size: number): Uint8Array {
  return frame([seen, pair.sign('key exchange', transcript)], size);
}

/** The epoch that the far end has seen of us, if message 2 is a refusal. */
export function decodeBehind(payload: Uint8Array, key: PublicKey, transcript: Uint8Array): bigint | undefined {
  const value = unframe(payload);
  if (!Array.isArray(value) || value.length !== 2) return undefined;
  const fields = new Fields(value as readonly Cbor[], 2);
  const seen = fields.u64();
  checkSignature(key, transcript, fields.bytes(64));
  return seen;
}

/** What names the certificates that somebody shows: 16 bytes. */
export function chainHash(chain: readonly Uint8Array[], grant: Uint8Array | undefined): Uint8Array {
  return sodium.crypto_generichash(16, encodeCbor([[...chain], grant ?? null]), null);
}

export interface RekeyPayload {
  /** What the far end shall write into link frames under the new keys; 0 in sessions. */
  readonly index: number;
  readonly chain: Uint8Array;
}

export function encodeRekey(pair: KeyPair, { index, chain }: RekeyPayload, transcript: Uint8Array, size: number): Uint8Array {
  return frame([index, chain, pair.sign('key exchange', transcript)], size);
}

export function decodeRekey(payload: Uint8Array, key: PublicKey, transcript: Uint8Array): RekeyPayload {
  return readRekey(unframe(payload), key, transcript);
}

function readRekey(value: Cbor, key: PublicKey, transcript: Uint8Array): RekeyPayload {
  const fields = new Fields(value, 3);
  const index = fields.count();
  if (index > 0xffff_ffff) throw new ThicketError('BAD_ENCODING', 'an index is a u32');
  const chain = fields.bytes(16);
  checkSignature(key, transcript, fields.bytes(64));
  return { index, chain };
}

export function encodeSendAll(pair: KeyPair, transcript: Uint8Array, size: number): Uint8Array {
  return frame([pair.sign('key exchange', transcript)], size);
}

/** A rekey's message 2: keys, or `sendAll`. */
export function decodeRekeyAnswer(payload: Uint8Array, key: PublicKey, transcript: Uint8Array): RekeyPayload | 'sendAll' {
  const value = unframe(payload);
  if (!Array.isArray(value) || value.length !== 1) return readRekey(value, key, transcript);
  checkSignature(key, transcript, new Fields(value as readonly Cbor[], 1).bytes(64));
  return 'sendAll';
}

function checkSignature(key: PublicKey, transcript: Uint8Array, signature: Uint8Array): void {
  if (!verify(key, 'key exchange', transcript, signature)) {
    throw new ThicketError('BAD_SIGNATURE', "the key exchange's signature doesn't hold");
  }
}
