/** The measurements: iperf3 and ping, with the processor time of what carries them. */
import { LabError } from '../../test/lab/index.js';
import { load } from '../shared/machine.js';
import { median, quantile } from '../shared/statistics.js';
import { cpuSeconds, received, residentMiB } from './processes.js';
import type { Run, TestName, Trains, Unit } from './results.js';
import type { Route } from './route.js';

type Figures = Omit<Run, 'round' | 'topology' | 'tunnel' | 'test' | 'load'>;
type Measure = (route: Route, seconds: number) => Promise<Figures>;

const PINGS_EVERY_MS = 10;

export const TESTS: Readonly<Record<TestName, Measure>> = {
  'tcp1 up': (route, seconds) => tcp(route, seconds, 1, 'up'),
  'tcp1 down': (route, seconds) => tcp(route, seconds, 1, 'down'),
  'tcp4 up': (route, seconds) => tcp(route, seconds, 4, 'up'),
  'tcp4 down': (route, seconds) => tcp(route, seconds, 4, 'down'),
  'udp200 up': (route, seconds) => udp(route, seconds, 200, 'up'),
  'udp1316 up': (route, seconds) => udp(route, seconds, 1_316, 'up'),
  'udp1316 down': (route, seconds) => udp(route, seconds, 1_316, 'down'),
  'ping idle': (route, seconds) => ping(route, seconds),
  'ping loaded': async (route, seconds) => {
    const stream = iperf(route, seconds + 1, []);
    const figures = await ping(route, seconds);
    await stream;
    return figures;
  },
};

/** Runs one test; throws when the bytes didn't go the way that is measured. */
export async function measured(test: TestName, route: Route, seconds: number): Promise<Figures & { readonly load: number }> {
  const before = await Promise.all(route.relays.map(received));
  const full = await route.trains?.();
  const cpu = cpuSeconds(route.processes);
  const figures = await TESTS[test](route, seconds);
  const spent = cpuSeconds(route.processes) - cpu;
  const trains = full === undefined ? undefined : between(full, (await route.trains?.()) ?? full, test);
  const bytes = figures.bytes ?? 0;
  for (const [index, relay] of route.relays.entries()) {
    const came = (await received(relay)) - (before[index] ?? 0);
    if (came < bytes) throw new LabError(`only ${came} bytes crossed ${relay.name}, but ${bytes} arrived: that was another path`);
  }
  return {
    ...figures,
    ...(bytes > 0 && route.processes.length > 0 ? { cpuPerGB: (spent / bytes) * 1e9 } : {}),
    ...(route.relayProcess === undefined ? {} : { relayMiB: residentMiB(route.relayProcess) }),
    ...(trains === undefined ? {} : { trains }),
    load: load(),
  };
}

type BothEnds = readonly [client: Trains, far: Trains];

/** What was added, at the end that seals a test's payload and at the one that opens it: answers go in small trains, and would hide its. */
export function between(before: BothEnds, after: BothEnds, test: TestName): Trains {
  const [seals, opens] = test.endsWith('down') ? ([1, 0] as const) : ([0, 1] as const);
  const more = (end: 0 | 1, what: keyof Trains): number[] => after[end][what].map((count, size) => count - (before[end][what][size] ?? 0));
  return { sealed: more(seals, 'sealed'), opened: more(opens, 'opened') };
}

async function tcp(route: Route, seconds: number, streams: number, direction: 'up' | 'down'): Promise<Figures> {
  const { sum_received: sum } = await iperf(route, seconds, ['-P', String(streams), ...way(direction)]);
  if (sum === undefined) throw new LabError('iperf3 tells nothing that was received');
  return { value: sum.bits_per_second / 1e9, unit: 'Gbit/s', bytes: sum.bytes };
}

/** As many datagrams as the sender can send; those count that arrive. */
async function udp(route: Route, seconds: number, size: number, direction: 'up' | 'down'): Promise<Figures> {
  const { sum_received: sum } = await iperf(route, seconds, ['-u', '-b', '0', '-l', String(size), ...way(direction)]);
  if (sum?.packets === undefined || sum.lost_packets === undefined) {
    throw new LabError(`iperf3 tells of no datagrams that were received: ${JSON.stringify(sum)}`);
  }
  const arrived = sum.packets - sum.lost_packets;
  const unit: Unit = 'kpps';
  return {
    value: arrived / sum.seconds / 1_000,
    unit,
    bytes: arrived * size,
    lostPercent: (sum.lost_packets / Math.max(1, sum.packets)) * 100,
  };
}

/** From whom to where. */
export type Ends = Pick<Route, 'client' | 'address'>;

interface Sum {
  readonly seconds: number;
  readonly bytes: number;
  readonly bits_per_second: number;
  readonly packets?: number;
  readonly lost_packets?: number;
}

interface End {
  readonly sum?: Sum;
  readonly sum_received?: Sum;
}

/** Runs iperf3's client to its end; throws when it complains. */
export async function iperf({ client, address }: Ends, seconds: number, options: readonly string[]): Promise<End> {
  const argv = ['iperf3', '-c', address, '-t', String(seconds), '-J', '--connect-timeout', '5000', ...options];
  const { stdout, code } = await client.exec(argv, { timeoutMs: (seconds + 30) * 1_000, check: false });
  const { end, error } = JSON.parse(stdout) as { readonly end: End; readonly error?: string };
  if (code !== 0 || error !== undefined) throw new LabError(`${argv.join(' ')}: ${error ?? `exit ${code}`}`);
  return end;
}

export async function ping({ client, address }: Ends, seconds: number): Promise<Figures> {
  const count = Math.round((seconds * 1_000) / PINGS_EVERY_MS);
  const argv = ['ping', '-n', '-c', String(count), '-i', String(PINGS_EVERY_MS / 1_000), '-W', '2', address];
  const { stdout } = await client.exec(argv, { timeoutMs: (seconds + 30) * 1_000, check: false });
  const times = [...stdout.matchAll(/ time=([\d.]+) ms$/gm)].map(([, time]) => Number(time));
  if (times.length === 0) throw new LabError(`${argv.join(' ')}: no answer\n${stdout.slice(-500)}`);
  return { value: median(times), unit: 'ms', p99: quantile(times, 0.99), lostPercent: (1 - times.length / count) * 100 };
}

const way = (direction: 'up' | 'down'): string[] => (direction === 'down' ? ['-R'] : []);
