/** Picks the best data plane that this place can run. Every load error is kept: the message is built from that evidence. */
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { describe, ThicketError } from '../errors.js';
import { packageRoot } from '../package-root.js';
import { version } from '../version.js';
import type { DataPlane, DataPlaneOptions, OnEvents } from './data-plane.js';
import { type NativeAddon, openNative } from './native.js';

const ADDON = join(packageRoot, 'build/Release/thicket_addon.node');

export type Environment = Readonly<Record<string, string | undefined>>;

/**
 * Loads the native addon. Throws BACKEND_UNAVAILABLE when it can't be loaded or is of another version, or when `THICKET_BACKEND=wasm` asks
 * for the backend that this version doesn't have yet.
 */
export function loadAddon(env: Environment, load: (path: string) => unknown = createRequire(import.meta.url)): NativeAddon {
  const forced = env.THICKET_BACKEND;
  if (forced !== undefined && forced !== '' && forced !== 'native') {
    const known = forced === 'wasm' ? 'the wasm backend is not in this version' : `THICKET_BACKEND=${forced} is not a backend`;
    throw new ThicketError('BACKEND_UNAVAILABLE', `${known}: unset THICKET_BACKEND or set it to native`);
  }
  let addon: NativeAddon;
  try {
    addon = load(ADDON) as NativeAddon;
  } catch (error) {
    const reason = describe(error).split('\n', 1)[0] ?? '';
    throw new ThicketError('BACKEND_UNAVAILABLE', `the native addon can't be loaded (${reason}): run npm run build`, { cause: error });
  }
  if (addon.version() !== version) {
    const text = `the native addon is version ${addon.version()}, the program ${version}: run npm run build`;
    throw new ThicketError('BACKEND_UNAVAILABLE', text);
  }
  return addon;
}

/** Opens the data plane that `env` allows. */
export function openDataPlane(options: DataPlaneOptions, onEvents: OnEvents, env: Environment = process.env): DataPlane {
  return openNative(loadAddon(env), options, onEvents);
}
