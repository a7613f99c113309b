/** Streams of user-space mode over a shell that only takes notes: what the data plane is asked, and what programs see. */
import { connect, createServer, type Server, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { afterEach, describe, expect, test } from '@jest/globals';
import type { DataPlaneEvent, SessionId } from '../../ts/dataplane/data-plane.js';
import { join } from '../../ts/dataplane/join.js';
import { HostStreams } from '../../ts/dataplane/streams.js';
import type { HostEvent, HostOrders, StreamEnd } from '../../ts/dataplane/userspace.js';
import { waitFor } from '../lab/index.js';

/** As 64 KiB and no more may wait in JavaScript. */
const WINDOW = 65_536;

class Shell implements HostOrders {
  readonly orders: string[] = [];
  readonly written: Buffer[] = [];
  credit = 0;

  streamDial(stream: number, own: string, peer: string, port: number): void {
    this.orders.push(`dial ${stream} ${own} ${peer} ${port}`);
  }
  streamWrite(stream: number, bytes: Uint8Array): void {
    this.orders.push(`write ${stream} ${bytes.length}`);
    this.written.push(Buffer.from(bytes));
  }
  streamRead(_: number, bytes: number): void {
    this.credit += bytes;
  }
  streamFinish(stream: number): void {
    this.orders.push(`finish ${stream}`);
  }
  streamAbort(stream: number): void {
    this.orders.push(`abort ${stream}`);
  }
  datagramsOpen(port: number, own: string): void {
    this.orders.push(`open ${port} ${own}`);
  }
  datagramsSend(port: number, peer: string, peerPort: number, bytes: Uint8Array): void {
    this.orders.push(`send ${port} ${peer} ${peerPort} ${bytes.length}`);
  }
  datagramsClose(port: number): void {
    this.orders.push(`close ${port}`);
  }
}

class SplicingShell extends Shell {
  readonly spliced: { readonly stream: number; readonly fd: number; readonly initial: string }[] = [];

  streamSplice(stream: number, fd: number, initial: Uint8Array): void {
    this.spliced.push({ stream, fd, initial: Buffer.from(initial).toString() });
  }
}

const AT = { own: '198.18.0.1', peer: '198.18.7.9', port: 554 };

const make = <S extends Shell>(shell: S): { shell: S; streams: HostStreams; tell: (...events: HostEvent[]) => DataPlaneEvent[] } => {
  const streams = new HostStreams(shell);
  return { shell, streams, tell: (...events) => streams.translate(events) };
};

/** One turn of the event loop: what a stream puts off until then is done. */
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

const failure = (stream: Duplex): Promise<unknown> => new Promise((resolve) => stream.once('error', resolve));

describe('a stream of user-space mode', () => {
  test('takes writes before it is connected, and hands on one at a time', async () => {
    const { shell, streams, tell } = make(new Shell());
    const stream = streams.dial(AT);
    let connected = false;
    stream.once('connect', () => {
      connected = true;
    });
    stream.write('DESCRIBE');
    stream.write(' * ');
    stream.write('RTSP/1.0');
    await turn();
    expect(shell.orders).toEqual(['dial 1 198.18.0.1 198.18.7.9 554']);
    tell({ type: 'streamConnected', stream: 1 });
    expect(connected).toBe(true);
    expect(shell.orders.slice(1)).toEqual(['write 1 8']);
    tell({ type: 'streamWritten', stream: 1 });
    await turn();
    expect(Buffer.concat(shell.written).toString()).toBe('DESCRIBE * RTSP/1.0');
  });

  test('says when the far end takes no more', async () => {
    const { streams, tell } = make(new Shell());
    const stream = streams.dial(AT);
    tell({ type: 'streamConnected', stream: 1 });
    expect(stream.write(Buffer.alloc(WINDOW))).toBe(false);
    let drained = false;
    stream.once('drain', () => {
      drained = true;
    });
    await turn();
    expect(drained).toBe(false);
    tell({ type: 'streamWritten', stream: 1 });
    await turn();
    expect(drained).toBe(true);
  });

  test('lets no more come than somebody reads', async () => {
    const { shell, streams, tell } = make(new Shell());
    const stream = streams.dial(AT);
    tell({ type: 'streamConnected', stream: 1 });
    stream.on('readable', () => {});
    await turn();
    let told = 0;
    // Nobody takes anything: the shell runs out of credit.
    while (shell.credit > told) {
      const bytes = Buffer.alloc(Math.min(10_000, shell.credit - told));
      told += bytes.length;
      tell({ type: 'streamData', stream: 1, bytes });
      await turn();
      if (told > 4 * WINDOW) break;
    }
    expect(told).toBeLessThanOrEqual(2 * WINDOW);
    const before = shell.credit;
    expect(stream.read()).toHaveLength(told);
    await turn();
    expect(shell.credit).toBeGreaterThan(before);
  });

  test('stays half open, both ways', async () => {
    const { shell, streams, tell } = make(new Shell());
    const one = streams.dial(AT);
    const other = streams.dial(AT);
    tell({ type: 'streamConnected', stream: 1 }, { type: 'streamConnected', stream: 3 });
    one.end('GET /');
    tell({ type: 'streamWritten', stream: 1 });
    await turn();
    expect(shell.orders.slice(2)).toEqual(['write 1 5', 'finish 1']);
    let answer = '';
    one.on('data', (chunk: Buffer) => {
      answer += chunk.toString();
    });
    tell({ type: 'streamData', stream: 1, bytes: Buffer.from('200 OK') }, { type: 'streamFinished', stream: 1 });
    await waitFor(() => one.destroyed, { what: 'the end' });
    expect(answer).toBe('200 OK');
    other.resume();
    tell({ type: 'streamFinished', stream: 3 });
    await waitFor(() => other.readableEnded, { what: 'the far end to finish' });
    expect(other.destroyed).toBe(false);
    other.end('still here');
    tell({ type: 'streamWritten', stream: 3 });
    await waitFor(() => other.destroyed, { what: 'the end' });
    expect(Buffer.concat(shell.written).toString()).toBe('GET /still here');
    // Whole streams are never reset.
    expect(shell.orders.filter((order) => order.startsWith('abort'))).toEqual([]);
  });

  test.each<[StreamEnd, string]>([
    ['refused', 'ECONNREFUSED'],
    ['reset', 'ECONNRESET'],
    ['timedOut', 'ETIMEDOUT'],
    ['unreachable', 'EHOSTUNREACH'],
    ['full', 'ENOBUFS'],
  ])('that is %s fails as a socket of Node.js does: %s', async (reason, code) => {
    const { shell, streams, tell } = make(new Shell());
    const stream = streams.dial(AT);
    stream.write('lost');
    const failed = failure(stream);
    tell({ type: 'streamClosed', stream: 1, reason });
    expect(await failed).toMatchObject({ code });
    expect(shell.orders).toHaveLength(1);
  });

  test('is reset by destroy', async () => {
    const { shell, streams, tell } = make(new Shell());
    const stream = streams.dial(AT);
    tell({ type: 'streamConnected', stream: 1 });
    stream.destroy();
    await turn();
    expect(shell.orders.slice(1)).toEqual(['abort 1']);
  });

  test('is reset when the data plane closes', async () => {
    const { streams } = make(new Shell());
    const failed = failure(streams.dial(AT));
    streams.close();
    expect(await failed).toMatchObject({ code: 'ECONNRESET' });
  });

  test('comes in as an event, in order with the others', async () => {
    const { shell, tell } = make(new Shell());
    const session = 5 as SessionId;
    const others: DataPlaneEvent[] = [
      { type: 'log', level: 'info', message: 'before' },
      { type: 'log', level: 'info', message: 'after' },
    ];
    const [before, incoming, after] = tell(
      others[0] as never,
      { type: 'streamIncoming', stream: 2, session, account: 7, peer: '198.18.7.9', peerPort: 40_000 },
      { type: 'streamData', stream: 2, bytes: Buffer.from('hello') },
      others[1] as never,
    );
    expect([before, after]).toEqual(others);
    expect(incoming).toMatchObject({ type: 'incoming', session, account: 7, peer: '198.18.7.9', peerPort: 40_000 });
    if (incoming?.type !== 'incoming') throw new TypeError('not incoming');
    expect(incoming.stream.read()?.toString()).toBe('hello');
    incoming.stream.write('welcome');
    expect(Buffer.concat(shell.written).toString()).toBe('welcome');
  });
});

test('datagrams go out, come in, and stop with close', () => {
  const { shell, streams, tell } = make(new Shell());
  const heard: string[] = [];
  const ports = streams.datagrams(AT.own, (peer, port, bytes) => heard.push(`${peer} ${port} ${Buffer.from(bytes)}`));
  ports.send(AT.peer, 53, Buffer.from('who?'));
  const answer: HostEvent = { type: 'datagram', port: 1, peer: AT.peer, peerPort: 53, bytes: Buffer.from('me') };
  tell(answer);
  ports.close();
  ports.close();
  tell(answer);
  expect(shell.orders).toEqual(['open 1 198.18.0.1', 'send 1 198.18.7.9 53 4', 'close 1']);
  expect(heard).toEqual(['198.18.7.9 53 me']);
});

describe('splicing', () => {
  let server: Server | undefined;
  afterEach(() => {
    server?.close();
  });

  /** A program's connection: its own end, and the one that was accepted. */
  const accepted = async (): Promise<[Socket, Socket]> => {
    const arrived = new Promise<Socket>((resolve) => {
      server = createServer({ allowHalfOpen: true, pauseOnConnect: true }, resolve).listen(0, '127.0.0.1');
    });
    await new Promise((resolve) => server?.once('listening', resolve));
    const address = server?.address();
    const own = connect({
      port: typeof address === 'object' && address !== null ? address.port : 0,
      host: '127.0.0.1',
      allowHalfOpen: true,
    });
    const socket = await arrived;
    socket.on('error', () => {});
    own.on('error', () => {});
    return [own, socket];
  };

  test('gives the descriptor away where the data plane can take it, with what was read already', async () => {
    const { shell, streams, tell } = make(new SplicingShell());
    const [own, socket] = await accepted();
    own.write('GET /');
    socket.resume();
    socket.pause();
    await waitFor(() => socket.readableLength === 5, { what: 'the request' });
    const fd: unknown = Reflect.get(Reflect.get(socket, '_handle'), 'fd');
    const stream = streams.dial(AT);
    const splice = streams.splice(socket, stream, Buffer.from('first '));
    expect(shell.spliced).toEqual([{ stream: 1, fd, initial: 'first GET /' }]);
    await turn();
    // Neither end is told that JavaScript has let go.
    expect(shell.orders).toEqual(['dial 1 198.18.0.1 198.18.7.9 554']);
    let over = false;
    void splice.closed.then(() => {
      over = true;
    });
    await turn();
    expect(over).toBe(false);
    tell({ type: 'streamClosed', stream: 1, reason: 'done' });
    await splice.closed;
    splice.abort();
    expect(shell.orders).toHaveLength(1);
    own.destroy();
  });

  test('that is given up is reset by the data plane', async () => {
    const { shell, streams } = make(new SplicingShell());
    const [own, socket] = await accepted();
    const splice = streams.splice(socket, streams.dial(AT));
    splice.abort();
    await splice.closed;
    expect(shell.orders.slice(1)).toEqual(['abort 1']);
    own.destroy();
  });

  test('pipes elsewhere: half-closes pass, and all comes to its end', async () => {
    const { shell, streams, tell } = make(new Shell());
    const [own, socket] = await accepted();
    const splice = streams.splice(socket, streams.dial(AT), Buffer.from('first '));
    let heard = '';
    own.on('data', (chunk: Buffer) => {
      heard += chunk.toString();
    });
    own.end('request');
    tell({ type: 'streamConnected', stream: 1 });
    while (!shell.orders.includes('finish 1')) {
      tell({ type: 'streamWritten', stream: 1 });
      await turn();
    }
    expect(Buffer.concat(shell.written).toString()).toBe('first request');
    expect(own.readableEnded).toBe(false);
    tell({ type: 'streamData', stream: 1, bytes: Buffer.from('answer') }, { type: 'streamFinished', stream: 1 });
    await splice.closed;
    await waitFor(() => own.readableEnded, { what: 'the end of the answer' });
    expect(heard).toBe('answer');
    expect(shell.orders).not.toContain('abort 1');
    own.destroy();
  });

  test('pipes elsewhere: a reset of the stream resets the program', async () => {
    const { streams, tell } = make(new Shell());
    const [own, socket] = await accepted();
    const splice = streams.splice(socket, streams.dial(AT));
    const failed = failure(own);
    tell({ type: 'streamClosed', stream: 1, reason: 'refused' });
    expect(await failed).toMatchObject({ code: 'ECONNRESET' });
    await splice.closed;
  });

  test('pipes elsewhere: a reset of one socket resets the other, whichever it is', async () => {
    for (const resets of [0, 1] as const) {
      const [own, socket] = await accepted();
      server?.close();
      const [far, onward] = await accepted();
      const ends = [own, far] as const;
      const splice = join(socket, onward, new Uint8Array());
      await Promise.all(ends.map((end) => waitFor(() => end.readyState === 'open', { what: 'the connection' })));
      const failed = failure(ends[1 - resets] ?? own);
      ends[resets]?.resetAndDestroy();
      expect(await failed).toMatchObject({ code: 'ECONNRESET' });
      await splice.closed;
      server?.close();
    }
  });

  test('pipes elsewhere: a reset of the program resets the stream', async () => {
    const { shell, streams, tell } = make(new Shell());
    const [own, socket] = await accepted();
    const splice = streams.splice(socket, streams.dial(AT));
    tell({ type: 'streamConnected', stream: 1 });
    await waitFor(() => own.readyState === 'open', { what: 'the connection' });
    own.resetAndDestroy();
    await splice.closed;
    expect(shell.orders).toContain('abort 1');
  });
});
