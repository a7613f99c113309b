/**
 * Picks the best data plane that this place can run: the native addon, else WebAssembly, else an error with every reason. `THICKET_BACKEND=native|wasm` forces one:
 * then it is that or an error.
 */
import { type Environment, hostSources, type LoadedAddon, loadAddon, type Sources } from '../addons/index.js';
import { describe, isThicketError, ThicketError } from '../errors.js';
import type { DataPlane, DataPlaneOptions, OnEvents } from './data-plane.js';
import { type NativeAddon, openNative } from './native.js';
import { openWasm } from './wasm/index.js';

export type BackendName = DataPlane['backend'];

export interface Backend {
  readonly name: BackendName;
  /** Where it comes from: `@thicket/linux-x64-gnu`, `build/Release`, or this package itself. */
  readonly from: string;
  /** One line: why it isn't the better one. Undefined for the best. */
  readonly shortfall: string | undefined;
  open(options: DataPlaneOptions, onEvents: OnEvents): DataPlane | Promise<DataPlane>;
}

/** What can be chosen from, for tests to be other. */
export interface Choice {
  readonly sources: () => Sources;
  /** Opens the WebAssembly backend; undefined where this version has none. */
  readonly wasm: Backend['open'] | undefined;
}

/** Throws BACKEND_UNAVAILABLE when nothing can be loaded, or not what `THICKET_BACKEND` asks for. */
export function chooseBackend(
  env: Environment = process.env,
  choice: Choice = { sources: () => hostSources(env), wasm: openWasm },
): Backend {
  const forced = env.THICKET_BACKEND || undefined;
  switch (forced) {
    case 'native':
      return native(choice);
    case 'wasm':
      return wasm(choice, 'THICKET_BACKEND=wasm asks for it');
    case undefined:
      break;
    default:
      throw new ThicketError('BACKEND_UNAVAILABLE', `THICKET_BACKEND=${forced} is not a backend: set it to native or wasm, or unset it`);
  }
  try {
    return native(choice);
  } catch (error) {
    if (!isThicketError(error) || error.code !== 'BACKEND_UNAVAILABLE' || choice.wasm === undefined) throw error;
    return wasm(choice, describe(error));
  }
}

function native({ sources }: Choice): Backend {
  const { addon, from } = loadAddon('thicket_addon', sources()) as LoadedAddon & { readonly addon: NativeAddon };
  return { name: 'native', from, shortfall: undefined, open: (options, onEvents) => openNative(addon, options, onEvents) };
}

function wasm(choice: Choice, shortfall: string): Backend {
  if (choice.wasm === undefined) {
    throw new ThicketError('BACKEND_UNAVAILABLE', 'the wasm backend is not in this version: unset THICKET_BACKEND or set it to native');
  }
  return { name: 'wasm', from: 'thicket', shortfall, open: choice.wasm };
}

/** Opens the data plane that `env` allows. */
export async function openDataPlane(options: DataPlaneOptions, onEvents: OnEvents, env: Environment = process.env): Promise<DataPlane> {
  return await chooseBackend(env).open(options, onEvents);
}
