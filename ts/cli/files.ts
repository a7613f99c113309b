/** Files named on the command line. */
import { lstatSync, readFileSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { describe, ThicketError } from '../errors.js';

/** A request or a certificate with all its grants is far smaller. */
const INPUT_MAX = 256 * 1024;

/** Reads FILE, or standard input for `-`. Throws BAD_ARGUMENT. */
export async function readInput(file: string, what: string): Promise<string> {
  if (file !== '-') {
    try {
      return readFileSync(file, 'utf8');
    } catch (error) {
      throw new ThicketError('BAD_ARGUMENT', `the ${what} ${file} can't be read (${describe(error)}): check its path and permissions`);
    }
  }
  let text = '';
  process.stdin.setEncoding('utf8');
  for await (const chunk of process.stdin) {
    text += chunk;
    if (text.length > INPUT_MAX) throw new ThicketError('BAD_ARGUMENT', `standard input is too long for a ${what}: check what is piped in`);
  }
  return text;
}

/** Writes FILE, at once and whole where it is an ordinary file, 0600. Throws NOT_WRITABLE. */
export async function writeOutput(file: string, text: string): Promise<void> {
  const found = lstatSync(file, { throwIfNoEntry: false });
  if (found === undefined || found.isFile()) {
    const { writeFileDurably } = await import('../trust/index.js');
    writeFileDurably(file, text);
    return;
  }
  // A device, a pipe or a link such as /dev/stdout: written to, never replaced.
  try {
    writeFileSync(file, text);
  } catch (error) {
    throw new ThicketError('NOT_WRITABLE', `${file} can't be written (${describe(error)}): choose another file`);
  }
}

/** Where `up` and `check` look without `--config`. */
export function configFile(option: string | undefined): string {
  if (option !== undefined) return option;
  return process.getuid?.() === 0 ? '/etc/thicket/thicket.yaml' : join(homedir(), '.config/thicket/thicket.yaml');
}
