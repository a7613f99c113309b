/** `thicket --version`: the program's version and that of both addons, which are loaded for this alone. */
import { type AddonName, hostSources, loadAddon } from '../addons/index.js';
import { describe } from '../errors.js';
import { version } from '../version.js';

const ADDONS: readonly (readonly [string, AddonName])[] = [
  ['addon', 'thicket_addon'],
  ['kernel', 'thicket_kernel'],
];

export function versionText(): string {
  return [`thicket ${version}`, ...ADDONS.map(([word, name]) => `${word} ${addonVersion(name)}`)].join('\n');
}

/** One addon's version, or why it can't be loaded. */
function addonVersion(name: AddonName): string {
  try {
    return loadAddon(name, hostSources(process.env)).addon.version();
  } catch (error) {
    return `missing (${describe(error)})`;
  }
}
