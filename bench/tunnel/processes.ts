/** What processes cost, by /proc. */
import { readFileSync } from 'node:fs';
import type { Host } from '../../test/lab/index.js';

/** Linux tells processor time in hundredths of a second on every machine that we build for. */
const TICKS = 100;

/** User and system seconds of these processes so far, all threads. */
export function cpuSeconds(processes: readonly number[]): number {
  return processes.reduce((sum, pid) => {
    // The second field, the command in brackets, may hold spaces; fields 14 and 15 are the 12th and 13th after it.
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ').at(-1)?.split(' ') ?? [];
    return sum + (Number(fields[11]) + Number(fields[12])) / TICKS;
  }, 0);
}

export function residentMiB(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1]) / 1024;
}

/** Bytes that came into a host from the Internet so far. */
export async function received(host: Host): Promise<number> {
  const { stdout } = await host.exec(['cat', '/sys/class/net/wan0/statistics/rx_bytes']);
  return Number(stdout);
}

/** Resident memory of a `node` that does nothing, when it has settled. */
export async function bareNodeMiB(host: Host): Promise<number> {
  const script = 'setInterval(() => {}, 1000); console.log("ready");';
  const bare = await host.spawn([process.execPath, '-e', script]);
  await bare.waitForLine(/^ready$/);
  const resident = residentMiB(bare.pid);
  await bare.kill();
  return resident;
}
