/** Sizes of what is compiled and shipped. */
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { repository } from '../../test/lab/index.js';

const FILES = [
  'build/Release/thicket_addon.node',
  'build/Release/thicket_kernel.node',
  'wasm/pkg/thicket_wasm_bg.wasm',
  'wasm/pkg/simd128/thicket_wasm_bg.wasm',
];

/** Bytes by file; what isn't built is missing. */
export function sizes(): Record<string, number> {
  const found: Record<string, number> = {};
  for (const file of FILES) {
    const stat = statSync(join(repository, file), { throwIfNoEntry: false });
    if (stat !== undefined) found[file] = stat.size;
  }
  return found;
}
