/** `thicket up` as a service: signals, failures, and what systemd is told. */
import { join } from 'node:path';
import { jest } from '@jest/globals';
import { Shell } from '../cli/index.js';
import { Process, repository, waitFor } from '../lab/index.js';

// Each test starts several programs, on a machine that may be busy.
jest.setTimeout(60_000);

const PROGRAM = [process.execPath, join(repository, 'test/fixtures/service.mjs'), join(repository, 'build/programs/ts')];
const started: Process[] = [];
const shell = new Shell();

afterEach(async () => {
  for (const process_ of started.splice(0)) await process_.kill('SIGKILL');
});

afterAll(() => shell.remove());

async function start(argv: readonly string[], env: Record<string, string | undefined> = {}): Promise<Process> {
  const process_ = await Process.start(argv, { env });
  started.push(process_);
  return process_;
}

async function up(env: Record<string, string | undefined> = {}): Promise<Process> {
  const node = await start(PROGRAM, { NOTIFY_SOCKET: undefined, ...env });
  await node.waitForLine(/^up as key$/);
  return node;
}

describe('signals', () => {
  test.each(['SIGTERM', 'SIGINT'] as const)('%s stops the node and ends with code 0', async (signal) => {
    const node = await up();
    node.signal(signal);
    await node.waitForLine(/^stop$/);
    node.signal('SIGUSR2');
    expect(await node.exit).toEqual({ code: 0, signal: null });
    expect(node.stdout).toEqual(['up as key']);
    expect(node.stderr).toEqual(['stop', 'stopped']);
  });

  test('a second one while the node puts the host in order changes nothing', async () => {
    const node = await up();
    node.signal('SIGTERM');
    await node.waitForLine(/^stop$/);
    for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) node.signal(signal);
    node.signal('SIGUSR2');
    expect(await node.exit).toEqual({ code: 0, signal: null });
    expect(node.stderr).toEqual(['stop', 'stopped']);
  });

  test('SIGHUP reloads; what needs a restart or is wrong is one line, and the node goes on', async () => {
    const node = await up();
    const reloads = async (count: number): Promise<void> => {
      node.signal('SIGHUP');
      await waitFor(() => node.stderr.filter((line) => line === 'reload').length === count);
    };
    await reloads(1);
    await reloads(2);
    await node.waitForLine(/^thicket: reloaded, but for listen, dns: restart the node to apply that$/);
    await reloads(3);
    await node.waitForLine(/^thicket: not reloaded, the running configuration stays: thicket\.yaml:3: no such thing$/);
    expect(node.running).toBe(true);
    node.signal('SIGTERM');
    await node.waitForLine(/^stop$/);
    node.signal('SIGUSR2');
    expect((await node.exit).code).toBe(0);
  });
});

test('a node that cannot go on is stopped, and ends with code 1 and one line', async () => {
  const node = await up();
  node.signal('SIGUSR1');
  await node.waitForLine(/^stop$/);
  node.signal('SIGUSR2');
  expect(await node.exit).toEqual({ code: 1, signal: null });
  expect(node.stderr.slice(0, 2)).toEqual(['stop', 'stopped']);
  expect(node.stderr[2]).toContain('the interface is gone');
  expect(node.stderr).toHaveLength(3);
});

describe('systemd (Type=notify)', () => {
  test.each([
    ['a path', shell.path('notify')],
    ['an abstract socket', `@thicket-test-${process.pid}`],
  ])('is told READY, RELOADING, READY and STOPPING over %s', async (_, path) => {
    const manager = await start(['python3', join(repository, 'test/fixtures/notify-socket.py'), path]);
    await manager.waitForLine(/^bound$/);
    const node = await up({ NOTIFY_SOCKET: path });
    const told = (): string[] => manager.stdout.slice(1).filter((line) => line.includes('=1') && !line.includes('BARRIER'));
    expect(told()).toEqual(['READY=1']);

    const before = process.hrtime.bigint() / 1_000n;
    node.signal('SIGHUP');
    await waitFor(() => told().length >= 3);
    const [, reloading = '', ready] = told();
    const [, at = ''] = /^RELOADING=1 MONOTONIC_USEC=(\d+)$/.exec(reloading) ?? [];
    // The kernel's monotonic clock in microseconds, or systemd takes the reload for an old one.
    expect(BigInt(at)).toBeGreaterThanOrEqual(before);
    expect(BigInt(at)).toBeLessThanOrEqual(process.hrtime.bigint() / 1_000n);
    expect(ready).toBe('READY=1');

    node.signal('SIGTERM');
    await node.waitForLine(/^stop$/);
    await waitFor(() => told().at(-1) === 'STOPPING=1');
    node.signal('SIGUSR2');
    expect((await node.exit).code).toBe(0);
    expect(node.stderr.filter((line) => line.startsWith('thicket:'))).toEqual([]);
  });

  test('that cannot be told is one line, and the node is up all the same', async () => {
    const node = await up({ NOTIFY_SOCKET: shell.path('nobody') });
    expect(node.stderr).toEqual([
      expect.stringMatching(/^thicket: systemd wasn't told READY=1 \(.*\): install systemd-notify, or use Type=exec in the unit$/),
    ]);
  });

  test('is left alone where there is none', async () => {
    const node = await up({ PATH: '/nonexistent' });
    expect(node.stderr).toEqual([]);
  });
});
