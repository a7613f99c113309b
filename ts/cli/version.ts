/** `thicket --version`: the program's version and that of both addons, which are loaded for this alone. */
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { describe } from '../errors.js';
import { packageRoot } from '../package-root.js';
import { version } from '../version.js';

const ADDONS = [
  ['addon', 'build/Release/thicket_addon.node'],
  ['kernel', 'build/Release/thicket_kernel.node'],
] as const;

export function versionText(): string {
  return [`thicket ${version}`, ...ADDONS.map(([name, file]) => `${name} ${addonVersion(file)}`)].join('\n');
}

/** One addon's version, or why it can't be loaded. */
function addonVersion(file: string): string {
  try {
    return (createRequire(import.meta.url)(join(packageRoot, file)) as { version(): string }).version();
  } catch (error) {
    return `missing (${describe(error).split('\n', 1)[0] ?? ''})`;
  }
}
