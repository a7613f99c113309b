/**
 * What a run leaves on the host, and how a later run finds and removes what a crashed one left. A run's folder is named after the process
 * that owns it, pid and start time, so that whether it is stale can be told without any other record.
 */
import { randomBytes } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { run } from './process.js';

const FOLDER = /^thicket-lab-([0-9a-f]{6})-(\d+)-(\d+)$/;

export interface Run {
  readonly id: string;
  readonly dir: string;
}

/** A network namespace's name. */
export function namespaceName(id: string, host: string): string {
  return `thicket-${id}-${host}`;
}

export function newRun(): Run {
  const id = randomBytes(3).toString('hex');
  const dir = join(tmpdir(), `thicket-lab-${id}-${process.pid}-${startTime(process.pid)}`);
  mkdirSync(dir, { mode: 0o755 });
  return { id, dir };
}

/** Removes what runs left whose process is gone. */
export async function sweep(): Promise<void> {
  for (const name of readdirSync(tmpdir())) {
    const match = FOLDER.exec(name);
    if (match === null) continue;
    const [, id = '', pid = '', started = ''] = match;
    if (startTime(Number(pid)) !== started) await removeRun({ id, dir: join(tmpdir(), name) });
  }
}

/** Kills every process in the run's namespaces, then removes these and its files. */
export async function removeRun({ id, dir }: Run): Promise<void> {
  const prefix = namespaceName(id, '');
  const list = await run(['ip', 'netns', 'list']);
  const names = list.stdout
    .split('\n')
    .map((line) => line.split(' ', 1)[0] ?? '')
    .filter((name) => name.startsWith(prefix));
  await Promise.all(names.map(killAll));
  if (names.length > 0) await run(['ip', '-force', '-batch', '-'], { stdin: names.map((name) => `netns del ${name}\n`).join('') });
  for (const name of safeList('/etc/netns')) {
    if (name.startsWith(prefix)) rmSync(join('/etc/netns', name), { recursive: true, force: true });
  }
  rmSync(dir, { recursive: true, force: true });
}

async function killAll(namespace: string): Promise<void> {
  const { stdout } = await run(['ip', 'netns', 'pids', namespace], { check: false });
  for (const pid of stdout.split('\n').map(Number)) {
    if (pid > 1) {
      try {
        process.kill(pid, 'SIGKILL');
      } catch {
        // It ended by itself.
      }
    }
  }
}

/** When a process started, in clock ticks since boot; empty when there is none. Tells a process from a later one with its pid. */
function startTime(pid: number): string {
  try {
    // The second field, the command in brackets, may hold spaces; field 22 is the 20th after it.
    return readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ').at(-1)?.split(' ')[19] ?? '';
  } catch {
    return '';
  }
}

function safeList(dir: string): string[] {
  try {
    return readdirSync(dir);
  } catch {
    return [];
  }
}
