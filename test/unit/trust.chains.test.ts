/** Certificates, grants and chains: what encodes decodes, what was touched is refused, and who is whom under which dates. */
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { isThicketError } from '../../ts/errors.js';
import {
  CERTIFICATE_MAX,
  type Certificate,
  type ChainCheck,
  decodeBundle,
  decodeCbor,
  decodeCertificate,
  decodeEndpointCertificate,
  decodeGrant,
  decodeRequest,
  type EndpointCertificate,
  encodeCbor,
  encodeCertificate,
  encodeEndpointCertificate,
  encodeGrant,
  encodeRequest,
  formatNetworkRef,
  formatWho,
  GRANT_MAX,
  type Grant,
  KeyPair,
  keyBytes,
  keyFromBytes,
  matches,
  nameKeyPair,
  type PublicKey,
  parseKey,
  parseNetworkRef,
  parseWho,
  sodium,
  TrustList,
  type VerifiedIdentity,
  verify,
  verifyChain,
  type Who,
} from '../../ts/trust/index.js';

const NOW = 1_800_000_000;
const network = KeyPair.generate();
const gateway = KeyPair.generate();
const endpoint = KeyPair.generate();

const code = (run: () => unknown): string => {
  try {
    run();
  } catch (error) {
    if (isThicketError(error)) return error.code;
    throw error;
  }
  return 'none';
};

const certificate = (change: Partial<Certificate> = {}): Certificate => ({
  network: network.publicKey,
  key: gateway.publicKey,
  name: 'gw',
  groups: ['staff'],
  rights: ['gateway'],
  delegable: ['cameras'],
  serial: 7,
  issuedAt: NOW,
  notAfter: NOW + 1_000,
  ...change,
});

const device = (change: Partial<EndpointCertificate> = {}): EndpointCertificate => ({
  gateway: gateway.publicKey,
  key: endpoint.publicKey,
  name: 'camera',
  groups: ['cameras'],
  serial: 3,
  issuedAt: NOW,
  notAfter: NOW + 900,
  ...change,
});

const grant = (change: Partial<Grant> = {}): Grant => ({
  network: network.publicKey,
  gateway: gateway.publicKey,
  name: 'camera',
  generation: 2,
  serial: 7,
  issuedAt: NOW,
  ...change,
});

const session: ChainCheck = { kind: 'session', floor: NOW - 100, now: NOW };
const cert = (change?: Partial<Certificate>, signer = network): Uint8Array => encodeCertificate(certificate(change), signer);
const leaf = (change?: Partial<EndpointCertificate>, signer = gateway): Uint8Array => encodeEndpointCertificate(device(change), signer);
const granted = (change?: Partial<Grant>, signer = network): Uint8Array => encodeGrant(grant(change), signer);

const Label = fc.stringMatching(/^[a-z0-9]([a-z0-9-]{0,6}[a-z0-9])?$/);
const Key = fc.uint8Array({ minLength: 32, maxLength: 32 }).map(keyFromBytes);
const Second = fc.nat({ max: 2 ** 40 });

describe('statements', () => {
  test('decode to what was encoded', () => {
    fc.assert(
      fc.property(
        Key,
        Label,
        fc.array(Label, { maxLength: 4 }),
        fc.array(Label, { maxLength: 4 }),
        Second,
        Second,
        (key, name, groups, delegable, a, b) => {
          const whole = certificate({
            key,
            name,
            groups,
            delegable,
            rights: a % 2 ? ['gateway', 'relay', 'enroll'] : [],
            serial: b,
            notAfter: a,
          });
          expect(decodeCertificate(encodeCertificate(whole, network))).toEqual(whole);
          const part = device({ key, name, groups, serial: a, notAfter: b });
          expect(decodeEndpointCertificate(encodeEndpointCertificate(part, gateway))).toEqual(part);
          const given = grant({ name, generation: a, serial: b });
          expect(decodeGrant(encodeGrant(given, network))).toEqual(given);
        },
      ),
      { numRuns: 50 },
    );
  });

  test('with any bit bent, cut or longer, are refused', () => {
    const all: readonly [Uint8Array, (bytes: Uint8Array) => unknown][] = [
      [cert(), decodeCertificate],
      [leaf(), decodeEndpointCertificate],
      [granted(), decodeGrant],
    ];
    for (const [bytes, decode] of all) {
      for (let bit = 0; bit < bytes.length * 8; bit += 1) {
        const bent = bytes.map((byte, i) => (i === bit >> 3 ? byte ^ (1 << (bit & 7)) : byte));
        expect(['BAD_ENCODING', 'BAD_SIGNATURE']).toContain(code(() => decode(bent)));
      }
      for (let length = 0; length < bytes.length; length += 1) expect(code(() => decode(bytes.subarray(0, length)))).toBe('BAD_ENCODING');
      expect(code(() => decode(new Uint8Array([...bytes, 0])))).toBe('BAD_ENCODING');
    }
  });

  test('of one kind are none of another', () => {
    for (const decode of [decodeEndpointCertificate, decodeGrant]) expect(code(() => decode(cert()))).not.toBe('none');
    for (const decode of [decodeCertificate, decodeGrant]) expect(code(() => decode(leaf()))).not.toBe('none');
    for (const decode of [decodeCertificate, decodeEndpointCertificate]) expect(code(() => decode(granted()))).not.toBe('none');
  });

  test('that are too long, or name what is no label, are not made', () => {
    const groups = Array.from({ length: 6 }, (_, n) => `${'g'.repeat(40)}${n}`);
    expect(code(() => cert({ groups }))).toBe('TOO_LONG');
    for (const name of ['', 'A', 'a.b', '-a', 'a-', 'ä', 'a'.repeat(64), 'a b', 'a\n']) {
      expect(code(() => cert({ name }))).toBe('BAD_ARGUMENT');
      expect(code(() => leaf({ name }))).toBe('BAD_ARGUMENT');
      expect(code(() => granted({ name }))).toBe('BAD_ARGUMENT');
    }
    expect(cert().length).toBeLessThanOrEqual(CERTIFICATE_MAX);
    expect(granted({ name: 'a'.repeat(20) }).length).toBeLessThanOrEqual(GRANT_MAX);
  });

  test('signed for something else hold for nothing', () => {
    const body = new TextEncoder().encode('body');
    const signature = network.sign('certificate', body);
    expect(verify(network.publicKey, 'certificate', body, signature)).toBe(true);
    for (const context of ['endpoint certificate', 'grant', 'request', 'key exchange', 'link attestation'] as const) {
      expect(verify(network.publicKey, context, body, signature)).toBe(false);
    }
    expect(verify(network.publicKey, 'certificate', body, signature.subarray(0, 63))).toBe(false);
    // Small-order keys sign anything.
    expect(verify(keyFromBytes(new Uint8Array(32)), 'certificate', body, new Uint8Array(64))).toBe(false);
    expect(
      verify(keyFromBytes(Uint8Array.from({ length: 32 }, (_, i) => (i === 0 ? 1 : 0))), 'certificate', body, new Uint8Array(64)),
    ).toBe(false);
  });
});

describe('a chain', () => {
  const chain = (): Uint8Array[] => [cert(), leaf()];

  test('of one certificate is its node', () => {
    const identity = verifyChain([cert()], undefined, gateway.publicKey, session);
    expect(identity).toMatchObject({
      key: gateway.publicKey,
      network: network.publicKey,
      name: 'gw',
      groups: ['staff'],
      rights: ['gateway'],
      serial: 7,
    });
    expect(identity.gateway).toBeUndefined();
    expect(verifyChain([cert()], undefined, gateway.publicKey, { ...session, kind: 'link' }).name).toBe('gw');
  });

  test('of two is an endpoint, with no right of its own', () => {
    const identity = verifyChain(chain(), granted(), endpoint.publicKey, session);
    expect(identity).toMatchObject({
      name: 'camera.gw',
      shortName: 'camera',
      generation: 2,
      groups: ['cameras'],
      rights: [],
      gateway: gateway.publicKey,
    });
    expect(identity.notAfter).toBe(NOW + 900);
    expect(verifyChain(chain(), undefined, endpoint.publicKey, session).shortName).toBeUndefined();
  });

  const refused: readonly [string, readonly Uint8Array[], Uint8Array | undefined, PublicKey, Partial<ChainCheck>, string][] = [
    ['empty', [], undefined, gateway.publicKey, {}, 'NO_CERTIFICATE'],
    ['of three', [cert(), leaf(), leaf()], undefined, endpoint.publicKey, {}, 'NO_CERTIFICATE'],
    ["for another node's key", [cert()], undefined, endpoint.publicKey, {}, 'WRONG_KEY'],
    ["for another endpoint's key", [cert(), leaf()], undefined, gateway.publicKey, {}, 'WRONG_KEY'],
    ['of an endpoint, on a link', [cert(), leaf()], undefined, endpoint.publicKey, { kind: 'link' }, 'BAD_CERTIFICATE'],
    ['of a node with a grant', [cert()], granted(), gateway.publicKey, {}, 'BAD_CERTIFICATE'],
    ['signed by somebody else than it says', [cert({}, gateway)], undefined, gateway.publicKey, {}, 'BAD_SIGNATURE'],
    ['whose endpoint another key signed', [cert(), leaf({}, network)], undefined, endpoint.publicKey, {}, 'BAD_SIGNATURE'],
    [
      'whose endpoint is of another gateway',
      [cert(), leaf({ gateway: network.publicKey }, network)],
      undefined,
      endpoint.publicKey,
      {},
      'BAD_CERTIFICATE',
    ],
    ['without the right to be a gateway', [cert({ rights: ['relay'] }), leaf()], undefined, endpoint.publicKey, {}, 'BAD_CERTIFICATE'],
    [
      'with a group that the gateway may not give',
      [cert(), leaf({ groups: ['staff'] })],
      undefined,
      endpoint.publicKey,
      {},
      'BAD_CERTIFICATE',
    ],
    [
      'whose endpoint outlives its gateway',
      [cert(), leaf({ notAfter: NOW + 1_001 })],
      undefined,
      endpoint.publicKey,
      {},
      'BAD_CERTIFICATE',
    ],
    ['expired by the clock', [cert()], undefined, gateway.publicKey, { now: NOW + 1_001 }, 'EXPIRED'],
    ['expired by the floor, with the clock at 1970', [cert()], undefined, gateway.publicKey, { now: 0, floor: NOW + 1_001 }, 'EXPIRED'],
    ['whose endpoint has expired', [cert(), leaf()], undefined, endpoint.publicKey, { now: NOW + 950 }, 'EXPIRED'],
    [
      'whose grant is for another gateway',
      [cert(), leaf()],
      granted({ gateway: network.publicKey }),
      endpoint.publicKey,
      {},
      'BAD_CERTIFICATE',
    ],
    ['whose grant is for another name', [cert(), leaf()], granted({ name: 'door' }), endpoint.publicKey, {}, 'BAD_CERTIFICATE'],
    [
      'whose grant is of another network',
      [cert(), leaf()],
      encodeGrant(grant({ network: gateway.publicKey }), gateway),
      endpoint.publicKey,
      {},
      'BAD_CERTIFICATE',
    ],
    ['whose grant the gateway signed itself', [cert(), leaf()], granted({}, gateway), endpoint.publicKey, {}, 'BAD_SIGNATURE'],
    ['whose name has moved on', [cert(), leaf()], granted(), endpoint.publicKey, { generationOf: () => 3 }, 'REVOKED'],
    ['two nodes instead of an endpoint', [cert(), cert()], undefined, gateway.publicKey, {}, 'BAD_ENCODING'],
  ];
  test.each(refused)('%s is refused', (_, certificates, given, holder, change, expected) => {
    expect(code(() => verifyChain(certificates, given, holder, { ...session, ...change }))).toBe(expected);
  });

  test('stands with the clock at 1970, to its last second, and with an equal or higher generation', () => {
    expect(verifyChain([cert()], undefined, gateway.publicKey, { ...session, now: 0 }).name).toBe('gw');
    expect(verifyChain([cert()], undefined, gateway.publicKey, { ...session, now: NOW + 1_000 }).name).toBe('gw');
    for (const seen of [0, 1, 2]) {
      expect(verifyChain(chain(), granted(), endpoint.publicKey, { ...session, generationOf: () => seen }).generation).toBe(2);
    }
  });

  test('never throws anything but typed refusals, whatever the bytes', () => {
    const Any = fc.oneof(fc.uint8Array({ maxLength: 340 }), bent(cert()), bent(leaf()), bent(granted()), cborLike());
    fc.assert(
      fc.property(fc.array(Any, { maxLength: 3 }), fc.option(Any, { nil: undefined }), Key, (certificates, given, holder) => {
        expect(code(() => verifyChain(certificates, given, holder, session))).not.toBe('none');
      }),
      { numRuns: 300 },
    );
  });
});

describe('deterministic CBOR', () => {
  test('has one encoding per value', () => {
    const Leaf = fc.oneof(
      fc.maxSafeInteger(),
      fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
      fc.string(),
      fc.boolean(),
      fc.constant(null),
      fc.uint8Array(),
    );
    const Value = fc.letrec((tie) => ({ value: fc.oneof({ maxDepth: 4 }, Leaf, fc.array(tie('value'), { maxLength: 5 })) })).value;
    fc.assert(
      fc.property(Value, (value) => {
        const bytes = encodeCbor(value as never);
        expect(encodeCbor(decodeCbor(bytes))).toEqual(bytes);
      }),
    );
  });

  test('refuses every other form of the same value, and what is no value of ours', () => {
    const bad: Record<string, number[]> = {
      'a long form of 1': [0x18, 1],
      'a longer form of 255': [0x19, 0, 255],
      'a longest form': [0x1b, 0, 0, 0, 0, 0, 0, 0, 1],
      'an indefinite array': [0x9f, 1, 0xff],
      'an indefinite string': [0x5f, 0x41, 1, 0xff],
      'trailing bytes': [1, 1],
      'a tag': [0xc0, 1],
      undefined: [0xf7],
      'not a number': [0xf9, 0x7e, 0],
      infinity: [0xf9, 0x7c, 0],
      'unsorted keys': [0xa2, 0x61, 0x62, 1, 0x61, 0x61, 2],
      'duplicate keys': [0xa2, 0x61, 0x61, 1, 0x61, 0x61, 2],
      'invalid UTF-8': [0x61, 0xff],
      'a cut array': [0x82, 1],
      'a reserved form': [0x1c],
      'an absurd length': [0x5b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
      nothing: [],
    };
    for (const [what, bytes] of Object.entries(bad))
      expect([what, code(() => decodeCbor(Uint8Array.from(bytes)))]).toEqual([what, 'BAD_ENCODING']);
  });

  test('of any bytes, nested ever so deep, is a value or a typed refusal', () => {
    fc.assert(
      fc.property(fc.oneof(fc.uint8Array({ maxLength: 200 }), cborLike()), (bytes) => {
        let value: ReturnType<typeof decodeCbor>;
        try {
          value = decodeCbor(bytes);
        } catch (error) {
          expect(isThicketError(error)).toBe(true);
          return;
        }
        expect(encodeCbor(value)).toEqual(bytes);
      }),
      { numRuns: 2_000 },
    );
    for (const depth of [1_200, 60_000]) {
      const nested = new Uint8Array(depth).fill(0x81);
      nested[depth - 1] = 1;
      expect(['none', 'BAD_ENCODING']).toContain(code(() => decodeCbor(nested)));
    }
  });
});

describe('keys as text', () => {
  test('have one spelling each', () => {
    fc.assert(fc.property(Key, (key) => expect(parseKey(key.toUpperCase())).toBe(key)));
    for (const text of ['', 'a', `${'a'.repeat(51)}b`, `${'a'.repeat(51)}1`, 'a'.repeat(53), `${'a'.repeat(51)}=`]) {
      expect(code(() => parseKey(text))).toBe('BAD_KEY');
    }
    expect(keyBytes(parseKey('a'.repeat(52)))).toEqual(new Uint8Array(32));
  });

  test('of networks carry their naming secret behind a dot', () => {
    fc.assert(
      fc.property(Key, fc.option(fc.uint8Array({ minLength: 16, maxLength: 16 }), { nil: undefined }), (key, namingSecret) => {
        expect(parseNetworkRef(formatNetworkRef({ key, namingSecret }))).toEqual({ key, namingSecret });
      }),
    );
    const key = network.publicKey;
    for (const text of [`${key}.`, `${key}.abc`, `${key}.${'a'.repeat(26)}.x`, `${key}.${'a'.repeat(25)}b`, `x.${'a'.repeat(26)}`]) {
      expect(code(() => parseNetworkRef(text))).toBe('BAD_KEY');
    }
  });

  test('of names can only be made by who knows the secret', () => {
    const [a, b] = [sodium.randombytes_buf(16), sodium.randombytes_buf(16)];
    expect(nameKeyPair(a, 'camera').publicKey).toBe(nameKeyPair(a, 'camera').publicKey);
    expect(nameKeyPair(a, 'camera').publicKey).not.toBe(nameKeyPair(b, 'camera').publicKey);
    expect(nameKeyPair(a, 'camera').publicKey).not.toBe(nameKeyPair(a, 'camera2').publicKey);
  });

  test('never show their private half', async () => {
    const { inspect } = await import('node:util');
    const pair = KeyPair.generate();
    const seed = Buffer.from(pair.exportSeed()).toString('hex').slice(0, 16);
    for (const shown of [
      inspect(pair),
      JSON.stringify({ pair }),
      String(pair),
      inspect({ deep: { pair } }, { depth: 9, showHidden: true }),
    ]) {
      expect(shown).not.toContain(seed);
      expect(Buffer.from(shown).toString('hex')).not.toContain(seed);
    }
  });
});

describe('requests and bundles', () => {
  test('prove who asks', () => {
    const pair = KeyPair.generate();
    expect(decodeRequest(encodeRequest(pair))).toBe(pair.publicKey);
    const forged = encodeRequest(pair).replace(pair.publicKey, network.publicKey);
    expect(code(() => decodeRequest(forged))).toBe('BAD_SIGNATURE');
  });

  test('of any text are read or refused', () => {
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.json()), (text) => {
        expect(code(() => decodeRequest(text))).toBe('BAD_REQUEST');
        expect(code(() => decodeBundle(text))).toBe('BAD_CERTIFICATE');
      }),
    );
  });
});

describe('who', () => {
  const other = KeyPair.generate().publicKey;
  const identity = (change: Partial<VerifiedIdentity> = {}): VerifiedIdentity => ({
    key: gateway.publicKey,
    network: network.publicKey,
    name: 'laptop',
    groups: ['staff'],
    rights: [],
    serial: 1,
    issuedAt: NOW,
    notAfter: NOW,
    ...change,
  });

  test('is written as it is read', () => {
    const texts = [
      `node:${other}`,
      'name:camera',
      'name:camera.gw',
      `name:camera@${other}`,
      'group:staff',
      `group:staff@${other}`,
      `network:${other}`,
      'anyone-trusted',
    ];
    for (const text of texts) expect(formatWho(parseWho(text))).toBe(text);
  });

  test('that is nobody is refused in one line', () => {
    for (const text of [
      '',
      'staff',
      'user:staff',
      'group:',
      'group:A',
      'name:a..b',
      'node:',
      'node:abc',
      'network:abc',
      'group:staff@abc',
      'x@y',
      `node:${other}@${other}`,
    ]) {
      expect(['BAD_ARGUMENT', 'BAD_KEY']).toContain(code(() => parseWho(text)));
    }
    expect(() => parseWho('x@y')).toThrow(/names nobody/);
  });

  test("without a network means our own network only, and another's with it", () => {
    const group: Who = { kind: 'group', group: 'staff' };
    expect(matches(group, identity(), network.publicKey)).toBe(true);
    expect(matches(group, identity({ network: other }), network.publicKey)).toBe(false);
    expect(matches(group, identity(), undefined)).toBe(false);
    expect(matches({ ...group, network: other }, identity({ network: other }), network.publicKey)).toBe(true);
    expect(matches({ ...group, network: other }, identity(), network.publicKey)).toBe(false);
    const name: Who = { kind: 'name', name: 'laptop' };
    expect(matches(name, identity(), network.publicKey)).toBe(true);
    expect(matches(name, identity({ network: other }), network.publicKey)).toBe(false);
    expect(matches({ kind: 'name', name: 'camera' }, identity({ name: 'camera.gw', shortName: 'camera' }), network.publicKey)).toBe(true);
    expect(matches({ kind: 'name', name: 'camera' }, identity({ name: 'camera.gw' }), network.publicKey)).toBe(false);
    expect(matches({ kind: 'node', key: gateway.publicKey }, identity({ network: other }), network.publicKey)).toBe(true);
    expect(matches({ kind: 'node', key: other }, identity(), network.publicKey)).toBe(false);
    expect(matches({ kind: 'network', network: other }, identity(), network.publicKey)).toBe(false);
    expect(matches({ kind: 'anyone-trusted' }, identity({ network: other }), undefined)).toBe(true);
  });

  test('is admitted: our own network, and networks, nodes and gateways that are trusted', () => {
    const stranger = identity({ network: other, key: endpoint.publicKey, gateway: gateway.publicKey });
    expect(new TrustList(network.publicKey, []).admits(identity())).toBe(true);
    expect(new TrustList(network.publicKey, []).admits(stranger)).toBe(false);
    expect(new TrustList(undefined, []).admits(identity())).toBe(false);
    for (const trusted of [{ network: other }, { node: endpoint.publicKey }, { node: gateway.publicKey }]) {
      expect(new TrustList(network.publicKey, [trusted]).admits(stranger)).toBe(true);
    }
    expect(code(() => new TrustList(network.publicKey, []).require(stranger))).toBe('UNTRUSTED');
  });
});

/** A message with one to four bits bent. */
function bent(bytes: Uint8Array): fc.Arbitrary<Uint8Array> {
  return fc.array(fc.nat({ max: bytes.length * 8 - 1 }), { minLength: 1, maxLength: 4 }).map((bits) => {
    const copy = bytes.slice();
    for (const bit of bits) copy[bit >> 3] = (copy[bit >> 3] ?? 0) ^ (1 << (bit & 7));
    // Two equal bits bend nothing.
    copy[0] = bits.length % 2 === 0 ? (copy[0] ?? 0) ^ 1 : (copy[0] ?? 0);
    return copy;
  });
}

/** Bytes that look like CBOR for a while. */
function cborLike(): fc.Arbitrary<Uint8Array> {
  const Piece = fc.oneof(
    fc.constantFrom([0x80], [0x81], [0x88], [0x8b], [0x01], [0x00], [0xf6], [0xf5], [0x60], [0xa0], [0xa1], [0x3b], [0x1b], [0xfb]),
    fc.uint8Array({ minLength: 32, maxLength: 32 }).map((bytes) => [0x58, 0x20, ...bytes]),
    fc.uint8Array({ minLength: 64, maxLength: 64 }).map((bytes) => [0x58, 0x40, ...bytes]),
    fc.uint8Array({ maxLength: 9 }).map((bytes) => [...bytes]),
  );
  return fc.array(Piece, { maxLength: 12 }).map((pieces) => Uint8Array.from(pieces.flat()));
}
