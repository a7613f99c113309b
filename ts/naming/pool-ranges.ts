/** Arithmetic on the pools: which addresses there are to give, and the reverse zones that hold them. */
import ipaddr from 'ipaddr.js';
import { ThicketError } from '../errors.js';

/** An IPv4 pool. The network, the first and the broadcast address are never given. */
export class Range4 {
  readonly first: string;
  /** How many addresses there are to give. */
  readonly size: number;
  readonly #base: number;

  constructor(cidr: string) {
    const [address, prefix] = parse(cidr, 'ipv4');
    if (prefix > 29) throw new ThicketError('BAD_ARGUMENT', `the pool ${cidr} is too small: use /29 or a shorter prefix`);
    this.#base = toNumber(address.toByteArray());
    this.size = 2 ** (32 - prefix) - 3;
    this.first = this.#text(1);
  }

  /** The address at this place, 0 … size − 1. */
  at(index: number): string {
    return this.#text(index + 2);
  }

  /** Where an address stands; undefined when it isn't one to give. */
  indexOf(text: string): number | undefined {
    if (!ipaddr.IPv4.isValidFourPartDecimal(text)) return undefined;
    const index = toNumber(ipaddr.IPv4.parse(text).octets) - this.#base - 2;
    return index >= 0 && index < this.size ? index : undefined;
  }

  #text(offset: number): string {
    const value = this.#base + offset;
    return [value / 2 ** 24, value / 2 ** 16, value / 2 ** 8, value].map((part) => Math.floor(part) % 256).join('.');
  }
}

/** An IPv6 pool: a /64 to which interface identifiers of 8 bytes are added. */
export class Range6 {
  readonly first: string;
  readonly #prefix: readonly number[];

  constructor(cidr: string) {
    const [address, prefix] = parse(cidr, 'ipv6');
    if (prefix !== 64) throw new ThicketError('BAD_ARGUMENT', `the pool ${cidr} has the wrong size: use a /64`);
    this.#prefix = address.toByteArray().slice(0, 8);
    this.first = this.at(Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 1));
  }

  at(interfaceId: Uint8Array): string {
    return new ipaddr.IPv6([...this.#prefix, ...interfaceId]).toString();
  }

  /** An address's interface identifier as hex; undefined when it is none of the pool. */
  idOf(text: string): string | undefined {
    if (!ipaddr.IPv6.isValid(text)) return undefined;
    const bytes = Buffer.from(ipaddr.IPv6.parse(text).toByteArray());
    return bytes.subarray(0, 8).equals(Buffer.from(this.#prefix)) ? bytes.toString('hex', 8) : undefined;
  }
}

/** The first address of a pool: the node's own, and its DNS server's. */
export function firstAddress(cidr: string): string {
  return cidr.includes(':') ? new Range6(cidr).first : new Range4(cidr).first;
}

/**
 * The reverse zones that together are exactly the pool, such as `18.198.in-addr.arpa` and `19.198.in-addr.arpa` for 198.18.0.0/15. Zones are cut
 * at whole octets (nibbles for IPv6), so a pool in between has several.
 */
export function reverseZones(cidr: string): string[] {
  const [address, prefix] = ipaddr.parseCIDR(cidr);
  if (address.kind() === 'ipv6') {
    const nibbles = Buffer.from(address.toByteArray())
      .toString('hex')
      .slice(0, Math.ceil(prefix / 4));
    return [`${[...nibbles].reverse().join('.')}.ip6.arpa`];
  }
  const octets = Math.ceil(prefix / 8);
  const step = 2 ** (32 - 8 * octets);
  const base = toNumber(address.toByteArray());
  return Array.from({ length: 2 ** (8 * octets - prefix) }, (_, index) => {
    const value = base + index * step;
    const parts = [value / 2 ** 24, value / 2 ** 16, value / 2 ** 8, value].map((part) => Math.floor(part) % 256);
    return `${parts.slice(0, octets).reverse().join('.')}.in-addr.arpa`;
  });
}

function parse(cidr: string, kind: 'ipv4' | 'ipv6'): [ipaddr.IPv4 | ipaddr.IPv6, number] {
  if (!ipaddr.isValidCIDR(cidr)) throw new ThicketError('BAD_ARGUMENT', `"${cidr}" is not a CIDR: write address/prefix`);
  const [address, prefix] = ipaddr.parseCIDR(cidr);
  if (address.kind() !== kind) throw new ThicketError('BAD_ARGUMENT', `the pool ${cidr} is of the wrong family: use ${kind}`);
  return [address, prefix];
}

function toNumber(octets: readonly number[]): number {
  return octets.reduce((value, octet) => value * 256 + octet, 0);
}
