/** Configured forwards: a change that can't be is none. */
import { connect, createServer, type Socket } from 'node:net';
import { Duplex } from 'node:stream';
import { afterEach, describe, expect, test } from '@jest/globals';
import { pino } from 'pino';
import { join } from '../../ts/dataplane/join.js';
import { isThicketError } from '../../ts/errors.js';
import { Forwards, type ForwardsOptions } from '../../ts/node/forwards.js';
import { waitFor } from '../lab/index.js';

const log = pino({ level: 'silent' });
let forwards: Forwards;

afterEach(() => forwards.close());

const free = (): Promise<number> =>
  new Promise((resolve) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const address = server.address();
      server.close(() => resolve(typeof address === 'object' && address !== null ? address.port : 0));
    });
  });

/** Whether the port is taken. */
const open = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const server = createServer().once('error', () => resolve(true));
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(false)));
  });

/** Nothing here comes to be dialled. */
const outward = (address: (name: string) => Promise<string>): ForwardsOptions['outward'] => ({
  address,
  dial: () => new Duplex(),
  splice: (socket, stream) => join(socket, stream, new Uint8Array()),
});

const at = (port: number) => ({ listen: { host: '127.0.0.1', port }, name: 'camera.home', port: 554 });

describe('forwards', () => {
  test('change at commit, not before, and a change taken back leaves what there was', async () => {
    forwards = new Forwards({ outward: outward(() => Promise.reject(new Error('not asked'))), log });
    const [a, b] = [await free(), await free()];
    await (await forwards.prepare([at(a)])).commit();
    const change = await forwards.prepare([at(b)]);
    expect([await open(a), await open(b)]).toEqual([true, true]);
    await change.cancel();
    expect([await open(a), await open(b)]).toEqual([true, false]);
    await (await forwards.prepare([at(b)])).commit();
    expect([await open(a), await open(b)]).toEqual([false, true]);
  });

  test('are refused together when one port is taken, and those that stood stand', async () => {
    forwards = new Forwards({ outward: outward(() => Promise.reject(new Error('not asked'))), log });
    const [a, b, taken] = [await free(), await free(), await free()];
    const other = createServer();
    await new Promise<void>((resolve) => {
      other.listen(taken, '127.0.0.1', resolve);
    });
    await (await forwards.prepare([at(a)])).commit();
    const failure: unknown = await forwards.prepare([at(b), at(taken)]).then(
      () => undefined,
      (error: unknown) => error,
    );
    expect(isThicketError(failure) && failure.code).toBe('ADDRESS_IN_USE');
    expect([await open(a), await open(b)]).toEqual([true, false]);
    other.close();
  });

  test('may change their target or address and keep their port; a change taken back leaves the port, and its connections, as they were', async () => {
    const asked: string[] = [];
    const address = (name: string): Promise<string> => {
      asked.push(name);
      return new Promise(() => {});
    };
    forwards = new Forwards({ outward: outward(address), log });
    const port = await free();
    const dial = async (): Promise<Socket> => {
      const before = asked.length;
      const socket = connect(port, '127.0.0.1');
      await waitFor(() => asked.length > before);
      return socket;
    };
    await (await forwards.prepare([at(port)])).commit();
    const first = await dial();
    const other = { ...at(port), name: 'light.home' };
    const change = await forwards.prepare([other]);
    await dial();
    await change.cancel();
    await dial();
    expect(asked).toEqual(['camera.home', 'light.home', 'camera.home']);
    expect(first.destroyed).toBe(false);
    await (await forwards.prepare([{ ...other, listen: { host: '0.0.0.0', port } }])).commit();
    await waitFor(() => first.destroyed);
    await dial();
    expect(asked.at(-1)).toBe('light.home');
  });
});
