/** A stream that is used before it is there. */
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { Duplex } from 'node:stream';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { Dialled } from '../../ts/api/dialled.js';
import { connected } from '../../ts/dataplane/connected.js';
import { waitFor } from '../lab/index.js';

let server: Server;
let accepted: Socket[];

beforeEach(async () => {
  accepted = [];
  server = createServer({ allowHalfOpen: true }, (socket) => {
    accepted.push(socket);
    socket.on('error', () => {});
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
});

afterEach(() => {
  for (const socket of accepted) socket.destroy();
  server.close();
});

const socket = (port = (server.address() as AddressInfo).port): Socket => connect({ host: '127.0.0.1', port, allowHalfOpen: true });
/** What is read until the far end finishes; it may be answered then. */
async function all(stream: Duplex): Promise<string> {
  let heard = '';
  stream.on('data', (data: Buffer) => {
    heard += data.toString();
  });
  await once(stream, 'end');
  return heard;
}

const closing = (stream: Duplex): Promise<void> => new Promise((resolve) => void stream.once('close', resolve));
const asIs = (error: unknown): Error => error as Error;

/** As a node dials: it finds the name, then connects. */
const dialled = (open: () => Duplex = socket): Dialled =>
  new Dialled(async () => {
    await new Promise((resolve) => setImmediate(resolve));
    const stream = open();
    await connected(stream);
    return stream;
  }, asIs);

test('what is written before it is connected arrives, and half-closes are kept', async () => {
  const stream = dialled();
  expect(stream.connecting).toBe(true);
  stream.end('early');
  await once(stream, 'connect');
  expect(stream.connecting).toBe(false);
  await waitFor(() => accepted.length === 1);
  const [far] = accepted as [Socket];
  expect(await all(far)).toBe('early');
  far.end('late');
  expect(await all(stream)).toBe('late');
  await waitFor(() => far.destroyed);
});

test('the far end may finish first', async () => {
  const stream = dialled();
  await once(stream, 'connect');
  await waitFor(() => accepted.length === 1);
  const [far] = accepted as [Socket];
  far.end('that was all');
  const heard: Buffer[] = [];
  stream.on('data', (data: Buffer) => heard.push(data));
  await once(stream, 'end');
  expect(Buffer.concat(heard).toString()).toBe('that was all');
  expect(stream.destroyed).toBe(false);
  stream.end('not for me');
  expect(await all(far)).toBe('not for me');
});

test('what came before both ends had finished is there for a reader who comes late', async () => {
  const inner = socket();
  const stream = dialled(() => inner);
  stream.end('a');
  await once(stream, 'connect');
  await waitFor(() => accepted.length === 1);
  accepted[0]?.resume().end('b');
  inner.resume();
  await closing(inner);
  await new Promise((resolve) => setImmediate(resolve));
  expect(stream.destroyed).toBe(false);
  expect(await all(stream)).toBe('b');
  await waitFor(() => stream.destroyed);
});

test('a reader that waits stops the writer: nothing heaps up in between', async () => {
  const stream = dialled();
  await once(stream, 'connect');
  await waitFor(() => accepted.length === 1);
  const [far] = accepted as [Socket];
  const total = 64 * 1_024 * 1_024;
  let heard = 0;
  stream.once('data', (data: Buffer) => {
    heard += data.length;
    stream.pause();
  });
  far.end(Buffer.alloc(total));
  // Until what the kernel takes is full.
  let before = -1;
  await waitFor(
    () => {
      const same = far.bytesWritten === before;
      before = far.bytesWritten;
      return same;
    },
    { intervalMs: 200 },
  );
  expect(stream.readableLength).toBeLessThan(1_024 * 1_024);
  stream.on('data', (data: Buffer) => {
    heard += data.length;
  });
  stream.resume();
  await once(stream, 'end');
  expect(heard).toBe(total);
  stream.destroy();
});

test('a writer is stopped by a far end that does not read', async () => {
  const stream = dialled();
  await once(stream, 'connect');
  await waitFor(() => accepted.length === 1);
  let taken = 0;
  const chunk = Buffer.alloc(64 * 1_024);
  while (
    stream.write(chunk) ||
    (await Promise.race([once(stream, 'drain').then(() => true), new Promise((resolve) => setTimeout(() => resolve(false), 500))]))
  ) {
    taken += chunk.length;
    expect(taken).toBeLessThan(64 * 1_024 * 1_024);
  }
  expect(stream.writableNeedDrain).toBe(true);
  stream.destroy();
});

test('fails with the error of its dialling, once', async () => {
  const errors: Error[] = [];
  const stream = new Dialled(
    () => Promise.reject(new Error('nobody')),
    (error) => new Error(`explained: ${(error as Error).message}`),
  );
  stream.on('error', (error) => errors.push(error));
  stream.write('in vain');
  await closing(stream);
  expect(errors.map(({ message }) => message)).toEqual(['explained: nobody']);
  expect(stream.connecting).toBe(false);
});

test('a reset by the far end is an error here, and a destruction here is the end there', async () => {
  const one = dialled();
  await once(one, 'connect');
  await waitFor(() => accepted.length === 1);
  accepted[0]?.resetAndDestroy();
  const [error] = (await once(one, 'error')) as [NodeJS.ErrnoException];
  expect(error.code).toBe('ECONNRESET');

  const two = dialled();
  await once(two, 'connect');
  await waitFor(() => accepted.length === 2);
  two.destroy();
  accepted[1]?.resume();
  await waitFor(() => accepted[1]?.readableEnded || accepted[1]?.destroyed);
});

test('a stream that is reset as soon as it is connected is an error here, and not of the process', async () => {
  const brief = new Duplex({ read: () => {} });
  const stream = dialled(() => {
    setImmediate(() => {
      brief.emit('connect');
      brief.destroy(new Error('reset'));
    });
    return brief;
  });
  const [error] = (await once(stream, 'error')) as [Error];
  expect(error.message).toBe('reset');
});

test('destroyed while it is dialled, it closes at once and without an error, and the dialling ends', async () => {
  let aborted = false;
  const errors: Error[] = [];
  const stream = new Dialled(
    (signal) =>
      new Promise((_, reject) => {
        signal.addEventListener('abort', () => {
          aborted = true;
          reject(signal.reason as Error);
        });
      }),
    asIs,
  );
  stream.on('error', (error) => errors.push(error));
  await new Promise((resolve) => setImmediate(resolve));
  stream.destroy();
  await closing(stream);
  expect([aborted, errors, stream.connecting]).toEqual([true, [], false]);
});

test('dialled to the end though destroyed meanwhile, it leaves nothing open', async () => {
  let finish: (stream: Duplex) => void = () => {};
  const stream = new Dialled(
    () =>
      new Promise((resolve) => {
        finish = resolve;
      }),
    asIs,
  );
  await new Promise((resolve) => setImmediate(resolve));
  stream.destroy();
  const late = new Duplex({ read: () => {}, write: (_chunk, _encoding, done) => done() });
  finish(late);
  await closing(stream);
  await waitFor(() => late.destroyed);
});
