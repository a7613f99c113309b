/** Loads the WASM module. */
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { describe, ThicketError } from '../../errors.js';
import { version } from '../../version.js';
import type { PlaneModule } from './bindings.js';
import { wasmBuild, wasmFolder } from './build.js';

/** The build that suits this engine. Throws BACKEND_UNAVAILABLE when it can't be loaded or is of another version. */
export function loadModule(load: (path: string) => unknown = createRequire(import.meta.url)): PlaneModule {
  const path = join(wasmFolder(wasmBuild()), 'thicket_wasm.js');
  let module: PlaneModule;
  try {
    module = load(path) as PlaneModule;
  } catch (error) {
    const reason = describe(error).split('\n', 1)[0] ?? '';
    throw new ThicketError('BACKEND_UNAVAILABLE', `the WASM module can't be loaded (${reason}): install thicket again`, { cause: error });
  }
  if (module.version() !== version) {
    const text = `the WASM module is version ${module.version()}, the program ${version}: install thicket again`;
    throw new ThicketError('BACKEND_UNAVAILABLE', text);
  }
  return module;
}
