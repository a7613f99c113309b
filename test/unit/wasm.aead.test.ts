/** The AEAD of both WASM builds against libsodium, through the boundary: every length, trains of every kind, counters at the edges of JavaScript's numbers. */
import { describe, expect, test } from '@jest/globals';
import { wasmBuilds } from '../../ts/dataplane/wasm/build.js';
import { sodium } from '../../ts/trust/index.js';
import { wasmModules } from '../impolite/wasm.js';

const [HEADER, TAG] = [20, 16];
const none = new Uint8Array(0);
const key = Uint8Array.from({ length: 32 }, (_, at) => at * 7 + 1);
const hex = (value: Uint8Array): string => Buffer.from(value).toString('hex');
const filled = (length: number, by: number): Uint8Array => Uint8Array.from({ length }, (_, at) => at * by + (at >> 8));

/** Four zero bytes, then the counter, little-endian. */
function nonceOf(counter: bigint): Uint8Array {
  const nonce = Buffer.alloc(12);
  nonce.writeBigUInt64LE(BigInt.asUintN(64, counter), 4);
  return nonce;
}

const expected = (counter: bigint, plaintext: Uint8Array, aad: Uint8Array = none): Uint8Array =>
  sodium.crypto_aead_chacha20poly1305_ietf_encrypt(plaintext, aad, null, nonceOf(counter), key);

/** A train as libsodium would seal it; `plain` has room for headers and tags. */
function expectedTrain(first: bigint, plain: Uint8Array, stride: number): Uint8Array {
  const sealed = plain.slice();
  for (let at = 0, counter = first; at < plain.length; at += stride, counter += 1n) {
    const end = Math.min(at + stride, plain.length);
    sealed.set(expected(counter, plain.subarray(at + HEADER, end - TAG)), at + HEADER);
  }
  return sealed;
}

describe.each(wasmBuilds)('the AEAD of WASM, %s', (build) => {
  const wasm = wasmModules[build];
  const aead = new wasm.AeadKey(key);

  test('seals packets of every length, with every length of additional data, as libsodium does, and opens nothing else', () => {
    for (let length = 0; length <= 1_500; length += length < 600 ? 1 : 37) {
      const [plain, aad] = [filled(length, 31), filled(length % 40, 11)];
      const sealed = aead.seal(nonceOf(7n), aad, plain);
      expect([length, hex(sealed)]).toEqual([length, hex(expected(7n, plain, aad))]);
      expect([length, hex(aead.open(nonceOf(7n), aad, sealed) ?? none)]).toEqual([length, hex(plain)]);
      const forged = sealed.slice();
      const at = (length * 13) % forged.length;
      forged[at] = (forged[at] ?? 0) ^ (1 << (length % 8));
      expect([length, aead.open(nonceOf(7n), aad, forged)]).toEqual([length, undefined]);
    }
    expect(aead.open(nonceOf(7n), none, new Uint8Array(TAG - 1))).toBeUndefined();
  });

  test('seals trains as libsodium does their packets; one that is forged says nothing about its neighbours', () => {
    for (const packets of [1, 2, 3, 4, 5, 7, 15, 16, 17, 48]) {
      for (const length of [0, 1, 16, 63, 64, 65, 127, 191, 192, 193, 255, 256, 257, 319, 320, 1_400]) {
        const stride = HEADER + length + TAG;
        // The last one is shorter.
        const plain = filled(stride * packets - (length >> 1), 29);
        const train = plain.slice();
        aead.sealTrain(3n, train, stride);
        const what = [packets, length];
        expect([...what, hex(train)]).toEqual([...what, hex(expectedTrain(3n, plain, stride))]);
        const forged = (packets * length) % packets;
        const byte = Math.min((forged + 1) * stride, train.length) - 1;
        train[byte] = (train[byte] ?? 0) ^ 0x80;
        expect([...what, aead.openTrain(3n, train, stride)]).toEqual([...what, packets - 1]);
        for (let packet = 0; packet < packets; packet += 1) {
          const [from, to] = [packet * stride + HEADER, Math.min((packet + 1) * stride, plain.length) - TAG];
          const inside = packet === forged ? new Uint8Array(to - from) : plain.subarray(from, to);
          expect([...what, packet, hex(train.subarray(from, to))]).toEqual([...what, packet, hex(inside)]);
        }
      }
    }
  });

  test("a train in the module's own memory is sealed and opened where it lies", () => {
    const stride = HEADER + 300 + TAG;
    const plain = filled(stride * 20, 5);
    const train = new wasm.Train(plain.length);
    const bytes = new Uint8Array(train.memory.buffer, train.at, plain.length);
    bytes.set(plain);
    train.seal(aead, 9n, stride);
    expect(hex(bytes)).toBe(hex(expectedTrain(9n, plain, stride)));
    expect(train.open(aead, 9n, stride)).toBe(20);
    expect(hex(bytes.subarray(HEADER, HEADER + 300))).toBe(hex(plain.subarray(HEADER, HEADER + 300)));
    train.free();
  });

  /** Where 32-bit numbers, JavaScript's safe integers, doubles' doubles, signed and unsigned 64-bit numbers end. */
  const EDGES = [1n << 32n, 1n << 53n, 1n << 54n, 1n << 62n, 1n << 63n, (1n << 64n) - 2n];

  test.each(EDGES)('counters cross %d', (edge) => {
    const [length, packets] = [100, 4];
    const stride = HEADER + length + TAG;
    const plain = filled(stride * packets, 3);
    const first = edge - 2n;
    const train = plain.slice();
    aead.sealTrain(first, train, stride);
    expect(hex(train)).toBe(hex(expectedTrain(first, plain, stride)));
    // A counter that had lost a bit on its way would open nothing.
    expect(aead.openTrain(first + 1n, train.slice(), stride)).toBe(0);
    expect(aead.openTrain(first, train, stride)).toBe(packets);
  });

  test.each(EDGES)('data packets and link frames carry counter %d whole', (edge) => {
    const hop = new wasm.HopKey(filled(16, 1));
    for (const counter of [edge - 1n, edge, edge + 1n]) {
      const field = BigInt.asUintN(64, counter);
      const packet = Buffer.from(wasm.dataPacket(key, field, 4_000, hop, filled(50, 7)));
      expect(packet.readBigUInt64BE(4)).toBe(field);
      expect(hex(packet.subarray(HEADER))).toBe(hex(expected(field, filled(50, 7))));
      expect(hex(packet.subarray(12, 20))).toBe(hex(hop.tag(4_000, field, packet.subarray(-TAG))));
      const frame = Buffer.from(wasm.linkFrame(key, field, 1, filled(50, 7)));
      expect(frame.readBigUInt64BE(8)).toBe(field);
      expect(hex(frame.subarray(16))).toBe(hex(expected(field, filled(50, 7), frame.subarray(0, 8))));
    }
    // The key's slot lies above the counter's 62 bits, which never reach it.
    expect(wasm.counterField(3, edge % (1n << 62n))).toBe((3n << 62n) + (edge % (1n << 62n)));
  });
});
