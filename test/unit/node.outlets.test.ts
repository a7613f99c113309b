/** Who may use an outlet, and with whose key it calls. */
import { connect, type Socket } from 'node:net';
import { PassThrough } from 'node:stream';
import { afterEach, describe, expect, test } from '@jest/globals';
import { pino } from 'pino';
import type { OutletConfig } from '../../ts/config/index.js';
import { join } from '../../ts/dataplane/index.js';
import { Outlets, type OutletsOptions } from '../../ts/node/outlets.js';
import type { Session } from '../../ts/node/sessions.js';

const CAMERA = { name: 'camera', addresses: { v4: '198.18.0.9' }, identity: { pair: { publicKey: 'camera-key' } } };
const session = { own: 'camera-key', peer: 'csms-key' } as unknown as Session;

let outlets: Outlets;
afterEach(() => outlets.close());

/** A node whose overlay notes who calls, and which knows the MAC address of this host. */
function make(more: Partial<OutletsOptions> = {}): { calls: unknown[][]; callers: string[][] } {
  const calls: unknown[][] = [];
  const callers: string[][] = [];
  outlets = new Outlets({
    outward: {
      dial: (...args) => {
        calls.push(['dial', ...args]);
        return new PassThrough();
      },
      splice: (socket, stream) => join(socket, stream, new Uint8Array()),
    },
    resolver: {
      address: async (name, own) => {
        calls.push(['address', name, own]);
        return { v4: '198.18.0.7', session } as never;
      },
      means: (name) => name === 'csms.home',
    },
    endpoints: () => [CAMERA as never],
    refresh: async () => {
      calls.push(['refresh']);
    },
    callFrom: async (addresses) => {
      callers.push([...addresses]);
    },
    macOf: async () => '02:00:00:00:00:01',
    log: pino({ level: 'silent' }),
    ...more,
  });
  return { calls, callers };
}

/** Opens one on a port that is free, and returns what becomes of a caller. */
async function call(from: OutletConfig['from']): Promise<'served' | 'reset'> {
  const door = await outlets.open({ listen: { host: '127.0.0.1', port: 0 }, name: 'csms.home', port: 9_000, as: 'camera', from });
  const socket: Socket = connect({ host: '127.0.0.1', port: Number(door.address.split(':')[1]) });
  try {
    return await new Promise((resolve) => {
      socket.on('error', () => resolve('reset'));
      socket.on('close', () => resolve('reset'));
      socket.on('data', () => resolve('served'));
      socket.write('hello');
    });
  } finally {
    socket.destroy();
    await door.close();
  }
}

describe('an outlet', () => {
  test('calls with the endpoint’s key, from the endpoint’s address, once that may call', async () => {
    const { calls, callers } = make();
    expect(await call({ ip: '127.0.0.1' })).toBe('served');
    expect(calls).toEqual([['address', 'csms.home', 'camera-key'], ['refresh'], ['dial', '198.18.0.7', 9_000, '198.18.0.9']]);
    expect(callers).toEqual([['198.18.0.9'], []]);
  });

  test.each([
    ['another address', { ip: '127.0.0.2' }],
    ['another MAC address', { ip: '127.0.0.1', mac: '02:00:00:00:00:02' }],
  ])('resets %s, and calls nobody', async (_, from) => {
    const { calls } = make();
    expect(await call(from)).toBe('reset');
    expect(calls).toEqual([]);
  });

  test('serves the device whose MAC address is right, and no device whose is unknown', async () => {
    make();
    expect(await call({ ip: '127.0.0.1', mac: '02:00:00:00:00:01' })).toBe('served');
    make({ macOf: () => Promise.resolve(undefined) });
    expect(await call({ ip: '127.0.0.1', mac: '02:00:00:00:00:01' })).toBe('reset');
  });

  test('is not opened without its endpoint', async () => {
    make({ endpoints: () => [] });
    await expect(call({ ip: '127.0.0.1' })).rejects.toMatchObject({ code: 'NOT_FOUND' });
  });

  test('lets sessions of its endpoint with its service call, and no others, for as long as it stands', async () => {
    make();
    const config = { listen: { host: '127.0.0.1', port: 0 }, name: 'csms.home', port: 9_000, as: 'camera', from: { ip: '127.0.0.1' } };
    expect(outlets.callsOut(session)).toBe(false);
    await (await outlets.prepare([config])).commit();
    expect(outlets.callsOut(session)).toBe(true);
    expect(outlets.callsOut({ ...session, own: 'other-key' } as never)).toBe(false);
    await (await outlets.prepare([{ ...config, name: 'other.home' }])).commit();
    expect(outlets.callsOut(session)).toBe(false);
    await (await outlets.prepare([])).commit();
    const door = await outlets.open(config);
    expect(outlets.callsOut(session)).toBe(true);
    await door.close();
    expect(outlets.callsOut(session)).toBe(false);
  });
});
