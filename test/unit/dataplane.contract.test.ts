import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { afterEach, describe, expect, test } from '@jest/globals';
import type { DataPlane, DataPlaneEvent, DataPlaneOptions, LinkId } from '../../ts/dataplane/data-plane.js';
import { wasm } from '../impolite/wasm.js';
import { waitFor } from '../lab/index.js';
import { backends, filled, hop, linkKeys, openPlane } from '../planes/index.js';

const local = [{ host: '127.0.0.1', port: 0 }];

describe.each(backends)('a data plane: %s', (backend) => {
  let plane: DataPlane | undefined;
  const events: DataPlaneEvent[] = [];
  const sockets: Socket[] = [];

  async function open(options: Partial<DataPlaneOptions> = {}): Promise<DataPlane> {
    events.length = 0;
    plane = await openPlane(backend, { nodeKey: filled(9), listen: local, ...options }, (batch) => {
      events.push(...batch);
    });
    return plane;
  }

  async function neighbour(): Promise<{ readonly socket: Socket; readonly port: number; readonly got: Buffer[] }> {
    const socket = createSocket('udp4');
    sockets.push(socket);
    const got: Buffer[] = [];
    socket.on('message', (bytes) => got.push(bytes));
    socket.bind(0, '127.0.0.1');
    await once(socket, 'listening');
    return { socket, port: socket.address().port, got };
  }

  afterEach(async () => {
    for (const socket of sockets.splice(0)) socket.close();
    await plane?.close();
    plane = undefined;
  });

  test('says what it is, and in the log what its sockets got', async () => {
    expect((await open()).backend).toBe(backend);
    await waitFor(() => events.some((event) => event.type === 'log' && event.message.startsWith('UDP')), { what: 'a line' });
    expect(events).toContainEqual({
      type: 'log',
      level: 'debug',
      message: expect.stringMatching(/^UDP socket 0: buffers of \d+ KiB in and \d+ KiB out/),
    });
  });

  test('an order and the counters behind it come in that order, at once', async () => {
    const parent = await open();
    for (let n = 1; n <= 1_000; n += 1) parent.linkRemove(n as LinkId);
    expect(parent.stats().drops['staleCommand']).toBe(1_000n);
  });

  test('listens where it is told, or on one port of the system for both families', async () => {
    expect((await open()).sockets).toEqual([{ host: '127.0.0.1', port: expect.any(Number) }]);
    await plane?.close();
    const leaf = await open({ listen: [] });
    expect(leaf.sockets).toHaveLength(1);
    expect(leaf.sockets[0]?.port).toBeGreaterThan(0);
  });

  test('after it was closed, orders do nothing and nothing more is heard', async () => {
    const parent = await open();
    await parent.close();
    const heard = events.length;
    parent.linkRemove(1 as LinkId);
    await parent.close();
    expect(events).toHaveLength(heard);
  });

  test('frames of a link come as events, and go out sealed', async () => {
    const parent = await open();
    const child = await neighbour();
    const keys = linkKeys(1, { host: '127.0.0.1', port: child.port }, { link: 3, initiator: false });
    parent.linkInstall(keys);
    child.socket.send(
      wasm.linkFrame(keys.receiveKey, 0n, keys.receiveIndex, Uint8Array.of(1, 2, 3)),
      parent.sockets[0]?.port ?? 0,
      '127.0.0.1',
    );
    await waitFor(() => events.some(({ type }) => type === 'linkFrame'), { what: 'the frame' });
    expect(events.find(({ type }) => type === 'linkFrame')).toMatchObject({
      link: 3,
      generation: 1,
      socket: 0,
      from: { host: '127.0.0.1', port: child.port },
      bytes: Uint8Array.of(1, 2, 3),
    });
    parent.linkSend(3 as LinkId, Uint8Array.of(4, 5));
    await waitFor(() => child.got.length === 1, { what: 'the answer' });
    expect(child.got[0]).toEqual(Buffer.from(wasm.linkFrame(keys.sendKey, 0n, keys.sendIndex, Uint8Array.of(4, 5))));
    expect(parent.stats().links).toMatchObject([{ link: 3, rxPackets: 1n, txPackets: 1n }]);
  });

  describe('relaying', () => {
    const edges = [1n, 2n ** 32n - 1n, 2n ** 32n, 2n ** 53n - 1n, 2n ** 53n, 2n ** 53n + 1n, 2n ** 60n];

    async function between(): Promise<{
      relay: DataPlane;
      from: Awaited<ReturnType<typeof neighbour>>;
      to: Awaited<ReturnType<typeof neighbour>>;
    }> {
      const relay = await open();
      const [from, to] = [await neighbour(), await neighbour()];
      for (const [n, { port }] of [from, to].entries()) {
        relay.linkInstall(linkKeys(n + 1, { host: '127.0.0.1', port }, { link: n + 1, initiator: false }));
      }
      relay.labelForward(hop(1, 1_000), hop(2, 2_000));
      return { relay, from, to };
    }

    const packet = (counter: bigint): Uint8Array =>
      wasm.dataPacket(filled(5), counter, 1_000, wasm.HopKey.derive(filled(13), 1_000, true), filled(6));
    const onward = (counter: bigint): Buffer =>
      Buffer.from(wasm.dataPacket(filled(5), counter, 2_000, wasm.HopKey.derive(filled(23), 2_000, false), filled(6)));

    test('passes each packet on under the next label and tag, and each counter once: at 2^32 and 2^53, too', async () => {
      const { relay, from, to } = await between();
      const port = relay.sockets[0]?.port ?? 0;
      for (const counter of edges) from.socket.send(packet(counter), port, '127.0.0.1');
      await waitFor(() => to.got.length === edges.length, { what: 'all of them' });
      expect(to.got).toEqual(edges.map(onward));
      // A number that isn't exact would take two for one, or one for two.
      from.socket.send(packet(2n ** 60n), port, '127.0.0.1');
      from.socket.send(packet(2n ** 60n + 1n), port, '127.0.0.1');
      await waitFor(() => to.got.length === edges.length + 1, { what: 'the next' });
      expect(to.got.at(-1)).toEqual(onward(2n ** 60n + 1n));
      const { relay: relayed, drops } = relay.stats();
      expect([relayed.packets, drops['replayed']]).toEqual([BigInt(edges.length) + 1n, 1n]);
    });

    test('goes on while the main thread does nothing at all', async () => {
      const relay = await open();
      const told = new SharedArrayBuffer(16);
      const words = new Int32Array(told);
      // Both neighbours, in a thread: whatever comes back raises the last word.
      const code = `
        const { workerData: { told, packets } } = require('node:worker_threads');
        const words = new Int32Array(told);
        const { createSocket } = require('node:dgram');
        const [from, to] = [createSocket('udp4'), createSocket('udp4')];
        to.on('message', () => { Atomics.add(words, 3, 1); Atomics.notify(words, 3); });
        to.bind(0, '127.0.0.1', () => from.bind(0, '127.0.0.1', () => {
          words[0] = from.address().port; words[1] = to.address().port;
          Atomics.notify(words, 1);
          Atomics.wait(words, 2, 0);
          let next = 0;
          const send = () => { if (next < packets.length) from.send(packets[next++], words[2], '127.0.0.1', send); };
          send();
        }));`;
      const packets = Array.from({ length: 50 }, (_, n) => packet(BigInt(n)));
      const neighbours = new Worker(code, { eval: true, workerData: { told, packets } });
      await waitFor(() => Atomics.load(words, 1) !== 0, { what: 'the neighbours' });
      for (const n of [1, 2]) {
        relay.linkInstall(linkKeys(n, { host: '127.0.0.1', port: words[n - 1] ?? 0 }, { link: n, initiator: false }));
      }
      relay.labelForward(hop(1, 1_000), hop(2, 2_000));
      relay.stats();
      Atomics.store(words, 2, relay.sockets[0]?.port ?? 0);
      Atomics.notify(words, 2);
      // No event is handled here until all have passed, or it is given up.
      for (let seen = 0; seen < packets.length; seen = Atomics.load(words, 3)) {
        expect(Atomics.wait(words, 3, seen, 30_000)).not.toBe('timed-out');
      }
      await neighbours.terminate();
      expect(relay.stats().relay.packets).toBe(50n);
    });
  });
});
