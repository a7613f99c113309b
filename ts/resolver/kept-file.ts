/**
 * Files of the host that are changed and put back. What was there is on disk, with a checksum, before anything is touched. A file that somebody
 * else has changed in between is never overwritten.
 */
import { createHash } from 'node:crypto';
import {
  chmodSync,
  chownSync,
  closeSync,
  fsyncSync,
  ftruncateSync,
  lstatSync,
  openSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  renameSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  writeSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { describe, ThicketError } from '../errors.js';
import { readPrivate, writeFileDurably } from '../trust/index.js';
import * as z from '../zod.js';

export const KeptFile = z.strictObject({
  path: z.string(),
  /** What was at `path`: nothing, a file, or a link to this. */
  before: z.discriminatedUnion('kind', [
    z.strictObject({ kind: z.literal('nothing') }),
    z.strictObject({ kind: z.literal('file'), mode: z.number(), uid: z.number(), gid: z.number(), backup: z.string(), sum: z.string() }),
    z.strictObject({ kind: z.literal('link'), to: z.string() }),
  ]),
  /** SHA-256 of what was written there. */
  written: z.string(),
});
export type KeptFile = z.infer<typeof KeptFile>;

type Found =
  | { readonly kind: 'nothing' }
  | { readonly kind: 'file'; readonly bytes: Buffer; readonly mode: number; readonly uid: number; readonly gid: number }
  | { readonly kind: 'link'; readonly to: string };

const MODE = 0o644;

const sum = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex');

/** Saves what is at `path` into `folder`; to be recorded before `writeKept`. */
export function keep(path: string, content: string, folder: string): KeptFile {
  const found = look(path);
  const written = sum(Buffer.from(content));
  if (found.kind !== 'file') return { path, before: found, written };
  const backup = join(folder, `${basename(path)}.before-thicket`);
  writeFileDurably(backup, found.bytes.toString('utf8'));
  if (!readFileSync(backup).equals(found.bytes)) {
    throw new ThicketError('REFUSED', `${path} is no text file: see what it is before you let Thicket change it`);
  }
  const { mode, uid, gid } = found;
  return { path, before: { kind: 'file', mode, uid, gid, backup, sum: sum(found.bytes) }, written };
}

export function writeKept(kept: KeptFile, content: string): void {
  const { before } = kept;
  replace(kept.path, Buffer.from(content), before.kind === 'file' ? before : undefined);
}

/** Whether the file is as we wrote it, as it was before, or neither. */
export function stateOf(kept: KeptFile): 'ours' | 'original' | 'changed' {
  const found = look(kept.path);
  if (found.kind === 'file' && sum(found.bytes) === kept.written) return 'ours';
  const { before } = kept;
  if (found.kind !== before.kind) return 'changed';
  if (found.kind === 'file' && before.kind === 'file') return sum(found.bytes) === before.sum ? 'original' : 'changed';
  if (found.kind === 'link' && before.kind === 'link') return found.to === before.to ? 'original' : 'changed';
  return 'original';
}

/** Puts back what was there: contents, mode, owner, or link. The file must be 'ours'. Throws BAD_STATE when the backup is damaged. */
export function restore(kept: KeptFile): void {
  const { path, before } = kept;
  if (before.kind === 'file') {
    const bytes = Buffer.from(readPrivate(before.backup) ?? '');
    if (sum(bytes) !== before.sum) {
      throw new ThicketError('BAD_STATE', `the backup ${before.backup} is damaged: write ${path} anew by hand, then run this again`);
    }
    replace(path, bytes, before);
    return;
  }
  trying(path, () => {
    if (before.kind === 'nothing') {
      unlinkSync(path);
    } else {
      const temporary = `${path}.thicket-tmp`;
      symlinkSync(before.to, temporary);
      renameSync(temporary, path);
    }
    syncFolder(path);
  });
}

/** The backup isn't needed any more. */
export function forget({ before }: KeptFile): void {
  if (before.kind === 'file') rmSync(before.backup, { force: true });
}

/** The text at `path`, through links; undefined when there is none. */
export function readText(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}

function look(path: string): Found {
  const at = isMounted(path) ? realpathSync(path) : path;
  const stat = lstatSync(at, { throwIfNoEntry: false });
  if (stat === undefined) return { kind: 'nothing' };
  if (stat.isSymbolicLink()) return { kind: 'link', to: readlinkSync(at) };
  if (!stat.isFile()) throw new ThicketError('REFUSED', `${path} is no file: see what it is before you let Thicket change it`);
  return { kind: 'file', bytes: readFileSync(at), mode: stat.mode & 0o7777, uid: stat.uid, gid: stat.gid };
}

/** As a whole where that is possible. A file that is a mount of its own (containers, `ip netns exec`) can only be written over. */
function replace(
  path: string,
  bytes: Buffer,
  like: { readonly mode: number; readonly uid: number; readonly gid: number } | undefined,
): void {
  trying(path, () => {
    if (isMounted(path)) {
      const fd = openSync(realpathSync(path), 'r+');
      try {
        ftruncateSync(fd, 0);
        writeSync(fd, bytes, 0, bytes.length, 0);
        fsyncSync(fd);
      } finally {
        closeSync(fd);
      }
      return;
    }
    const temporary = `${path}.thicket-tmp`;
    const fd = openSync(temporary, 'w', MODE);
    try {
      writeSync(fd, bytes);
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
    chmodSync(temporary, like?.mode ?? MODE);
    if (like !== undefined) chownSync(temporary, like.uid, like.gid);
    renameSync(temporary, path);
    syncFolder(path);
  });
}

function isMounted(path: string): boolean {
  let real: string;
  try {
    real = realpathSync(path);
  } catch {
    return false;
  }
  return (readText('/proc/self/mountinfo') ?? '').split('\n').some((line) => line.split(' ')[4] === real);
}

function syncFolder(path: string): void {
  const folder = openSync(dirname(path), 'r');
  try {
    fsyncSync(folder);
  } finally {
    closeSync(folder);
  }
}

function trying(path: string, work: () => void): void {
  try {
    work();
  } catch (error) {
    throw unwritable(path, error);
  }
}

function unwritable(path: string, error: unknown): ThicketError {
  const { code } = error as NodeJS.ErrnoException;
  if (code === 'EACCES' || code === 'EPERM') return new ThicketError('NO_PRIVILEGE', `${path} can't be changed: run this as root`);
  return new ThicketError('NOT_WRITABLE', `${path} can't be changed (${describe(error)}): check its file system`);
}
