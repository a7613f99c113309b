/** Where this package lies. Searched for: this code runs from ts/ (tests), from dist/ (bundled, so that no file has its place) and from build/programs. */
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The folder that holds package.json, dist/ and build/. */
export const packageRoot = find(dirname(fileURLToPath(import.meta.url)));

function find(from: string): string {
  for (let folder = from; ; folder = dirname(folder)) {
    // A copy without package.json finds nothing, and says so where it matters: by the first file that isn't there.
    if (existsSync(join(folder, 'package.json')) || folder === dirname(folder)) return folder;
  }
}
