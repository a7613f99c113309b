/**
 * Which build of the WASM module runs here: with vectors (`simd128`), by which it seals some three times as fast, or without (`scalar`), where the engine has
 * none. `THICKET_WASM=simd128|scalar` forces one, for tests and to find out whose fault something is.
 */
import { join } from 'node:path';
import { ThicketError } from '../../errors.js';
import { packageRoot } from '../../package-root.js';

export const wasmBuilds = ['simd128', 'scalar'] as const;
export type WasmBuild = (typeof wasmBuilds)[number];

/** A function of no arguments that returns `i8x16.popcnt(i8x16.splat(0))`. */
const PROBE = Uint8Array.of(
  ...[0, 97, 115, 109, 1, 0, 0, 0],
  ...[1, 5, 1, 96, 0, 1, 123],
  ...[3, 2, 1, 0],
  ...[10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11],
);

/** Node has it; the ES libraries and Node's types don't. */
interface Engine {
  readonly WebAssembly: { validate(bytes: Uint8Array): boolean };
}

const hasVectors = (): boolean => (globalThis as unknown as Engine).WebAssembly.validate(PROBE);

/** Throws BACKEND_UNAVAILABLE when another build is forced than there is. */
export function wasmBuild(forced: string | undefined = process.env['THICKET_WASM'], vectors: () => boolean = hasVectors): WasmBuild {
  if (forced === undefined || forced === '') return vectors() ? 'simd128' : 'scalar';
  const build = wasmBuilds.find((name) => name === forced);
  if (build === undefined) {
    throw new ThicketError(
      'BACKEND_UNAVAILABLE',
      `THICKET_WASM=${forced} is no build of the WASM module: set it to simd128 or scalar, or unset it`,
    );
  }
  return build;
}

/** The folder of a build. */
export function wasmFolder(build: WasmBuild): string {
  return join(packageRoot, build === 'simd128' ? 'wasm/pkg/simd128' : 'wasm/pkg');
}
