/** What the Rust addon exports for vectors and benches alone (native/addon/src/aead_key.rs). Built by `build_native` of scripts/common.sh. */
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { repository } from '../lab/repository.js';
import type { AeadKey } from './wasm.js';

export interface AeadAddon {
  AeadKey: new (bytes: Uint8Array) => AeadKey;
  /** What this processor can seal with, the fastest first; `ring` is the last. */
  aeadKernels(): string[];
  /** `auto`, or one of them, for this whole process. Returns what seals from now on: `ring` where the wanted one fails its self-test. */
  chooseAead(name: string): string;
}

export const native = createRequire(import.meta.url)(join(repository, 'build/Release/thicket_addon.node')) as AeadAddon;
