/**
 * Deterministic CBOR (RFC 8949, 4.2.1): one value has one encoding. What doesn't encode back to the bytes that came (unsorted or duplicate keys, long
 * forms, trailing bytes, tags) is refused.
 */
import { decode, encode } from 'cborg';
import { ThicketError } from '../errors.js';

export type Cbor = number | bigint | string | boolean | null | Uint8Array | readonly Cbor[];

export function encodeCbor(value: Cbor): Uint8Array {
  return encode(value);
}

/** Throws BAD_ENCODING. */
export function decodeCbor(bytes: Uint8Array): Cbor {
  let value: Cbor;
  let again: Uint8Array;
  try {
    value = decode(bytes, { strict: true, allowIndefinite: false, allowUndefined: false, allowNaN: false, allowInfinity: false });
    again = encode(value);
  } catch (error) {
    throw new ThicketError('BAD_ENCODING', 'not deterministic CBOR', { cause: error });
  }
  if (!equalBytes(again, bytes)) throw new ThicketError('BAD_ENCODING', 'not deterministic CBOR');
  return value;
}

/** Public bytes only: not in constant time. */
export function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}

/** Typed access to a decoded array; every method throws BAD_ENCODING for another type or a value out of bounds. */
export class Fields {
  readonly #items: readonly Cbor[];
  #at = 0;

  constructor(value: Cbor | undefined, length: number) {
    if (!Array.isArray(value) || value.length !== length) throw new ThicketError('BAD_ENCODING', `an array of ${length} is wanted`);
    this.#items = value as readonly Cbor[];
  }

  raw(): Cbor {
    return this.#items[this.#at++] ?? null;
  }

  bytes(length: number): Uint8Array {
    const value = this.raw();
    if (!(value instanceof Uint8Array) || value.length !== length) throw new ThicketError('BAD_ENCODING', `${length} bytes are wanted`);
    return value;
  }

  bytesUpTo(most: number): Uint8Array {
    const value = this.raw();
    if (!(value instanceof Uint8Array) || value.length > most) throw new ThicketError('BAD_ENCODING', `at most ${most} bytes are wanted`);
    return value;
  }

  text(most: number): string {
    const value = this.raw();
    if (typeof value !== 'string' || value.length > most) throw new ThicketError('BAD_ENCODING', 'a text is wanted');
    return value;
  }

  texts(most: number, length: number): string[] {
    const value = this.raw();
    if (!Array.isArray(value) || value.length > most) throw new ThicketError('BAD_ENCODING', 'a list of texts is wanted');
    return value.map((item) => {
      if (typeof item !== 'string' || item.length > length) throw new ThicketError('BAD_ENCODING', 'a text is wanted');
      return item;
    });
  }

  list(most: number): readonly Cbor[] {
    const value = this.raw();
    if (!Array.isArray(value) || value.length > most) throw new ThicketError('BAD_ENCODING', 'a list is wanted');
    return value as readonly Cbor[];
  }

  /** 0 … 2^53 − 1. */
  count(): number {
    const value = this.raw();
    if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 0) throw new ThicketError('BAD_ENCODING', 'a count is wanted');
    return value;
  }

  /** 0 … 2^64 − 1. */
  u64(): bigint {
    const value = this.raw();
    const big = typeof value === 'number' && Number.isSafeInteger(value) ? BigInt(value) : value;
    if (typeof big !== 'bigint' || big < 0n || big > 0xffff_ffff_ffff_ffffn) throw new ThicketError('BAD_ENCODING', 'a u64 is wanted');
    return big;
  }
}
