/** The measurements: iperf3 through a forwarded port, and a download that is read slowly. */
import { setTimeout as sleep } from 'node:timers/promises';
import { LabError } from '../../test/lab/index.js';
import { iperf } from '../tunnel/measure.js';
import { cpuSeconds, residentMiB } from '../tunnel/processes.js';
import type { SlowRun, UserSpaceRun } from './results.js';
import type { Route } from './route.js';

/** What the slow reader takes, bytes a second. */
const SLOWLY = 100_000;
const SAMPLES_EVERY_MS = 100;

export async function throughput(route: Route, seconds: number, direction: 'up' | 'down'): Promise<Omit<UserSpaceRun, 'round'>> {
  const before = cpuSeconds(route.processes);
  const ends = { client: route.client, address: '127.0.0.1' };
  const way = direction === 'down' ? ['-R'] : [];
  const { sum_received: sum } = await iperf(ends, seconds, ['-p', String(route.ports.iperf), ...way]);
  if (sum === undefined || sum.bytes === 0) throw new LabError(`nothing came through ${route.name}`);
  return {
    tunnel: route.name,
    direction,
    value: sum.bits_per_second / 1e6,
    cpuPerGB: ((cpuSeconds(route.processes) - before) / sum.bytes) * 1e9,
    residentMiB: route.processes.map(residentMiB),
  };
}

/** A download of something without end. */
export async function slowReader(route: Route, seconds: number): Promise<SlowRun> {
  const url = `http://127.0.0.1:${route.ports.web}/endless`;
  const options = ['--limit-rate', String(SLOWLY), '--max-time', String(seconds), '-o', '/dev/null', '-w', '%{size_download}'];
  const curl = await route.client.spawn(['curl', '-sS', ...options, url]);
  const most = route.processes.map(residentMiB);
  const end = performance.now() + seconds * 1_000;
  while (performance.now() < end) {
    await sleep(SAMPLES_EVERY_MS);
    for (const [index, pid] of route.processes.entries()) most[index] = Math.max(most[index] ?? 0, residentMiB(pid));
  }
  await curl.exit;
  const bytes = Number(curl.stdout.join(''));
  if (!(bytes > 0)) throw new LabError(`nothing came through ${route.name} to a slow reader: ${curl.stderr.join(' ')}`);
  return { tunnel: route.name, seconds, readMbit: (bytes * 8) / seconds / 1e6, mostMiB: most };
}
