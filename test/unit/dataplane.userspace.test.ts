import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { createServer, type Server, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { afterEach, describe, expect, test } from '@jest/globals';
import type { AllowedService, SocketAddress } from '../../ts/dataplane/data-plane.js';
import { waitFor } from '../lab/index.js';
import { type BackendName, gatewayAddresses, session, viewerAddresses, Way } from '../planes/index.js';

const { own4: own, peer4: peer } = viewerAddresses;
/** Of what each position may be. */
const ways: readonly (readonly [viewer: BackendName, relay: BackendName, gateway: BackendName])[] = [
  ['native', 'native', 'native'],
  ['wasm', 'wasm', 'wasm'],
  ['wasm', 'native', 'wasm'],
  ['native', 'wasm', 'wasm'],
  ['wasm', 'wasm', 'native'],
];

const service = (port: number, target: SocketAddress, protocol: 'tcp' | 'udp' = 'tcp'): AllowedService => ({
  protocol,
  port,
  family: 4,
  target,
  account: port,
});

/** By events, for an iterator would destroy it at the end of this direction. */
function readAll(stream: Duplex): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    stream.on('data', (chunk: Buffer) => chunks.push(chunk));
    stream.once('end', () => resolve(Buffer.concat(chunks)));
    stream.once('error', reject);
  });
}

/** Whether a socket's end was an error. */
const closed = (socket: Socket | undefined): Promise<boolean> => new Promise((resolve) => socket?.once('close', resolve));

/** Bytes that repeat only after a prime number of them. */
const pattern = (length: number): Buffer => Buffer.alloc(length, Buffer.from(Uint8Array.from({ length: 251 }, (_, at) => at)));

describe.each(ways)('user-space mode, %s – %s – %s', (viewer, relay, gateway) => {
  let way: Way | undefined;
  const servers: Server[] = [];
  const devices: Socket[] = [];

  async function device(serve: (socket: Socket) => void): Promise<SocketAddress> {
    const server = createServer({ allowHalfOpen: true }, (socket) => {
      devices.push(socket);
      socket.on('error', () => undefined);
      serve(socket);
    });
    servers.push(server);
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const address = server.address();
    return { host: '127.0.0.1', port: typeof address === 'object' ? (address?.port ?? 0) : 0 };
  }

  async function open(inbound: readonly AllowedService[], budget?: number): Promise<Way> {
    way = await Way.open({ viewer, relay, gateway, inbound, ...(budget === undefined ? {} : { budget }) });
    return way;
  }

  function dial(port: number): Duplex {
    const stream = way?.viewer.userspace?.dial({ own, peer, port });
    if (stream === undefined) throw new RangeError('no user-space mode');
    return stream;
  }

  afterEach(async () => {
    await way?.close();
    way = undefined;
    for (const socket of devices.splice(0)) socket.destroy();
    for (const server of servers.splice(0)) server.close();
  });

  test('bytes reach a device and come back, whole and in order, after the end of one direction, too', async () => {
    const { relay: between } = await open([service(80, await device((socket) => socket.pipe(socket)))]);
    const stream = dial(80);
    const payload = pattern(2_000_000);
    stream.end(payload);
    expect((await readAll(stream)).equals(payload)).toBe(true);
    expect(between.stats().relay.bytes).toBeGreaterThan(4_000_000n);
    await waitFor(() => way?.gateway.stats().userspace?.streams === 0, { what: 'no stream is left' });
  });

  test('what a device sends before it hears anything comes through', async () => {
    await open([service(80, await device((socket) => socket.end('hello, it is me')))]);
    const stream = dial(80);
    expect(String(await readAll(stream))).toBe('hello, it is me');
    stream.end();
  });

  test('a device that refuses is a connection refused', async () => {
    const target = await device(() => undefined);
    await new Promise((closed) => servers.pop()?.close(closed));
    await open([service(80, target)]);
    await expect(once(dial(80), 'connect')).rejects.toMatchObject({ code: 'ECONNREFUSED' });
  });

  test('a port that policy does not have is refused', async () => {
    await open([service(80, await device(() => undefined))]);
    await expect(once(dial(81), 'connect')).rejects.toMatchObject({ code: 'ECONNREFUSED' });
  });

  test("a device's reset resets the caller, and the caller's the device", async () => {
    await open([service(80, await device((socket) => socket.once('data', (bytes) => String(bytes) === 'go' && socket.resetAndDestroy())))]);
    const stream = dial(80);
    stream.write('go');
    await expect(once(stream, 'data')).rejects.toMatchObject({ code: 'ECONNRESET' });

    const other = dial(80);
    other.write('stay');
    await waitFor(() => devices.length === 2 && (devices[1]?.bytesRead ?? 0) > 0, { what: 'the second connection' });
    const ended = closed(devices[1]);
    other.destroy();
    // Not just ended: with an error.
    expect(await ended).toBe(true);
  });

  test('when policy no longer has a service, its connections are over', async () => {
    const { gateway: end } = await open([service(80, await device((socket) => socket.pipe(socket)))]);
    const stream = dial(80);
    stream.write('a');
    await once(stream, 'data');
    const ended = closed(devices[0]);
    stream.on('error', () => undefined);
    end.sessionPolicy({ session, inbound: [], outbound: false, echo: false, rtspPorts: [] });
    await ended;
  });

  test('a reader that does not read stops the device, within the budget, and gets everything in the end', async () => {
    const payload = pattern(20_000_000);
    const budget = 2_000_000;
    const { viewer: near, gateway: far } = await open([service(80, await device((socket) => socket.end(payload)))], budget);
    const stream = dial(80);
    await once(stream, 'connect');
    const buffered = (): readonly number[] => [near, far].map((plane) => plane.stats().userspace?.buffered ?? 0);
    const seen: number[] = [];
    // It stands still when the device can write no more.
    await waitFor(
      () => {
        seen.push(devices[0]?.bytesWritten ?? 0);
        const [now, before] = [seen.at(-1) ?? 0, seen.at(-20) ?? 0];
        return now > 0 && now === before && buffered().some((bytes) => bytes > 0);
      },
      { what: 'the device waits' },
    );
    expect(Math.max(...buffered())).toBeLessThanOrEqual(budget);
    // What the system's own buffers hold comes on top.
    expect(devices[0]?.writableLength).toBeGreaterThan(payload.length / 2);
    expect((await readAll(stream)).equals(payload)).toBe(true);
  });

  test('a service of this program itself gets its callers as streams', async () => {
    const { events } = await open([{ protocol: 'tcp', port: 7, family: 4, local: true, account: 9 }]);
    const stream = dial(7);
    stream.end('knock');
    await waitFor(() => events.gateway.some(({ type }) => type === 'incoming'), { what: 'the caller' });
    const incoming = events.gateway.find((event) => event.type === 'incoming');
    expect(incoming).toMatchObject({ session, account: 9, peer: gatewayAddresses.peer4, peerPort: expect.any(Number) });
    if (incoming?.type !== 'incoming') throw new RangeError('no caller');
    expect(String(await readAll(incoming.stream))).toBe('knock');
    incoming.stream.end('come in');
    expect(String(await readAll(stream))).toBe('come in');
  });

  test('datagrams reach a device and its answers come back, the empty one and long ones, too', async () => {
    const socket = createSocket('udp4');
    socket.on('message', (bytes, from) => socket.send(bytes, from.port, from.address));
    socket.bind(0, '127.0.0.1');
    await once(socket, 'listening');
    const { viewer: near, gateway: far } = await open([service(53, { host: '127.0.0.1', port: socket.address().port }, 'udp')]);
    const got: Buffer[] = [];
    const port = near.userspace?.datagrams(own, (from, fromPort, bytes) => {
      expect([from, fromPort]).toEqual([peer, 53]);
      got.push(Buffer.from(bytes));
    });
    const sent = [Buffer.from('question'), Buffer.alloc(0), pattern(1_200), pattern(4_000), Buffer.from('another')];
    for (const bytes of sent) port?.send(peer, 53, bytes);
    await waitFor(() => got.length === sent.length, { what: 'all answers' });
    expect(got).toEqual(sent);
    expect(far.stats().userspace?.datagrams).toBe(1);
    port?.close();
    socket.close();
  });

  test('many connections at once, half of them never read: the others get all of theirs', async () => {
    const payload = pattern(300_000);
    await open([service(80, await device((socket) => socket.end(payload)))], 16_000_000);
    const slow = Array.from({ length: 60 }, () => dial(80));
    await Promise.all(slow.map((stream) => once(stream, 'connect')));
    const quick = await Promise.all(Array.from({ length: 60 }, () => readAll(dial(80).end())));
    expect(quick.every((bytes) => bytes.equals(payload))).toBe(true);
    for (const stream of slow) stream.destroy();
  });
});
