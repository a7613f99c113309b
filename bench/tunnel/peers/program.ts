/** Programs that Thicket is measured beside, built from their sources: Debian's are years old. */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { LabError } from '../../../test/lab/index.js';

/** Outside of the repository: a clean checkout needn't build them anew. */
export const CACHE = join(process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'), 'thicket', 'peers');

/** Installs by `go install` what isn't there yet; returns where it lies and its version. */
export function goProgram(name: string, source: string, version: string): { readonly path: string; readonly version: string } {
  const folder = join(CACHE, version);
  const path = join(folder, name);
  if (!existsSync(path)) {
    console.error(`▸ installing ${name} by go install`);
    mkdirSync(folder, { recursive: true });
    try {
      const env = { ...process.env, GOBIN: folder };
      execFileSync('go', ['install', `${source}@${version}`], { env, stdio: ['ignore', 'inherit', 'inherit'] });
    } catch (cause) {
      throw new LabError(`${name}, which Thicket is measured beside, does not build: install Go 1.25 or later`, { cause });
    }
  }
  const lines = execFileSync('go', ['version', '-m', path], { encoding: 'utf8' });
  return { path, version: /^\s+mod\s+\S+\s+(\S+)/m.exec(lines)?.[1] ?? 'unknown' };
}
