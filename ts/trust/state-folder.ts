/** Where a node's state lies. Alone in this file, so that commands that only need the place don't load libsodium. */
import { homedir } from 'node:os';
import { join } from 'node:path';

/** `--state`, `THICKET_STATE`, `/var/lib/thicket` for root, `~/.local/state/thicket` else. */
export function stateFolder(option: string | undefined, env: Readonly<Record<string, string | undefined>> = process.env): string {
  if (option !== undefined) return option;
  if (env.THICKET_STATE) return env.THICKET_STATE;
  return process.getuid?.() === 0 ? '/var/lib/thicket' : join(homedir(), '.local/state/thicket');
}
