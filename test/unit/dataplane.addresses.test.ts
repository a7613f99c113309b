import { createSocket, type RemoteInfo, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { afterEach, describe, expect, test } from '@jest/globals';
import type { DataPlane, DataPlaneEvent, Generation, Hop, Label, LinkId } from '../../ts/dataplane/data-plane.js';
import { openDataPlane } from '../../ts/dataplane/loader.js';
import { wasm } from '../impolite/wasm.js';
import { waitFor } from '../lab/index.js';

const bytes = (value: number): Uint8Array => new Uint8Array(32).fill(value);

/** A neighbour, as its NAT lets it be: it takes answers from the address that it called alone. */
class Child {
  readonly socket: Socket;
  readonly got: { readonly bytes: Buffer; readonly from: RemoteInfo }[] = [];

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.on('message', (message, from) => this.got.push({ bytes: message, from }));
  }

  static async calling(host: string, port: number): Promise<Child> {
    const socket = createSocket('udp4');
    socket.bind(0, '127.0.0.1');
    await once(socket, 'listening');
    socket.connect(port, host);
    await once(socket, 'connect');
    return new Child(socket);
  }

  get address(): { readonly host: string; readonly port: number } {
    return { host: '127.0.0.1', port: this.socket.address().port };
  }
}

describe('a native data plane with several addresses', () => {
  let plane: DataPlane | undefined;
  const events: DataPlaneEvent[] = [];
  const children: Child[] = [];

  async function open(host: string): Promise<DataPlane> {
    events.length = 0;
    plane = await openDataPlane({ nodeKey: bytes(9), listen: [{ host, port: 0 }] }, (batch) => {
      events.push(...batch);
    });
    return plane;
  }

  afterEach(async () => {
    for (const { socket } of children.splice(0)) socket.close();
    await plane?.close();
    plane = undefined;
  });

  test.each(['0.0.0.0', '::'])('on %s: answers each child from the one that it called, frames, data and handshakes', async (host) => {
    const parent = await open(host);
    const called = ['127.0.0.2', '127.0.0.3'] as const;
    const generation = 1 as Generation;
    for (const [n, address] of called.entries()) {
      const child = await Child.calling(address, parent.sockets[0]?.port ?? 0);
      children.push(child);
      const keys = { sendKey: bytes(n), receiveKey: bytes(n + 10), hopSecret: bytes(n + 20), initiator: false, confirmed: false };
      const indexes = { receiveIndex: 100 + n, sendIndex: 200 + n };
      parent.linkInstall({ link: (n + 1) as LinkId, generation, socket: 0, remote: child.address, ...indexes, ...keys });
      child.socket.send(wasm.linkFrame(bytes(n + 10), 0n, 100 + n, Uint8Array.of(1, n)));
    }
    await waitFor(() => events.filter(({ type }) => type === 'linkFrame').length === 2, { what: 'both frames' });
    const locals = events.flatMap((event) => (event.type === 'linkFrame' ? [`${event.link} ${event.from.local}`] : []));
    expect(locals.sort()).toEqual(called.map((address, n) => `${n + 1} ${address}`));
    const [first, second] = children;
    if (first === undefined || second === undefined) throw new RangeError('two children');

    parent.linkSend(1 as LinkId, Uint8Array.of(7));
    parent.linkSend(2 as LinkId, Uint8Array.of(7));
    // What the first sends on a label goes to the second.
    const hop = (link: number, label: number): Hop => ({ link: link as LinkId, label: label as Label, generation });
    parent.labelForward(hop(1, 1_000), hop(2, 2_000));
    await waitFor(() => parent.stats().relay.labels === 1);
    first.socket.send(wasm.dataPacket(bytes(5), 0n, 1_000, wasm.HopKey.derive(bytes(20), 1_000, true), bytes(6)));
    parent.sendHandshake(0, { ...first.address, local: called[0] }, bytes(1));
    await waitFor(() => first.got.length === 2 && second.got.length === 2, { what: 'all that was sent' });
    expect(children.map(({ got }) => got.map(({ from }) => from.address))).toEqual(called.map((address) => [address, address]));
  });
});
