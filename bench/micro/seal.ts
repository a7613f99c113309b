/** ChaCha20-Poly1305 through everything that Thicket could seal with: the native core, the same core in WASM, libsodium-wrappers and node:crypto. */
import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { wasm } from '../../test/impolite/wasm.js';
import { repository, run } from '../../test/lab/index.js';
import { sodium } from '../../ts/trust/index.js';
import { measure } from './measure.js';
import type { SealRow } from './results.js';

export const SIZES = [64, 256, 1_400, 16_384] as const;
/** As in native/core/examples/seal.rs. */
const TRAIN = 48;
/** Clear header and tag of a data packet. */
const OVERHEAD = 36;

/** Seals and opens packets of one size; each call does so many of them. */
interface Candidate {
  readonly implementation: string;
  readonly packets: number;
  make(size: number): { seal(): void; open(): void };
}

const key = randomBytes(32);
const nonce = randomBytes(12);
const none = new Uint8Array(0);

const candidates: readonly Candidate[] = [
  {
    implementation: 'WASM, in trains',
    packets: TRAIN,
    make(size) {
      const aead = new wasm.AeadKey(key);
      const stride = size + OVERHEAD;
      const train = new Uint8Array(stride * TRAIN);
      const sealed = train.slice();
      aead.sealTrain(0n, sealed, stride);
      return {
        seal: () => aead.sealTrain(0n, train, stride),
        open: () => {
          train.set(sealed);
          if (aead.openTrain(0n, train, stride) !== TRAIN) throw new Error('a sealed packet did not open');
        },
      };
    },
  },
  {
    implementation: 'WASM, one by one',
    packets: 1,
    make(size) {
      const aead = new wasm.AeadKey(key);
      const plain = randomBytes(size);
      const sealed = aead.seal(nonce, none, plain);
      return {
        seal: () => void aead.seal(nonce, none, plain),
        open: () => {
          if (aead.open(nonce, none, sealed)?.length !== size) throw new Error('a sealed packet did not open');
        },
      };
    },
  },
  {
    implementation: 'libsodium-wrappers',
    packets: 1,
    make(size) {
      const plain = randomBytes(size);
      const sealed = sodium.crypto_aead_chacha20poly1305_ietf_encrypt(plain, none, null, nonce, key);
      return {
        seal: () => void sodium.crypto_aead_chacha20poly1305_ietf_encrypt(plain, none, null, nonce, key),
        open: () => void sodium.crypto_aead_chacha20poly1305_ietf_decrypt(null, sealed, none, nonce, key),
      };
    },
  },
  {
    implementation: 'node:crypto',
    packets: 1,
    make(size) {
      const options = { authTagLength: 16 };
      const plain = randomBytes(size);
      const seal = (): { readonly text: Buffer; readonly tag: Buffer } => {
        const cipher = createCipheriv('chacha20-poly1305', key, nonce, options);
        const text = cipher.update(plain);
        cipher.final();
        return { text, tag: cipher.getAuthTag() };
      };
      const sealed = seal();
      return {
        seal,
        open: () => {
          const decipher = createDecipheriv('chacha20-poly1305', key, nonce, options);
          decipher.setAuthTag(sealed.tag);
          decipher.update(sealed.text);
          // Throws unless the tag holds.
          decipher.final();
        },
      };
    },
  },
];

/** Every implementation and size; `seconds` for each figure. */
export async function sealRows(seconds: number): Promise<SealRow[]> {
  const rows = await native(seconds);
  // Sizes outside, so that a slow minute of the machine hits all alike.
  for (const size of SIZES) {
    for (const { implementation, packets, make } of candidates) {
      const { seal, open } = make(size);
      const figure = (call: () => void): number => measure(call, seconds).nanoseconds / packets;
      rows.push({ implementation, size, packets, seal: figure(seal), open: figure(open) });
    }
  }
  return rows;
}

/** The native core, measured in Rust: the addon exports nothing that seals, and no packet of its own enters JavaScript. */
async function native(seconds: number): Promise<SealRow[]> {
  const { stdout } = await run([join(repository, 'native/target/release/examples/seal'), String(seconds)], { timeoutMs: 120_000 });
  const { rows } = JSON.parse(stdout) as { readonly rows: readonly SealRow[] };
  return rows.map((row) => ({
    ...row,
    implementation: `native, ${row.implementation}${row.packets === 1 ? ', one by one' : ', in trains'}`,
  }));
}
