/**
 * ChaCha20-Poly1305 through everything that Thicket could seal with: the native core (N-API) with each kind of lanes that this processor has, the same
 * core in WASM with vectors and without, libsodium-wrappers and node:crypto.
 */
import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto';
import { native } from '../../test/impolite/aead.js';
import { type AeadKey, type WasmModule, wasmModules } from '../../test/impolite/wasm.js';
import { wasmBuilds } from '../../ts/dataplane/wasm/build.js';
import { sodium } from '../../ts/trust/index.js';
import { least } from './measure.js';
import { nativeName, type SealRow } from './results.js';

export const SIZES = [64, 256, 1_400, 16_384] as const;
/** Packets in a train: of short ones as many as one `UDP_SEGMENT` message takes; of long ones, too, whole groups of the widest lanes. */
const trainOf = (size: number): number => (size < 1_000 ? 64 : 48);
/** Clear header and tag of a data packet. */
const OVERHEAD = 36;

/** Seals and opens packets of one size; each call does so many of them. */
interface Candidate {
  readonly implementation: string;
  packets(size: number): number;
  /** Before it is measured. */
  prepare?(): void;
  make(size: number): Work;
}

interface Work {
  seal(): void;
  open(): void;
  /** The part of `open` that only gives it something to open again: opening is in place. */
  restore?(): void;
}

const key = randomBytes(32);
const nonce = randomBytes(12);
const none = new Uint8Array(0);

function inTrains(aead: AeadKey, size: number): Work {
  const [stride, packets] = [size + OVERHEAD, trainOf(size)];
  const train = new Uint8Array(stride * packets);
  const sealed = train.slice();
  aead.sealTrain(0n, sealed, stride);
  const restore = (): void => train.set(sealed);
  return {
    seal: () => aead.sealTrain(0n, train, stride),
    open: () => {
      restore();
      if (aead.openTrain(0n, train, stride) !== packets) throw new Error('a sealed packet did not open');
    },
    restore,
  };
}

/** Trains that lie in the module's memory, as they do in a node on WASM: JavaScript only touches them through views. */
function inMemory({ AeadKey, Train }: WasmModule, size: number): Work {
  const [stride, packets] = [size + OVERHEAD, trainOf(size)];
  const aead = new AeadKey(key);
  const train = new Train(stride * packets);
  train.seal(aead, 0n, stride);
  const sealed = new Uint8Array(train.memory.buffer, train.at, stride * packets).slice();
  const restore = (): void => new Uint8Array(train.memory.buffer, train.at, stride * packets).set(sealed);
  return {
    seal: () => train.seal(aead, 0n, stride),
    open: () => {
      restore();
      if (train.open(aead, 0n, stride) !== packets) throw new Error('a sealed packet did not open');
    },
    restore,
  };
}

function oneByOne(aead: AeadKey, size: number): Work {
  const plain = randomBytes(size);
  const sealed = aead.seal(nonce, none, plain);
  return {
    seal: () => void aead.seal(nonce, none, plain),
    open: () => {
      if (aead.open(nonce, none, sealed)?.length !== size) throw new Error('a sealed packet did not open');
    },
  };
}

function core(name: string, make: () => AeadKey, prepare: () => void = () => undefined): Candidate[] {
  return [
    { implementation: `${name}, in trains`, packets: trainOf, prepare, make: (size) => inTrains(make(), size) },
    { implementation: `${name}, one by one`, packets: () => 1, prepare, make: (size) => oneByOne(make(), size) },
  ];
}

/** Has the addon seal with this; a kernel that fails its self-test isn't measured under its name. */
function choose(kernel: string): void {
  const chosen = native.chooseAead(kernel);
  if (chosen !== kernel) throw new Error(`${kernel} was wanted, and ${chosen} seals`);
}

const candidates: readonly Candidate[] = [
  ...native.aeadKernels().flatMap((kernel) =>
    core(
      nativeName(kernel),
      () => new native.AeadKey(key),
      () => choose(kernel),
    ),
  ),
  ...wasmBuilds.flatMap((build): Candidate[] => {
    const module = wasmModules[build];
    const prepare = (): void => {
      if (module.chooseAead('auto') !== build) throw new Error(`WASM's ${build} fails its self-test`);
    };
    return [
      { implementation: `wasm (${build}), in trains`, packets: trainOf, prepare, make: (size) => inMemory(module, size) },
      { implementation: `wasm (${build}), one by one`, packets: () => 1, prepare, make: (size) => oneByOne(new module.AeadKey(key), size) },
    ];
  }),
  {
    implementation: 'libsodium-wrappers',
    packets: () => 1,
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
    packets: () => 1,
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
export function sealRows(seconds: number): SealRow[] {
  const rows: SealRow[] = [];
  // Sizes outside, so that a slow minute of the machine hits all alike.
  for (const size of SIZES) {
    for (const { implementation, packets, prepare, make } of candidates) {
      prepare?.();
      const { seal, open, restore } = make(size);
      const count = packets(size);
      const figure = (call: () => void): number => least(call, seconds) / count;
      const opened = figure(open) - (restore === undefined ? 0 : figure(restore));
      rows.push({ implementation, size, packets: count, seal: figure(seal), open: opened });
    }
  }
  return rows;
}
