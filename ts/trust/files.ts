/**
 * Files that must survive: written to a temporary file, synced, renamed, and the folder synced. Each ends with a line `sha256:<64 hex>` over all
 * before it, so that a file cut short at any length is noticed instead of believed.
 */
import { createHash, randomBytes } from 'node:crypto';
import {
  closeSync,
  existsSync,
  fstatSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, isThicketError, ThicketError } from '../errors.js';

const sum = (text: string): string => `sha256:${createHash('sha256').update(text).digest('hex')}\n`;

/** Writes bytes atomically with mode 0600. Throws NOT_WRITABLE. */
export function writeFileDurably(path: string, text: string): void {
  const temporary = join(dirname(path), `.${randomBytes(6).toString('hex')}.tmp`);
  try {
    const fd = openSync(temporary, 'wx', 0o600);
    try {
      // All of it: one write may take less than it was given.
      writeFileSync(fd, text);
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
    renameSync(temporary, path);
    const folder = openSync(dirname(path), 'r');
    try {
      fsyncSync(folder);
    } finally {
      closeSync(folder);
    }
  } catch (error) {
    if (existsSync(temporary)) unlinkSync(temporary);
    throw new ThicketError('NOT_WRITABLE', `${path} can't be written (${describe(error)}): check the directory's permissions and space`);
  }
}

/** Saves a value that JSON can hold. */
export function saveState(path: string, value: unknown): void {
  const text = `${JSON.stringify(value, undefined, 2)}\n`;
  writeFileDurably(path, text + sum(text));
}

/** Reads what `saveState` wrote; undefined when there is no file. Throws BAD_STATE for a damaged one, LAX_PERMISSIONS for one that others can read. */
export function loadState(path: string): unknown {
  const whole = readPrivate(path);
  if (whole === undefined) return undefined;
  const at = whole.lastIndexOf('sha256:');
  const text = whole.slice(0, at);
  if (at < 0 || sum(text) !== whole.slice(at)) {
    throw new ThicketError('BAD_STATE', `${path} is damaged: restore it from a backup, or remove it to start anew without it`);
  }
  return JSON.parse(text);
}

/** Reads a file that only its owner may read; undefined when it isn't there. */
export function readPrivate(path: string): string | undefined {
  let fd: number;
  try {
    fd = openSync(path, 'r');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw new ThicketError('BAD_STATE', `${path} can't be read (${describe(error)}): check its owner and permissions`);
  }
  try {
    const { mode, uid } = fstatSync(fd);
    if ((mode & 0o077) !== 0) throw new ThicketError('LAX_PERMISSIONS', `${path} can be read by others: chmod 600 ${path}`);
    if (uid !== process.getuid?.()) throw new ThicketError('LAX_PERMISSIONS', `${path} belongs to somebody else: chown it`);
    return readFileSync(fd, 'utf8');
  } catch (error) {
    if (isThicketError(error)) throw error;
    throw new ThicketError('BAD_STATE', `${path} can't be read (${describe(error)}): check what lies there`);
  } finally {
    closeSync(fd);
  }
}

/** A folder of our own, 0700; made when missing. Throws LAX_PERMISSIONS or NOT_WRITABLE. */
export function ensurePrivateFolder(path: string): void {
  try {
    mkdirSync(path, { recursive: true, mode: 0o700 });
  } catch (error) {
    throw new ThicketError('NOT_WRITABLE', `${path} can't be made (${describe(error)}): choose another with --state`);
  }
  const { mode } = statSync(path);
  if ((mode & 0o077) !== 0) throw new ThicketError('LAX_PERMISSIONS', `${path} can be read by others: chmod 700 ${path}`);
}

/** Temporary files of programs that were killed while they wrote; younger ones may still be at work. */
const LEFTOVER = /^\.[0-9a-f]{12}\.tmp$/;
const LEFTOVER_AFTER = 60_000;

/** Removes what killed programs left behind in a folder of our own. */
export function removeLeftovers(folder: string): void {
  for (const name of readdirSync(folder).filter((file) => LEFTOVER.test(file))) {
    const path = join(folder, name);
    const age = Date.now() - (statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? Date.now());
    if (Math.abs(age) > LEFTOVER_AFTER) rmSync(path, { force: true });
  }
}
