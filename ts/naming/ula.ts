/** The node's own IPv6 pool: a unique local /64 (RFC 4193) with random bits, made once and kept. */
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import ipaddr from 'ipaddr.js';
import { ThicketError } from '../errors.js';
import { loadState, saveState } from '../trust/index.js';
import * as z from '../zod.js';

const UlaFile = z.strictObject({ prefix: z.string().check(z.regex(/^fd[0-9a-f]{14}$/)) });

/** `fdxx:xxxx:xxxx:xxxx::/64`. Throws BAD_STATE or NOT_WRITABLE. */
export function randomUla(folder: string): string {
  const file = join(folder, 'ula.json');
  const stored = loadState(file);
  const parsed = UlaFile.safeParse(stored ?? { prefix: `fd${randomBytes(7).toString('hex')}` });
  if (!parsed.success) throw new ThicketError('BAD_STATE', `${file} is damaged: restore it from a backup, or remove it`);
  if (stored === undefined) saveState(file, parsed.data);
  return `${new ipaddr.IPv6([...Buffer.from(parsed.data.prefix, 'hex'), 0, 0, 0, 0, 0, 0, 0, 0]).toString()}/64`;
}
