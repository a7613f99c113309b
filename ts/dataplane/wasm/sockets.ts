/** The data plane's UDP sockets. */
import { createSocket, type Socket } from 'node:dgram';
import { isIPv4 } from 'node:net';
import type { Listen, SocketAddress } from '../data-plane.js';

export interface Bound {
  readonly socket: Socket;
  /** Speaks IPv4 by mapped addresses. */
  readonly dual: boolean;
  readonly address: SocketAddress;
}

/** What may wait to be read, where the system allows so much. */
const RECEIVE_BUFFER = 4 * 1_024 * 1_024;

/** Opens `listen`, or one of an ephemeral port. Rejects with the system's error, whose `message` names the address. */
export async function openSockets(listen: readonly Listen[]): Promise<Bound[]> {
  if (listen.length === 0) return [await bind('::', 0, true).catch(() => bind('0.0.0.0', 0, false))];
  const ipv4Too = listen.some(({ host }) => host === '0.0.0.0');
  const opened: Bound[] = [];
  try {
    for (const { host, port } of listen) opened.push(await bind(host, port, host === '::' && !ipv4Too));
  } catch (error) {
    for (const { socket } of opened) socket.close();
    throw error;
  }
  return opened;
}

function bind(host: string, port: number, dual: boolean): Promise<Bound> {
  const socket = createSocket({
    ...(isIPv4(host) ? { type: 'udp4' } : { type: 'udp6', ipv6Only: !dual }),
    // Addresses are numbers already. Asked for each packet, Node's own look-up costs more than all the rest.
    lookup: (address, _options, found) => found(null, address, isIPv4(address) ? 4 : 6),
  });
  return new Promise((resolve, reject) => {
    const failed = (error: NodeJS.ErrnoException): void => {
      const what = new Error(`udp://${host.includes(':') ? `[${host}]` : host}:${port}: ${error.message}`);
      reject(Object.assign(what, { code: error.code ?? 'EIO' }));
    };
    socket.once('error', failed);
    socket.bind({ address: host, port, exclusive: true }, () => {
      socket.off('error', failed);
      // Reports about earlier sends, as ECONNREFUSED: the datagram is lost, nothing else.
      socket.on('error', () => undefined);
      enlarge(socket);
      const { address, port: bound } = socket.address();
      resolve({ socket, dual, address: { host: address, port: bound } });
    });
  });
}

function enlarge(socket: Socket): void {
  try {
    socket.setRecvBufferSize(RECEIVE_BUFFER);
  } catch {
    // What the system gives serves, too.
  }
}

/** An address as data-plane.ts has it. */
export function unmapped(host: string): string {
  return host.startsWith('::ffff:') && host.includes('.') ? host.slice(7) : host;
}

/** As this socket wants it. */
export function mapped(host: string, { dual }: Bound): string {
  return dual && isIPv4(host) ? `::ffff:${host}` : host;
}
