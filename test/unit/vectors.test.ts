import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { type DhPair, Initiator, Responder, type Transport } from '../../ts/handshake/index.js';
import { agreementKey, keyFromBytes, sodium, verify } from '../../ts/trust/index.js';
import { native } from '../impolite/aead.js';
import { type AeadKey, wasm, wasmModules } from '../impolite/wasm.js';
import { repository } from '../lab/index.js';

interface Case {
  readonly tcId: number;
  readonly comment: string;
  readonly flags: readonly string[];
  readonly result: 'valid' | 'invalid' | 'acceptable';
}

interface Group<C extends Case> {
  readonly tests: readonly C[];
}

function load<T>(file: string): T {
  return JSON.parse(readFileSync(join(repository, 'test/vectors', file), 'utf8')) as T;
}

/** The groups of a Wycheproof file, after checking that none of its tests is missing. */
function wycheproof<G extends Group<Case>>(file: string): readonly G[] {
  const { numberOfTests, testGroups } = load<{ numberOfTests: number; testGroups: readonly G[] }>(`wycheproof/${file}`);
  expect(testGroups.reduce((sum, group) => sum + group.tests.length, 0)).toBe(numberOfTests);
  return testGroups;
}

const bytes = (hex: string): Uint8Array => new Uint8Array(Buffer.from(hex, 'hex'));
const hex = (value: Uint8Array): string => Buffer.from(value).toString('hex');

/** What `run` gives; undefined when it throws. */
function attempt<T>(run: () => T): T | undefined {
  try {
    return run();
  } catch {
    return undefined;
  }
}

describe('ChaCha20-Poly1305 agrees with Wycheproof', () => {
  interface AeadCase extends Case {
    readonly key: string;
    readonly iv: string;
    readonly aad: string;
    readonly msg: string;
    readonly ct: string;
    readonly tag: string;
  }

  interface Implementation {
    seal(key: Uint8Array, nonce: Uint8Array, aad: Uint8Array, plaintext: Uint8Array): Uint8Array;
    /** Throws, or gives nothing, for what doesn't open. */
    open(key: Uint8Array, nonce: Uint8Array, aad: Uint8Array, sealed: Uint8Array): Uint8Array | undefined;
  }

  const core = (make: (key: Uint8Array) => AeadKey): Implementation => ({
    seal: (key, nonce, aad, plaintext) => make(key).seal(nonce, aad, plaintext),
    open: (key, nonce, aad, sealed) => make(key).open(nonce, aad, sealed),
  });

  const implementations: Record<string, Implementation> = {
    ...Object.fromEntries(
      Object.entries(wasmModules).flatMap(([build, module]) =>
        module.aeadKernels().map((kernel) => [
          `the WASM core built ${build}, ${kernel}`,
          core((key) => {
            expect(module.chooseAead(kernel)).toBe(kernel);
            return new module.AeadKey(key);
          }),
        ]),
      ),
    ),
    ...Object.fromEntries(
      native.aeadKernels().map((kernel) => [
        `the native core, ${kernel}`,
        core((key) => {
          expect(native.chooseAead(kernel)).toBe(kernel);
          return new native.AeadKey(key);
        }),
      ]),
    ),
    // Seals handshakes and nothing else.
    libsodium: {
      seal: (key, nonce, aad, plaintext) => sodium.crypto_aead_chacha20poly1305_ietf_encrypt(plaintext, aad, null, nonce, key),
      open: (key, nonce, aad, sealed) => sodium.crypto_aead_chacha20poly1305_ietf_decrypt(null, sealed, aad, nonce, key),
    },
  };

  test.each(Object.entries(implementations))('%s', (_, { seal, open }) => {
    for (const group of wycheproof<Group<AeadCase>>('chacha20_poly1305_test.json')) {
      for (const c of group.tests) {
        const [key, nonce, aad, message, sealed] = [bytes(c.key), bytes(c.iv), bytes(c.aad), bytes(c.msg), bytes(c.ct + c.tag)];
        const opened = attempt(() => open(key, nonce, aad, sealed));
        expect([c.tcId, opened && hex(opened)]).toEqual([c.tcId, c.result === 'valid' ? c.msg : undefined]);
        const made = attempt(() => seal(key, nonce, aad, message));
        if (c.result === 'valid') expect([c.tcId, made && hex(made)]).toEqual([c.tcId, c.ct + c.tag]);
        else if (nonce.length !== 12) expect([c.tcId, made]).toEqual([c.tcId, undefined]);
        else expect([c.tcId, made && hex(made)]).not.toEqual([c.tcId, c.ct + c.tag]);
      }
    }
  });
});

describe('trains of data packets', () => {
  const [HEADER, TAG] = [20, 16];
  const key = Uint8Array.from({ length: 32 }, (_, at) => at * 7 + 1);
  const nonce = (counter: number): Uint8Array => Uint8Array.of(0, 0, 0, 0, counter, 0, 0, 0, 0, 0, 0, 0);

  /** Longer and shorter ones than a vector unit has lanes, at lengths around its blocks; the last packet is shorter. */
  test.each(native.aeadKernels())('%s seals each packet under its own counter, and the WASM core opens what it seals', (kernel) => {
    expect(native.chooseAead(kernel)).toBe(kernel);
    const [own, other] = [new native.AeadKey(key), new wasm.AeadKey(key)];
    for (const [packets, length] of [1, 5, 16, 40].flatMap((count) => [1, 64, 65, 300, 1_400].map((size) => [count, size] as const))) {
      const stride = HEADER + length + TAG;
      const plain = Uint8Array.from({ length: stride * packets + HEADER + 10 + TAG }, (_, at) => at * 31);
      const train = plain.slice();
      own.sealTrain(7n, train, stride);
      for (let packet = 0; packet <= packets; packet += 1) {
        const [start, end] = [packet * stride, Math.min((packet + 1) * stride, plain.length)];
        const sealed = other.seal(nonce(7 + packet), new Uint8Array(0), plain.subarray(start + HEADER, end - TAG));
        expect(hex(train.subarray(start, end))).toBe(hex(plain.subarray(start, start + HEADER)) + hex(sealed));
      }
      const copy = train.slice();
      expect(other.openTrain(7n, copy, stride)).toBe(packets + 1);
      // One that is forged says nothing about its neighbours.
      train[HEADER] = (train[HEADER] ?? 0) ^ 1;
      expect(own.openTrain(7n, train, stride)).toBe(packets);
      const second = [stride + HEADER, stride + HEADER + Math.min(length, 10)] as const;
      expect(hex(train.subarray(...second))).toBe(hex(plain.subarray(...second)));
    }
  });

  test('what no train or key can be is refused by a word, and unknown lanes', () => {
    expect(() => new native.AeadKey(new Uint8Array(31))).toThrow('key: 32 bytes are wanted');
    const aead = new native.AeadKey(key);
    expect(() => aead.seal(new Uint8Array(11), new Uint8Array(0), new Uint8Array(1))).toThrow('nonce: 12 bytes are wanted');
    expect(() => aead.sealTrain(0n, new Uint8Array(100), 0)).toThrow('stride: 1 byte or more is wanted');
    expect(() => aead.openTrain(-1n, new Uint8Array(100), 50)).toThrow('counter: 0 to 2^64 - 1 is wanted');
    expect(() => aead.openTrain(1n << 64n, new Uint8Array(100), 50)).toThrow('counter: 0 to 2^64 - 1 is wanted');
    expect(() => native.chooseAead('MMX')).toThrow('AEAD MMX: this processor has no such, see aeadKernels()');
    // No packet has room for header and tag.
    expect(aead.openTrain(0n, new Uint8Array(100), 10)).toBe(0);
  });
});

describe('X25519 agrees with Wycheproof', () => {
  interface XdhCase extends Case {
    readonly public: string;
    readonly private: string;
    readonly shared: string;
  }

  test('shared secrets are right, and public keys whose secret would be zero are refused', () => {
    let refused = 0;
    for (const group of wycheproof<Group<XdhCase>>('x25519_test.json')) {
      for (const c of group.tests) {
        const shared = attempt(() => sodium.crypto_scalarmult(bytes(c.private), bytes(c.public)));
        const zero = /^0*$/.test(c.shared);
        if (zero) refused += 1;
        expect([c.tcId, shared && hex(shared)]).toEqual([c.tcId, zero ? undefined : c.shared]);
      }
    }
    expect(refused).toBeGreaterThan(0);
  });

  test('a handshake with a public key of small order is refused', () => {
    const own = sodium.crypto_box_keypair();
    const pair: DhPair = { publicKey: own.publicKey, secret: own.privateKey };
    for (const group of wycheproof<Group<XdhCase>>('x25519_test.json')) {
      for (const c of group.tests.filter(({ shared }) => /^0*$/.test(shared))) {
        const remote = bytes(c.public);
        expect(() => new Initiator(new Uint8Array(0), pair, remote).writeMessage1(new Uint8Array(0))).toThrow(/small order/);
        const message = new Uint8Array(96);
        message.set(remote);
        expect(() => new Responder(new Uint8Array(0), pair).readStatic(message)).toThrow(/small order/);
      }
    }
  });
});

describe('Ed25519 agrees with Wycheproof', () => {
  interface EddsaCase extends Case {
    readonly msg: string;
    readonly sig: string;
  }

  interface EddsaGroup extends Group<EddsaCase> {
    readonly publicKey: { readonly pk: string };
  }

  test('exactly the valid signatures verify', () => {
    let valid = 0;
    for (const group of wycheproof<EddsaGroup>('ed25519_test.json')) {
      for (const c of group.tests) {
        const holds = attempt(() => sodium.crypto_sign_verify_detached(bytes(c.sig), bytes(c.msg), bytes(group.publicKey.pk))) ?? false;
        expect([c.tcId, holds]).toEqual([c.tcId, c.result === 'valid']);
        if (holds) valid += 1;
        // Never under one of our contexts: the message isn't the same.
        expect(verify(keyFromBytes(bytes(group.publicKey.pk)), 'certificate', bytes(c.msg), bytes(c.sig))).toBe(false);
      }
    }
    expect(valid).toBeGreaterThan(50);
  });

  // Order 1, 2, 4 and 8 (RFC 7748's curve in Edwards form), and encodings of these that aren't canonical.
  test.each([
    '0100000000000000000000000000000000000000000000000000000000000000',
    'ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
    '0000000000000000000000000000000000000000000000000000000000000000',
    '0000000000000000000000000000000000000000000000000000000000000080',
    'c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a',
    'c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa',
    '26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05',
    '26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85',
    'edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
    'eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
  ])('the key of small order %s has neither a signature nor an X25519 image', (text) => {
    const key = keyFromBytes(bytes(text));
    // R = identity, S = 0: verifies under such a key for any message where verification is lax.
    const signature = new Uint8Array(64);
    signature[0] = 1;
    for (let message = 0; message < 16; message += 1) {
      expect(verify(key, 'key exchange', Uint8Array.of(message), signature)).toBe(false);
    }
    expect(() => agreementKey(key)).toThrow(/no point/);
  });
});

describe('Noise IK agrees with cacophony', () => {
  interface NoiseVector {
    readonly protocol_name: string;
    readonly init_prologue: string;
    readonly init_static: string;
    readonly init_ephemeral: string;
    readonly init_remote_static: string;
    readonly resp_prologue: string;
    readonly resp_static: string;
    readonly resp_ephemeral: string;
    readonly handshake_hash: string;
    readonly messages: readonly { readonly payload: string; readonly ciphertext: string }[];
  }

  const pair = (secret: string): DhPair => ({ publicKey: sodium.crypto_scalarmult_base(bytes(secret)), secret: bytes(secret) });
  const { vectors } = load<{ vectors: readonly NoiseVector[] }>('cacophony/noise_ik_25519_chachapoly_blake2b.json');

  test.each(vectors.map((v) => [v.protocol_name, v] as const))('%s: both messages, the hash and the transport keys', (name, v) => {
    expect(name).toBe('Noise_IK_25519_ChaChaPoly_BLAKE2b');
    expect(hex(pair(v.resp_static).publicKey)).toBe(v.init_remote_static);
    const initiator = new Initiator(bytes(v.init_prologue), pair(v.init_static), bytes(v.init_remote_static), pair(v.init_ephemeral));
    const responder = new Responder(bytes(v.resp_prologue), pair(v.resp_static));
    const [first, second, ...transported] = v.messages;
    if (first === undefined || second === undefined) throw new Error('the vector has no handshake');

    const message1 = initiator.writeMessage1(bytes(first.payload));
    expect(hex(message1)).toBe(first.ciphertext);
    expect(hex(responder.readStatic(message1))).toBe(hex(pair(v.init_static).publicKey));
    expect(hex(responder.readPayload(message1).payload)).toBe(first.payload);

    const { message: message2, transport: theirs } = responder.writeMessage2(bytes(second.payload), pair(v.resp_ephemeral));
    expect(hex(message2)).toBe(second.ciphertext);
    const { payload, transport: ours } = initiator.readMessage2(message2);
    expect(hex(payload)).toBe(second.payload);
    expect([hex(ours.handshakeHash), hex(theirs.handshakeHash)]).toEqual([v.handshake_hash, v.handshake_hash]);

    // The transport's nonce is the core's: four zero bytes and the counter, little-endian.
    expect(transported.length).toBeGreaterThan(0);
    const sides: readonly [Transport, Transport] = [ours, theirs];
    transported.forEach(({ payload: plain, ciphertext }, index) => {
      const nonce = new Uint8Array(12);
      nonce[4] = index >> 1;
      const [from, to] = index % 2 === 0 ? sides : [theirs, ours];
      expect(hex(new wasm.AeadKey(from.send).seal(nonce, new Uint8Array(0), bytes(plain)))).toBe(ciphertext);
      expect(hex(new wasm.AeadKey(to.receive).open(nonce, new Uint8Array(0), bytes(ciphertext)) ?? new Uint8Array(0))).toBe(plain);
    });
  });
});
