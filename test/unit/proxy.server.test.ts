/** The proxy with its clients, over loopback; in place of the overlay a few names that lead to sockets of this test. */
import { createSocket, type Socket as UdpSocket } from 'node:dgram';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { Duplex } from 'node:stream';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { pino } from 'pino';
import { join } from '../../ts/dataplane/join.js';
import { ThicketError } from '../../ts/errors.js';
import { type Overlay, type SocksOptions, SocksServer } from '../../ts/proxy/index.js';
import { encodeTarget, Reply, readDatagram, type Target } from '../../ts/proxy/socks5.js';
import { waitFor } from '../lab/index.js';

const DEAF = '192.0.2.1';
const BRIEF = '192.0.2.2';
const GREETING = Uint8Array.of(5, 1, 0);

let proxy: Server;
let service: Server;
let accepted: Socket[];
const clients: Socket[] = [];
const sockets: UdpSocket[] = [];
const splices: Promise<unknown>[] = [];
/** What `find` was asked, and the ends of datagram ports. */
let asked: string[];
let portsOpen: number;
/** The stream to `deaf.thicket`, which never gets connected. */
let deaf: Duplex | undefined;
/** Lets `slow.thicket` be found. */
let findSlow: () => void;

const portOf = (server: Server): number => (server.address() as AddressInfo).port;

/** Streams of far ends that no socket of this host behaves like. */
function strange(host: string): Duplex | undefined {
  if (host !== DEAF && host !== BRIEF) return undefined;
  const stream = new Duplex({ read: () => {} });
  if (host === DEAF) deaf = stream;
  else
    setImmediate(() => {
      stream.emit('connect');
      stream.destroy(new Error('reset'));
    });
  return stream;
}

function overlay(): Overlay {
  return {
    async find(host) {
      asked.push(host);
      if (host === 'camera.thicket') return '127.0.0.1';
      if (host === 'deaf.thicket') return DEAF;
      if (host === 'brief.thicket') return BRIEF;
      if (host === 'slow.thicket') {
        await new Promise<void>((resolve) => {
          findSlow = resolve;
        });
        return '127.0.0.1';
      }
      if (host === 'gone.thicket') throw new ThicketError('NOT_FOUND', 'nobody is called gone');
      throw new ThicketError('REFUSED', `${host} is not of the overlay`);
    },
    dial: (host, port) => strange(host) ?? connect({ host, port, allowHalfOpen: true }),
    splice: (socket, stream, initial) => join(socket, stream, initial),
    datagrams(_family, onDatagram) {
      const socket = createSocket('udp4');
      portsOpen += 1;
      socket.on('message', (bytes, { address, port }) => onDatagram(address, port, bytes));
      socket.bind(0, '127.0.0.1');
      return {
        send: (peer, port, bytes) => socket.send(bytes, port, peer),
        close: () => {
          portsOpen -= 1;
          socket.close();
        },
      };
    },
  };
}

async function startProxy(options: Partial<SocksOptions> = {}, host = '127.0.0.1'): Promise<void> {
  const served = new SocksServer({ overlay: overlay(), log: pino({ level: 'silent' }), ...options });
  proxy = createServer({ allowHalfOpen: true, pauseOnConnect: true }, (socket) => {
    socket.on('error', () => socket.destroy());
    splices.push(served.serve(socket));
  });
  await once(proxy.listen(0, host), 'listening');
}

beforeEach(async () => {
  asked = [];
  accepted = [];
  portsOpen = 0;
  deaf = undefined;
  // Says back in capitals, and goodbye once the client has finished.
  service = createServer({ allowHalfOpen: true }, (socket) => {
    accepted.push(socket);
    socket.on('error', () => {});
    socket.on('data', (data) => socket.write(data.toString().toUpperCase()));
    socket.on('end', () => socket.end('bye'));
  });
  await once(service.listen(0, '127.0.0.1'), 'listening');
  await startProxy();
});

afterEach(async () => {
  for (const socket of [...clients.splice(0), ...accepted]) socket.destroy();
  for (const socket of sockets.splice(0)) socket.close();
  proxy.close();
  service.close();
  await Promise.all(splices.splice(0));
});

/** A client that keeps all that it hears. */
class Client {
  readonly socket: Socket;
  heard = Buffer.alloc(0);
  ended = false;
  readonly end: Promise<void>;

  constructor(host = '127.0.0.1') {
    this.socket = connect({ host, port: portOf(proxy), allowHalfOpen: true });
    clients.push(this.socket);
    this.socket.on('data', (data) => {
      this.heard = Buffer.concat([this.heard, data]);
    });
    this.socket.on('error', () => {});
    this.end = new Promise((resolve) => {
      for (const event of ['end', 'close'] as const) {
        this.socket.on(event, () => {
          this.ended = true;
          resolve();
        });
      }
    });
  }

  write(...parts: readonly (Uint8Array | string)[]): this {
    for (const part of parts) this.socket.write(part);
    return this;
  }

  ask(command: number, target: Target): this {
    return this.write(GREETING, Uint8Array.of(5, command, 0), encodeTarget(target));
  }

  async hears(bytes: number): Promise<Buffer> {
    await waitFor(() => this.heard.length >= bytes || this.ended, { what: `${bytes} bytes from the proxy` });
    return this.heard;
  }
}

const camera = (): Target => ({ host: 'camera.thicket', port: portOf(service) });
const OPEN = '0500' + '05000001000000000000';

describe('CONNECT', () => {
  test('carries what the client sends before it is answered, both ways, and half-closes', async () => {
    const client = new Client().ask(1, camera()).write('early, ');
    expect((await client.hears(12 + 7)).toString('hex', 0, 12)).toBe(OPEN);
    client.write('late');
    client.socket.end();
    await client.end;
    expect(client.heard.toString('latin1', 12)).toBe('EARLY, LATEbye');
  });

  test('byte by byte, too', async () => {
    const client = new Client();
    client.socket.setNoDelay(true);
    for (const byte of [...GREETING, 5, 1, 0, ...encodeTarget(camera())]) {
      client.write(Uint8Array.of(byte));
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect((await client.hears(12)).toString('hex')).toBe(OPEN);
  });

  test.each<[string, () => Target, Reply]>([
    ['a name of the Internet', () => ({ host: 'example.com', port: 80 }), Reply.notAllowed],
    ['an address of the Internet', () => ({ host: '1.1.1.1', port: 80 }), Reply.notAllowed],
    ['a name that nobody has', () => ({ host: 'gone.thicket', port: 80 }), Reply.hostUnreachable],
    ['a port where nobody listens', () => ({ host: 'camera.thicket', port: 1 }), Reply.refused],
  ])('to %s is answered as what it is, and nothing is dialled', async (_what, target, reply) => {
    const client = new Client().ask(1, target());
    await client.end;
    expect(client.heard.toString('hex')).toBe(`050005${reply.toString(16).padStart(2, '0')}0001000000000000`);
    expect(accepted).toEqual([]);
  });

  test('is given up when the client goes before it is connected', async () => {
    const client = new Client().ask(1, { host: 'slow.thicket', port: portOf(service) });
    await waitFor(() => asked.includes('slow.thicket'));
    client.socket.resetAndDestroy();
    await new Promise((resolve) => setImmediate(resolve));
    await waitFor(async () => (await connections()) === 0);
    findSlow();
    await Promise.all(splices);
    const other = new Client().ask(1, camera());
    await other.hears(12);
    expect(accepted.length).toBe(1);
  });

  test('is given up, too, when the far end does not answer and the client goes', async () => {
    const client = new Client().ask(1, { host: 'deaf.thicket', port: 1 });
    await waitFor(() => deaf !== undefined);
    client.socket.resetAndDestroy();
    await waitFor(() => deaf?.destroyed);
  });

  test('is answered, and reset, when the far end resets as soon as it is connected', async () => {
    const client = new Client().ask(1, { host: 'brief.thicket', port: 1 });
    await client.end;
    expect(client.heard.toString('hex')).toBe(OPEN);
  });

  test('a service that resets resets the client', async () => {
    const client = new Client().ask(1, camera());
    await client.hears(12);
    const closed = once(client.socket, 'error');
    accepted[0]?.resetAndDestroy();
    expect(await closed).toMatchObject([{ code: 'ECONNRESET' }]);
  });
});

const connections = (): Promise<number> =>
  new Promise((resolve, reject) => proxy.getConnections((error, count) => (error === null ? resolve(count) : reject(error))));

describe('turned down', () => {
  test.each<[string, Uint8Array, string]>([
    ['BIND', Buffer.concat([GREETING, Uint8Array.of(5, 2, 0, 1, 1, 2, 3, 4, 0, 5)]), '0500' + '05070001000000000000'],
    ['a client that insists on a password', Uint8Array.of(5, 1, 2), '05ff'],
    ['HTTP', Buffer.from('GET / HTTP/1.1\r\n\r\n'), ''],
    ['SOCKS4', Uint8Array.of(4, 1, 0, 80, 1, 2, 3, 4, 0), ''],
  ])('%s', async (_what, bytes, answer) => {
    const client = new Client().write(bytes);
    await client.end;
    expect(client.heard.toString('hex')).toBe(answer);
  });

  test('a client that says nothing in time, or does not go in time', async () => {
    proxy.close();
    await startProxy({ patienceMs: 50 });
    const silent = new Client();
    const halfway = new Client().write(GREETING, Uint8Array.of(5, 1));
    await Promise.all([silent.end, halfway.end]);
    expect([silent.heard.length, halfway.heard.length]).toEqual([0, 2]);
    const refused = new Client().ask(2, camera());
    await refused.end;
    await waitFor(async () => (await connections()) === 0, { what: 'the end of one that was turned down and stays' });
    // Who has asked may wait as long as he likes.
    const served = new Client().ask(1, camera());
    await served.hears(12);
    // The patience with one who comes after him ends.
    await new Client().end;
    served.write('still here');
    expect((await served.hears(22)).toString('latin1', 12)).toBe('STILL HERE');
  });
});

test('whatever clients send, the proxy goes on, and lets none of it into the overlay but what was asked for', async () => {
  const Likely = fc
    .tuple(
      fc.constantFrom<readonly number[]>([], [5], [5, 1, 0], [5, 1, 0, 5, 1, 0], [5, 1, 0, 5, 3, 0]),
      fc.uint8Array({ maxLength: 400 }),
    )
    .map(([head, rest]) => Buffer.from([...head, ...rest]));
  await fc.assert(
    fc.asyncProperty(Likely, async (bytes) => {
      const client = new Client().write(bytes);
      client.socket.end();
      await client.end;
      client.socket.destroy();
    }),
    { numRuns: 300 },
  );
  expect(accepted).toEqual([]);
  const client = new Client().ask(1, camera());
  expect((await client.hears(12)).toString('hex')).toBe(OPEN);
});

describe('UDP ASSOCIATE', () => {
  /** Says back in capitals. */
  async function udpService(): Promise<number> {
    const socket = await udp();
    socket.on('message', (bytes, { address, port }) => socket.send(bytes.toString().toUpperCase(), port, address));
    return socket.address().port;
  }

  async function udp(): Promise<UdpSocket> {
    const socket = createSocket('udp4');
    sockets.push(socket);
    socket.bind(0, '127.0.0.1');
    await once(socket, 'listening');
    return socket;
  }

  const wrap = (target: Target, data: string): Uint8Array =>
    Buffer.concat([Uint8Array.of(0, 0, 0), encodeTarget(target), Buffer.from(data)]);

  class Associated {
    readonly heard: (readonly [from: string, port: number, data: string])[] = [];

    private constructor(
      readonly client: Client,
      readonly socket: UdpSocket,
      readonly relay: number,
    ) {
      socket.on('message', (bytes) => {
        const datagram = readDatagram(bytes);
        if (datagram !== undefined) this.heard.push([datagram.host, datagram.port, Buffer.from(datagram.data).toString()]);
      });
    }

    static async open(declared = 0): Promise<Associated> {
      const client = new Client().ask(3, { host: '0.0.0.0', port: declared });
      const answer = await client.hears(12);
      expect(answer.toString('hex', 0, 10)).toBe('0500' + '05000001' + '7f000001');
      return new Associated(client, await udp(), answer.readUInt16BE(10));
    }

    send(target: Target, data: string): void {
      this.socket.send(wrap(target, data), this.relay, '127.0.0.1');
    }
  }

  test('carries datagrams to names and back, in order, each from where it came', async () => {
    const [one, two] = [await udpService(), await udpService()];
    const associated = await Associated.open();
    for (const [port, data] of [
      [one, 'a'],
      [two, 'b'],
      [one, 'c'],
    ] as const) {
      associated.send({ host: 'camera.thicket', port }, data);
      await waitFor(() => associated.heard.some(([, , text]) => text === data.toUpperCase()));
    }
    expect(associated.heard).toEqual([
      ['127.0.0.1', one, 'A'],
      ['127.0.0.1', two, 'B'],
      ['127.0.0.1', one, 'C'],
    ]);
    expect(portsOpen).toBe(1);
  });

  test('lets wait what comes before its name is found, but not without bound', async () => {
    const port = await udpService();
    const associated = await Associated.open();
    const hears = (text: string): Promise<unknown> => waitFor(() => associated.heard.some(([, , data]) => data === text));
    associated.send({ host: 'camera.thicket', port }, 'found');
    await hears('FOUND');
    for (let n = 0; n < 100; n += 1) associated.send({ host: 'slow.thicket', port }, `n${n}`);
    // All of them have come by the time that this one, whose name is known, has.
    associated.send({ host: 'camera.thicket', port }, 'last');
    await hears('LAST');
    findSlow();
    await waitFor(() => associated.heard.length >= 34);
    associated.send({ host: 'slow.thicket', port }, 'after');
    await hears('AFTER');
    const fromSlow = associated.heard.filter(([, , data]) => /^N\d+$/.test(data)).map(([, , data]) => data);
    expect(fromSlow).toEqual(Array.from({ length: 32 }, (_, n) => `N${n}`));
    expect(asked.filter((name) => name === 'slow.thicket').length).toBe(1);
  });

  test('ends with the TCP connection, ports and all', async () => {
    const port = await udpService();
    const associated = await Associated.open();
    associated.send({ host: 'camera.thicket', port }, 'x');
    await waitFor(() => associated.heard.length === 1);
    // What it still says means nothing.
    associated.client.write('x'.repeat(100_000));
    associated.client.socket.end();
    await waitFor(() => portsOpen === 0);
    associated.send({ host: 'camera.thicket', port }, 'y');
    const other = await Associated.open();
    other.send({ host: 'camera.thicket', port }, 'z');
    await waitFor(() => other.heard.length === 1);
    expect(associated.heard.length).toBe(1);
  });

  test('hears only its client: the first that sent, or the port that was declared', async () => {
    const port = await udpService();
    const associated = await Associated.open();
    associated.send({ host: 'camera.thicket', port }, 'mine');
    await waitFor(() => associated.heard.length === 1);
    const thief = await udp();
    const stolen: Buffer[] = [];
    thief.on('message', (bytes) => stolen.push(bytes));
    thief.send(wrap({ host: 'camera.thicket', port }, 'not mine'), associated.relay, '127.0.0.1');
    associated.send({ host: 'camera.thicket', port }, 'mine again');
    await waitFor(() => associated.heard.length === 2);
    expect(associated.heard.map(([, , data]) => data)).toEqual(['MINE', 'MINE AGAIN']);
    expect(stolen).toEqual([]);

    const declared = await udp();
    const client = new Client().ask(3, { host: '127.0.0.1', port: declared.address().port });
    const relay = (await client.hears(12)).readUInt16BE(10);
    const answers: string[] = [];
    declared.on('message', (bytes) => answers.push(Buffer.from(readDatagram(bytes)?.data ?? []).toString()));
    thief.send(wrap({ host: 'camera.thicket', port }, 'first'), relay, '127.0.0.1');
    declared.send(wrap({ host: 'camera.thicket', port }, 'second'), relay, '127.0.0.1');
    await waitFor(() => answers.length === 1);
    expect(answers).toEqual(['SECOND']);
    expect(stolen).toEqual([]);
  });

  test('brings back nothing from whom nothing was sent to', async () => {
    // The overlay port of this test is an ordinary one on loopback: whoever finds it may send there.
    const port = await udpService();
    const associated = await Associated.open();
    associated.send({ host: 'camera.thicket', port }, 'x');
    await waitFor(() => associated.heard.length === 1);
    const other = createSocket('udp4');
    sockets.push(other);
    other.bind(0, '127.0.0.2');
    await once(other, 'listening');
    const mirror = await udp();
    let seen = 0;
    mirror.on('message', (_, from) => {
      seen = from.port;
    });
    associated.send({ host: 'camera.thicket', port: mirror.address().port }, 'where am I');
    await waitFor(() => seen !== 0);
    other.send('spoofed', seen, '127.0.0.1');
    mirror.send('answer', seen, '127.0.0.1');
    await waitFor(() => associated.heard.some(([, , data]) => data === 'answer'));
    expect(associated.heard.map(([, , data]) => data)).toEqual(['X', 'answer']);
  });

  test.each([
    ['::1', '::1', `05000004${'0'.repeat(31)}1`, 22],
    ['127.0.0.1', '::', '05000001' + '7f000001', 10],
  ] as const)('works for a client at %s of a proxy at %s', async (host, at, answer, length) => {
    proxy.close();
    await startProxy({}, at);
    const port = await udpService();
    const client = new Client(host).ask(3, { host, port: 0 });
    const heard = await client.hears(2 + length);
    expect(heard.toString('hex', 2, length)).toBe(answer);
    const socket = createSocket(host.includes(':') ? 'udp6' : 'udp4');
    sockets.push(socket);
    socket.send(wrap({ host: 'camera.thicket', port }, 'six'), heard.readUInt16BE(length), host);
    const [bytes] = (await once(socket, 'message')) as [Buffer];
    expect(Buffer.from(readDatagram(bytes)?.data ?? []).toString()).toBe('SIX');
  });

  test('there are only so many', async () => {
    proxy.close();
    await startProxy({ associations: 2 });
    const [first] = [await Associated.open(), await Associated.open()];
    const third = new Client().ask(3, { host: '0.0.0.0', port: 0 });
    await third.end;
    expect(third.heard.toString('hex')).toBe('0500' + '05010001000000000000');
    third.socket.destroy();
    first.client.socket.destroy();
    await waitFor(async () => (await connections()) === 1);
    await Associated.open();
  });
});
