/**
 * The pool's file: one line per change, `<checksum> <JSON>`, only ever appended to, so that a change costs one small write and one sync. Changes
 * that come while a sync runs share the next one. What a kill leaves half-written at the end is dropped; damage before that is an error, since
 * believing the rest could give one address to two. When most lines are out of date the file is written anew beside itself and renamed.
 */
import { createHash } from 'node:crypto';
import { type FileHandle, open, rename } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { Logger } from 'pino';
import { describe, ThicketError } from '../errors.js';
import { readPrivate } from '../trust/index.js';
import * as z from '../zod.js';

const Record = z.strictObject({
  /** What the address stands for; the last line about it counts. */
  subject: z.string(),
  v4: z.string(),
  /** The interface identifier of its IPv6 address, 8 bytes as hex. */
  id: z.string().check(z.regex(/^[0-9a-f]{16}$/)),
  /** The subject is gone: the address waits for its TTL to be given to another. */
  released: z.optional(z.literal(true)),
});
export type AddressRecord = z.infer<typeof Record>;

const HEADER = line({ format: 'thicket addresses', version: 1 });
/** Lines that may be out of date before the file is written anew, beside as many as are not. */
const SLACK = 1_024;

export interface AddressLogOptions {
  readonly file: string;
  readonly log: Logger;
  /** All that is true now, least recently used first. */
  readonly snapshot: () => readonly AddressRecord[];
}

export class AddressLog {
  readonly #o: AddressLogOptions;
  #handle: FileHandle | undefined;
  /** Lines in the file, those out of date included. */
  #lines: number;
  /** Whether the file must be written anew before anything is appended. */
  #rewrite: boolean;
  #waiting: string[] = [];
  /** Records that only tell what was used last: written with the next that must be. */
  readonly #hints = new Map<string, string>();
  #batch: Promise<void> | undefined;
  #tail: Promise<void> = Promise.resolve();

  private constructor(options: AddressLogOptions, lines: number, rewrite: boolean) {
    this.#o = options;
    this.#lines = lines;
    this.#rewrite = rewrite;
  }

  /** Reads the file, if there is one. Throws BAD_STATE or LAX_PERMISSIONS. */
  static open(options: AddressLogOptions): { readonly log: AddressLog; readonly records: readonly AddressRecord[] } {
    const { records, torn, finished } = read(options.file);
    if (torn > 0)
      options.log.warn(`${options.file} ended in ${torn} bytes that were never finished: they are dropped, all before them is kept`);
    return { log: new AddressLog(options, records.length, !finished), records };
  }

  /** Resolves when the record is on the disk. Throws NOT_WRITABLE. */
  write(record: AddressRecord): Promise<void> {
    this.#hints.delete(record.subject);
    this.#waiting.push(line(record));
    return this.#schedule();
  }

  /** Notes that the subject was used. A kill may lose that. */
  hint(record: AddressRecord): void {
    this.#hints.set(record.subject, line(record));
  }

  async close(): Promise<void> {
    try {
      if (this.#hints.size > 0) await this.#schedule();
      await this.#tail;
    } finally {
      await this.#handle?.close();
      this.#handle = undefined;
    }
  }

  #schedule(): Promise<void> {
    if (this.#batch === undefined) {
      this.#batch = this.#tail.then(() => this.#flush());
      this.#tail = this.#batch.catch(() => undefined);
    }
    return this.#batch;
  }

  async #flush(): Promise<void> {
    const lines = [...this.#hints.values(), ...this.#waiting];
    this.#waiting = [];
    this.#hints.clear();
    this.#batch = undefined;
    try {
      const live = this.#o.snapshot();
      if (this.#rewrite || this.#lines + lines.length > 2 * live.length + SLACK) await this.#writeAnew(live);
      else await this.#append(lines);
    } catch (error) {
      // Half a line may be in the file now, and after a failed sync nobody knows what is on the disk.
      this.#rewrite = true;
      throw new ThicketError(
        'NOT_WRITABLE',
        `${this.#o.file} can't be written (${describe(error)}): check its permissions and the disk's space`,
      );
    }
  }

  async #append(lines: readonly string[]): Promise<void> {
    this.#handle ??= await open(this.#o.file, 'a', 0o600);
    await this.#handle.appendFile(lines.join(''));
    await this.#handle.datasync();
    this.#lines += lines.length;
  }

  async #writeAnew(live: readonly AddressRecord[]): Promise<void> {
    await this.#handle?.close();
    this.#handle = undefined;
    const temporary = `${this.#o.file}.tmp`;
    const handle = await open(temporary, 'w', 0o600);
    try {
      await handle.writeFile(HEADER + live.map(line).join(''));
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(temporary, this.#o.file);
    const folder = await open(dirname(this.#o.file), 'r');
    try {
      await folder.sync();
    } finally {
      await folder.close();
    }
    this.#lines = live.length;
    this.#rewrite = false;
  }
}

function line(value: unknown): string {
  const json = JSON.stringify(value);
  return `${checksum(json)} ${json}\n`;
}

function checksum(json: string): string {
  return createHash('sha256').update(json).digest('hex').slice(0, 16);
}

/** The line's JSON; undefined when it isn't whole. */
function verified(text: string): string | undefined {
  const json = text.slice(17);
  return text[16] === ' ' && text.slice(0, 16) === checksum(json) ? json : undefined;
}

interface Content {
  readonly records: readonly AddressRecord[];
  /** Bytes at the end that make no whole line. */
  readonly torn: number;
  /** Whether a line may be appended to the file as it is. */
  readonly finished: boolean;
}

function read(file: string): Content {
  const text = readPrivate(file) ?? '';
  const damaged = (what: string): ThicketError =>
    new ThicketError('BAD_STATE', `${file} is damaged (${what}): restore it from a backup, or remove it to give all names new addresses`);
  const whole = text.split('\n');
  // Whatever stands behind the last line feed; it may lack nothing but that.
  const rest = whole.pop() ?? '';
  if (rest !== '') whole.push(rest);
  const json = whole.map(verified);
  const bad = json.indexOf(undefined);
  if (json.slice(bad).some((one) => bad >= 0 && one !== undefined)) throw damaged(`line ${bad + 1}`);
  const good = bad < 0 ? whole.length : bad;
  if (good === 0 ? !HEADER.startsWith(text) : `${whole[0]}\n` !== HEADER) throw damaged('line 1');
  const records = json.slice(1, good).map((one, index) => {
    const parsed = Record.safeParse(JSON.parse(one ?? ''));
    if (!parsed.success) throw damaged(`line ${index + 2}`);
    return parsed.data;
  });
  return { records, torn: Buffer.byteLength(whole.slice(good).join('\n')), finished: good > 0 && good === whole.length && rest === '' };
}
