/** For whom a node relays, and how much. */
import { describe, expect, test } from '@jest/globals';
import { isThicketError } from '../../ts/errors.js';
import { type Child, RelayRules } from '../../ts/node/relay-rules.js';
import { KeyPair, type PublicKey, type Right, type VerifiedIdentity } from '../../ts/trust/index.js';

const LISTED = KeyPair.generate().publicKey;
const OTHER = KeyPair.generate().publicKey;

function identity(network: PublicKey, rights: readonly Right[] = []): VerifiedIdentity {
  return { key: KeyPair.generate().publicKey, network, name: 'n', groups: [], rights, serial: 1, issuedAt: 0, notAfter: 1 };
}

const from = (host: string) => ({ host, port: 1 });

function rules(list: 'any' | 'none' | readonly PublicKey[], children: readonly Child[] = []): RelayRules {
  return new RelayRules(
    () => ({ for: list, children: 500, descendants: 100, endpoints: 7 }),
    () => children,
  );
}

function verdict(of: RelayRules, who: VerifiedIdentity | undefined, host = '203.0.113.1'): string {
  try {
    of.accept(KeyPair.generate().publicKey, who, from(host));
    return 'taken';
  } catch (error) {
    return isThicketError(error) ? error.code : String(error);
  }
}

const guests = (count: number, host: (n: number) => string): Child[] =>
  Array.from({ length: count }, (_, n) => ({ key: KeyPair.generate().publicKey, identity: identity(OTHER), remote: from(host(n)) }));

describe('children', () => {
  test('of nobody are taken where nobody is relayed for', () => {
    expect(verdict(rules('none'), identity(LISTED))).toBe('REFUSED');
  });

  test('of no listed network share a small pool, and less of it from one address or one /64', () => {
    const crowd = guests(8, () => '203.0.113.1');
    expect(verdict(rules([LISTED], crowd), identity(OTHER))).toBe('BUSY');
    expect(verdict(rules([LISTED], crowd), identity(OTHER), '203.0.113.2')).toBe('taken');
    expect(verdict(rules([LISTED], crowd), identity(LISTED))).toBe('taken');
    const six = guests(8, (n) => `2001:db8::${n + 1}`);
    expect(verdict(rules([LISTED], six), undefined, '2001:db8::ffff')).toBe('BUSY');
    expect(verdict(rules([LISTED], six), undefined, '2001:db8:0:1::1')).toBe('taken');
    const many = guests(256, (n) => `198.51.${n >> 3}.1`);
    expect(verdict(rules([LISTED], many), identity(OTHER), '192.0.2.1')).toBe('BUSY');
  });
});

describe('what a child may announce', () => {
  test('follows its rights, and only in a listed network', () => {
    expect(rules([LISTED]).rights(identity(LISTED, ['relay']), 0)).toEqual({ relay: true, gateway: false, cap: 100 });
    expect(rules([LISTED]).rights(identity(LISTED, ['gateway']), 0)).toEqual({ relay: false, gateway: true, cap: 7 });
    expect(rules([LISTED]).rights(identity(OTHER, ['relay', 'gateway']), 0)).toEqual({ relay: false, gateway: false, cap: 0 });
    expect(rules('any').rights(undefined, 0).cap).toBe(0);
  });

  test('is what all children together leave', () => {
    expect(rules('any').rights(identity(OTHER, ['relay']), 90).cap).toBe(10);
    expect(rules('any').rights(identity(OTHER, ['gateway']), 98).cap).toBe(2);
    expect(rules('any').rights(identity(OTHER, ['relay']), 1_000).cap).toBe(0);
  });
});
