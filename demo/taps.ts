/** What tcpdump is to who may capture: relays on loopback that keep what passes them. */
import { createSocket, type Socket as UdpSocket } from 'node:dgram';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer } from 'node:net';
import type { HostPort } from '../ts/config/index.js';

/** Something that was watched for what passed by. */
export interface Watched {
  readonly host: string;
  contains(text: string): boolean;
}

export class Tap implements Watched {
  readonly host: string;
  /** Where it listens. */
  readonly port: number;
  readonly #kept: Buffer[] = [];
  readonly #close: () => void;
  #keeps = true;

  private constructor(host: string, port: number, close: () => void) {
    this.host = host;
    this.port = port;
    this.#close = close;
  }

  /** Stands for `to` on this address: each caller's datagrams go there, and answers back. */
  static async udp(host: string, address: string, to: HostPort): Promise<Tap> {
    const server = createSocket('udp4');
    const beyond = new Map<number, UdpSocket>();
    server.bind(0, address);
    await once(server, 'listening');
    const tap = new Tap(host, server.address().port, () => {
      for (const socket of [server, ...beyond.values()]) socket.close();
    });
    server.on('message', (bytes, from) => {
      tap.#keep(bytes);
      let socket = beyond.get(from.port);
      if (socket === undefined) {
        socket = createSocket('udp4');
        socket.on('message', (answer) => {
          tap.#keep(answer);
          server.send(answer, from.port, from.address);
        });
        beyond.set(from.port, socket);
      }
      socket.send(bytes, to.port, to.host);
    });
    return tap;
  }

  /** Stands for `to` on this address. */
  static async tcp(host: string, address: string, to: HostPort): Promise<Tap> {
    const server = createServer((socket) => {
      const onward = connect(to.port, to.host);
      for (const [from, into] of [
        [socket, onward],
        [onward, socket],
      ] as const) {
        from.on('data', (bytes: Buffer) => tap.#keep(bytes));
        from.on('error', () => into.destroy());
        from.pipe(into);
      }
    }).listen(0, address);
    await once(server, 'listening');
    const tap = new Tap(host, (server.address() as AddressInfo).port, () => server.close());
    return tap;
  }

  /** Datagrams, or pieces of a stream. */
  get count(): number {
    return this.#kept.length;
  }

  contains(text: string): boolean {
    return this.#kept.some((bytes) => bytes.includes(text));
  }

  /** Passes on what comes, and keeps no more of it. */
  stop(): void {
    this.#keeps = false;
  }

  close(): void {
    this.#close();
  }

  #keep(bytes: Buffer): void {
    if (this.#keeps) this.#kept.push(bytes);
  }
}
