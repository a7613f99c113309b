/** What a platform package says of its own files, so that a damaged one is found before the dynamic loader runs it. */
import { createHash } from 'node:crypto';
import { closeSync, openSync, readFileSync, readSync } from 'node:fs';
import { dirname, join } from 'node:path';

/** `package.json` of a platform package, as scripts/package writes it. */
interface Manifest {
  readonly version?: unknown;
  readonly thicket?: { readonly sha256?: Readonly<Record<string, string>> };
}

/** What is wrong with `file` of the package that `manifest` describes, or undefined. Throws what reading them throws. */
export function sealFault(manifest: string, file: string, version: string): string | undefined {
  const told = JSON.parse(readFileSync(manifest, 'utf8')) as Manifest;
  if (told.version !== version) return `is version ${told.version}, the program ${version}`;
  const wanted = told.thicket?.sha256?.[file];
  if (wanted === undefined) return `doesn't list ${file}`;
  return sha256(join(dirname(manifest), file)) === wanted ? undefined : `has a damaged ${file} (its checksum differs)`;
}

/** In pieces: a megabyte more would stay in the process' memory for nothing. */
function sha256(file: string): string {
  const hash = createHash('sha256');
  const piece = Buffer.allocUnsafe(65_536);
  const fd = openSync(file, 'r');
  try {
    for (let read = 0; (read = readSync(fd, piece)) > 0; ) hash.update(piece.subarray(0, read));
  } finally {
    closeSync(fd);
  }
  return hash.digest('hex');
}
