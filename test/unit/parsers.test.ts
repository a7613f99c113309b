/** Everything that reads bytes from other nodes' control logic: decode∘encode is the identity, and no bytes at all make it throw what it shouldn't. */
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import type { Label } from '../../ts/dataplane/data-plane.js';
import { isThicketError } from '../../ts/errors.js';
import {
  chainHash,
  decodeBehind,
  decodeIdentity,
  decodeRekey,
  decodeRekeyAnswer,
  encodeBehind,
  encodeIdentity,
  encodeRekey,
  encodeSendAll,
} from '../../ts/handshake/payload.js';
import { controlKind, decodeHello, encodeHello, helloNonce, nonceFrame, readNonce } from '../../ts/node/session-control.js';
import {
  type AnnouncedType,
  announceFrame,
  decodeFrame,
  encodeFrame,
  type Frame,
  SESSION_MESSAGE,
  withdrawFrames,
} from '../../ts/routing/frames.js';
import {
  compareStamps,
  countersignEdge,
  signEdge,
  signEndpointEdge,
  signNameRecord,
  signParentSet,
  verifyEdge,
  verifyEndpointEdge,
  verifyNameRecord,
  verifyParentSet,
} from '../../ts/routing/statements.js';
import { KeyPair, keyFromBytes, sodium } from '../../ts/trust/index.js';

/** What a link frame holds at most. */
const FRAME_MAX = 1_200;

const Key = fc.uint8Array({ minLength: 32, maxLength: 32 }).map(keyFromBytes);
const U64 = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
const U32 = fc.nat({ max: 0xffff_ffff });
const Byte = fc.nat({ max: 255 });
const AnyLabel = fc.integer({ min: 256, max: 0xffff_ffff }).map((label) => label as Label);
const Message = fc.uint8Array({ minLength: SESSION_MESSAGE, maxLength: SESSION_MESSAGE });

const AnyFrame: fc.Arbitrary<Frame> = fc.oneof(
  fc.record(
    { kind: fc.constant('setup' as const), hops: Byte, label: AnyLabel, destination: Key, id: U64, replaces: AnyLabel, message: Message },
    { requiredKeys: ['kind', 'hops', 'label', 'destination', 'id', 'message'] },
  ),
  fc.record({ kind: fc.constant('answer' as const), label: AnyLabel, forward: AnyLabel, id: U64, message: Message }),
  fc.record({
    kind: fc.constant('error' as const),
    label: AnyLabel,
    reason: fc.constantFrom('noRoute' as const, 'refused' as const, 'dead' as const),
  }),
  fc.record({ kind: fc.constant('close' as const), label: AnyLabel }),
  fc.record({
    kind: fc.constant('announce' as const),
    items: fc.array(
      fc.record({
        type: fc.constantFrom<AnnouncedType[]>('edge', 'parentSet', 'endpointEdge', 'name'),
        bytes: fc.uint8Array({ maxLength: 300 }),
      }),
      { maxLength: 4 },
    ),
  }),
  fc.record({ kind: fc.constant('withdraw' as const), keys: fc.array(Key, { maxLength: 32 }) }),
  fc.record({ kind: fc.constant('lookup' as const), id: U64, name: Key, exclude: fc.array(Key, { maxLength: 8 }) }),
  fc.record({
    kind: fc.constant('found' as const),
    id: U64,
    status: fc.constantFrom('found' as const, 'notFound' as const, 'unreachable' as const),
    keys: fc.array(Key, { maxLength: 4 }),
  }),
  fc.record({ kind: fc.constant('probe' as const), label: AnyLabel, hops: Byte, nonce: U64 }),
  fc.record({ kind: fc.constant('probed' as const), label: AnyLabel, hop: Byte, nonce: U64, key: Key }),
  fc.record({ kind: fc.constant('nonce' as const), nonce: fc.uint8Array({ minLength: 16, maxLength: 16 }) }),
  fc.record({ kind: fc.constantFrom('edgeHalf' as const, 'edgeFull' as const), statement: fc.uint8Array({ maxLength: 300 }) }),
  fc.record({ kind: fc.constant('numbered' as const), number: U32, body: fc.uint8Array({ minLength: 1, maxLength: 1_100 }) }),
  fc.record({ kind: fc.constant('acknowledged' as const), next: U32, later: U32 }),
  fc.record({ kind: fc.constant('complete' as const) }),
);

/** Bent copies of what is valid, and anything at all. */
const near = (valid: fc.Arbitrary<Uint8Array>): fc.Arbitrary<Uint8Array> =>
  fc.oneof(
    fc.uint8Array({ maxLength: FRAME_MAX }),
    fc.tuple(valid, fc.nat(), Byte).map(([bytes, at, value]) => bytes.map((byte, i) => (i === at % bytes.length ? value : byte))),
    fc.tuple(valid, fc.nat()).map(([bytes, length]) => bytes.slice(0, length % (bytes.length + 1))),
    fc.tuple(valid, fc.uint8Array({ minLength: 1, maxLength: 8 })).map(([bytes, more]) => new Uint8Array([...bytes, ...more])),
  );

/** Undefined where a typed refusal was thrown; any other error fails the test. */
function typed<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    if (isThicketError(error)) return undefined;
    throw error;
  }
}

describe('control frames between neighbours', () => {
  test('decode to what was encoded, and fit into a link frame', () => {
    fc.assert(
      fc.property(AnyFrame, (frame) => {
        const bytes = encodeFrame(frame);
        expect(decodeFrame(bytes)).toEqual(frame);
        if (frame.kind !== 'announce' && frame.kind !== 'withdraw') expect(bytes.length).toBeLessThanOrEqual(FRAME_MAX);
      }),
      { numRuns: 300 },
    );
  });

  test('of any bytes are one frame, by its only encoding, or none', () => {
    fc.assert(
      fc.property(near(AnyFrame.map(encodeFrame)), (bytes) => {
        const frame = decodeFrame(bytes);
        if (frame !== undefined) expect(encodeFrame(frame)).toEqual(bytes);
      }),
      { numRuns: 3_000 },
    );
    expect(decodeFrame(new Uint8Array(0))).toBeUndefined();
  });

  test('never name a label that could be mistaken for a message type', () => {
    const frame = encodeFrame({ kind: 'close', label: 300 as Label });
    frame.set([0, 0, 0, 255], 1);
    expect(decodeFrame(frame)).toBeUndefined();
  });

  test('carry long lists in several, each with its number within a link frame', () => {
    const items = Array.from({ length: 20 }, (_, n) => ({ type: 'edge' as const, bytes: sodium.randombytes_buf(130 + 18 * n) }));
    const carried: unknown[] = [];
    for (let at = 0; at < items.length; ) {
      const { frame, count } = announceFrame(items.slice(at));
      expect(frame.length + 5).toBeLessThanOrEqual(FRAME_MAX);
      const decoded = decodeFrame(frame);
      if (decoded?.kind === 'announce') carried.push(...decoded.items);
      at += count;
    }
    expect(carried).toEqual(items);
    const keys = Array.from({ length: 70 }, () => KeyPair.generate().publicKey);
    const frames = withdrawFrames(keys);
    expect(frames.every((frame) => frame.length + 5 <= FRAME_MAX)).toBe(true);
    expect(frames.map(decodeFrame).flatMap((frame) => (frame?.kind === 'withdraw' ? frame.keys : []))).toEqual(keys);
  });
});

describe('statements about the tree', () => {
  const [child, parent, endpoint, other] = [KeyPair.generate(), KeyPair.generate(), KeyPair.generate(), KeyPair.generate()];
  const nonce = sodium.randombytes_buf(16);
  const stamp = { epoch: 3n, seq: 2n ** 63n };
  const edge = { child: child.publicKey, parent: parent.publicKey, nonce, ...stamp };
  const full = countersignEdge(signEdge(edge, child), parent).bytes;
  const place = signEndpointEdge({ ...edge, child: endpoint.publicKey, parent: child.publicKey }, endpoint, child);
  const set = signParentSet({ child: child.publicKey, parents: [parent.publicKey, other.publicKey], ...stamp }, child);
  const name = signNameRecord(stamp, endpoint, child);
  const all: readonly [string, Uint8Array, (bytes: Uint8Array) => unknown][] = [
    ['an edge', full, verifyEdge],
    ['an endpoint edge', place, verifyEndpointEdge],
    ['a parent set', set, verifyParentSet],
    ['a name record', name, verifyNameRecord],
  ];

  test('read as they were signed', () => {
    expect(verifyEdge(full)).toEqual(edge);
    expect(verifyEndpointEdge(place)).toEqual({ ...edge, child: endpoint.publicKey, parent: child.publicKey });
    expect(verifyParentSet(set)).toEqual({ child: child.publicKey, parents: [parent.publicKey, other.publicKey], ...stamp });
    expect(verifyNameRecord(name)).toEqual({ name: endpoint.publicKey, holder: child.publicKey, ...stamp });
  });

  test.each(all)('%s with any bit bent, or cut, is refused', (_, bytes, read) => {
    for (let bit = 0; bit < bytes.length * 8; bit += 1) {
      const bent = bytes.map((byte, i) => (i === bit >> 3 ? byte ^ (1 << (bit & 7)) : byte));
      expect(typed(() => read(bent))).toBeUndefined();
    }
    for (let length = 0; length < bytes.length; length += 1) expect(typed(() => read(bytes.subarray(0, length)))).toBeUndefined();
  });

  test('half signed, or signed by another than they name, are refused', () => {
    expect(typed(() => verifyEdge(signEdge(edge, child)))).toBeUndefined();
    expect(typed(() => verifyEdge(countersignEdge(signEdge(edge, child), other).bytes))).toBeUndefined();
    expect(typed(() => countersignEdge(signEdge(edge, other), parent))).toBeUndefined();
    expect(typed(() => verifyEndpointEdge(signEndpointEdge({ ...edge, child: endpoint.publicKey }, endpoint, other)))).toBeUndefined();
    expect(typed(() => verifyEdge(place))).toBeUndefined();
    expect(typed(() => verifyEndpointEdge(full))).toBeUndefined();
    const five = Array.from({ length: 5 }, () => other.publicKey);
    expect(typed(() => verifyParentSet(signParentSet({ child: child.publicKey, parents: five, ...stamp }, child)))).toBeUndefined();
  });

  test('of any bytes are typed refusals', () => {
    const Bytes = near(fc.constantFrom(full, place, set, name));
    fc.assert(
      fc.property(Bytes, (bytes) => {
        for (const [, , read] of all) typed(() => read(bytes));
        typed(() => countersignEdge(bytes, parent));
      }),
      { numRuns: 300 },
    );
  });

  test('are ordered by boot, then by number', () => {
    expect(compareStamps({ epoch: 2n, seq: 0n }, { epoch: 1n, seq: 9n })).toBe(1);
    expect(compareStamps({ epoch: 1n, seq: 8n }, { epoch: 1n, seq: 9n })).toBe(-1);
    expect(compareStamps({ epoch: 1n, seq: 9n }, { epoch: 1n, seq: 9n })).toBe(0);
  });
});

describe('handshake payloads', () => {
  const pair = KeyPair.generate();
  const transcript = sodium.randombytes_buf(64);

  test('decode to what was encoded, at their fixed size', () => {
    const Certificate = fc.uint8Array({ minLength: 1, maxLength: 320 });
    const Grant = fc.option(fc.uint8Array({ minLength: 1, maxLength: 200 }), { nil: undefined });
    fc.assert(
      fc.property(fc.array(Certificate, { maxLength: 2 }), Grant, U64, U32, (chain, grant, epoch, features) => {
        const payload = encodeIdentity(pair, { chain, grant, epoch, features }, transcript, 1_052);
        expect(payload.length).toBe(1_052);
        expect(decodeIdentity(payload, transcript)).toEqual({ key: pair.publicKey, chain, grant, epoch, features });
        expect(decodeBehind(payload, pair.publicKey, transcript)).toBeUndefined();
        const behind = encodeBehind(pair, epoch, transcript, 1_100);
        expect(decodeBehind(behind, pair.publicKey, transcript)).toBe(epoch);
        expect(typed(() => decodeIdentity(behind, transcript))).toBeUndefined();
        const rekey = { index: features, chain: chainHash(chain, grant) };
        const encoded = encodeRekey(pair, rekey, transcript, 304);
        expect(decodeRekey(encoded, pair.publicKey, transcript)).toEqual(rekey);
        expect(decodeRekeyAnswer(encoded, pair.publicKey, transcript)).toEqual(rekey);
        const all = encodeSendAll(pair, transcript, 352);
        expect(decodeRekeyAnswer(all, pair.publicKey, transcript)).toBe('sendAll');
        expect(typed(() => decodeRekey(all, pair.publicKey, transcript))).toBeUndefined();
      }),
      { numRuns: 60 },
    );
  });

  test('hold for one transcript and one key only', () => {
    const payload = encodeIdentity(pair, { chain: [], grant: undefined, epoch: 1n, features: 0 }, transcript, 1_052);
    expect(typed(() => decodeIdentity(payload, sodium.randombytes_buf(64)))).toBeUndefined();
    const behind = encodeBehind(pair, 9n, transcript, 1_100);
    expect(typed(() => decodeBehind(behind, KeyPair.generate().publicKey, transcript))).toBeUndefined();
    expect(typed(() => decodeBehind(behind, pair.publicKey, sodium.randombytes_buf(64)))).toBeUndefined();
    const rekey = encodeRekey(pair, { index: 1, chain: new Uint8Array(16) }, transcript, 304);
    expect(typed(() => decodeRekey(rekey, KeyPair.generate().publicKey, transcript))).toBeUndefined();
    const all = encodeSendAll(pair, transcript, 352);
    expect(typed(() => decodeRekeyAnswer(all, KeyPair.generate().publicKey, transcript))).toBeUndefined();
    expect(typed(() => decodeRekeyAnswer(all, pair.publicKey, sodium.randombytes_buf(64)))).toBeUndefined();
  });

  test('of any bytes are typed refusals', () => {
    const identity = encodeIdentity(
      pair,
      { chain: [sodium.randombytes_buf(300)], grant: undefined, epoch: 1n, features: 0 },
      transcript,
      1_052,
    );
    fc.assert(
      fc.property(near(fc.constantFrom(identity, encodeBehind(pair, 9n, transcript, 1_100))), (bytes) => {
        typed(() => decodeIdentity(bytes, transcript));
        typed(() => decodeBehind(bytes, pair.publicKey, transcript));
        typed(() => decodeRekey(bytes, pair.publicKey, transcript));
      }),
      { numRuns: 500 },
    );
  });

  test('too long for their message are not made', () => {
    const chain = [sodium.randombytes_buf(320), sodium.randombytes_buf(320)];
    expect(() => encodeIdentity(pair, { chain, grant: sodium.randombytes_buf(300), epoch: 1n, features: 0 }, transcript, 1_052)).toThrow(
      /too long/,
    );
    // The longest that certificates and grants may be fit.
    expect(
      encodeIdentity(pair, { chain, grant: sodium.randombytes_buf(214), epoch: 2n ** 64n - 1n, features: 0 }, transcript, 1_052).length,
    ).toBe(1_052);
  });
});

describe('session control', () => {
  const Service = fc.record({
    protocol: fc.constantFrom('tcp' as const, 'udp' as const),
    port: fc.integer({ min: 1, max: 65_535 }),
    rtsp: fc.boolean(),
  });

  test('hellos decode to what was encoded', () => {
    fc.assert(
      fc.property(fc.array(Service, { maxLength: 128 }), (services) => {
        const frame = encodeHello(services);
        expect(frame.length).toBeLessThanOrEqual(FRAME_MAX);
        expect(decodeHello(frame)).toEqual(services);
      }),
    );
    expect(helloNonce(encodeHello([]))).not.toBe(helloNonce(encodeHello([{ protocol: 'tcp', port: 1, rtsp: false }])));
  });

  test('hellos of any bytes are services or nothing', () => {
    fc.assert(
      fc.property(near(fc.array(Service, { maxLength: 20 }).map(encodeHello)), (bytes) => {
        for (const service of decodeHello(bytes) ?? []) {
          expect(service.port).toBeGreaterThanOrEqual(1);
          expect(service.port).toBeLessThanOrEqual(65_535);
        }
      }),
      { numRuns: 2_000 },
    );
  });

  test('nonces come back as they were sent', () => {
    fc.assert(fc.property(U64, (nonce) => expect(readNonce(nonceFrame(controlKind.ping, nonce))).toBe(nonce)));
    for (const length of [0, 1, 8, 10]) expect(readNonce(new Uint8Array(length))).toBeUndefined();
  });
});
