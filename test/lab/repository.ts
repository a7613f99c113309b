import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { LabError } from './errors.js';

/** The repository's root. Searched for, since the lab runs from test/ (jest) and from build/ (demo, bench). */
export const repository = find(dirname(fileURLToPath(import.meta.url)));

/** The `thicket` command, for Node.js to run. */
export const thicketProgram = join(repository, 'dist', 'cli', 'main.js');

function find(from: string): string {
  for (let dir = from; ; dir = dirname(dir)) {
    if (existsSync(join(dir, 'package.json'))) return dir;
    if (dir === dirname(dir)) throw new LabError('not inside the repository');
  }
}
