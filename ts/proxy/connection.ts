/** One client of a proxy: its greeting, its request, and what becomes of it. */
import type { Socket } from 'node:net';
import type { Logger } from 'pino';
import { connected, type Splice } from '../dataplane/index.js';
import { describe, type ErrorCode, isThicketError, ThicketError } from '../errors.js';
import { associate } from './association.js';
import type { Overlay } from './overlay.js';
import { Reader } from './reader.js';
import { encodeMethod, encodeReply, NO_AUTHENTICATION, Reply, type Request, readGreeting, readRequest } from './socks5.js';

export interface ConnectionOptions {
  readonly overlay: Overlay;
  readonly log: Logger;
  /** Milliseconds in which a client must have said what it wants, and hang up when it was turned down. */
  readonly patienceMs: number;
  /** Whether one more UDP association may be. */
  readonly mayAssociate: () => boolean;
  /** One begins; it lasts as long as the socket. */
  readonly associated: (socket: Socket) => void;
}

/** Serves a client, whose connection is paused and may be half open; resolves with the splice that goes on with it, if there is one. Never rejects. */
export async function serve(socket: Socket, options: ConnectionOptions): Promise<Splice | undefined> {
  const reader = new Reader(socket);
  const timer = setTimeout(() => socket.destroy(), options.patienceMs);
  const asked = await ask(socket, reader, options);
  clearTimeout(timer);
  if (asked === undefined) return undefined;
  const { command, host, port } = asked;
  try {
    return command === 'connect' ? await connect(socket, asked, reader.rest, options) : await udp(socket, port, options);
  } catch (error) {
    options.log.debug(`a proxy's client was turned down (${command} ${host}:${port}): ${describe(error)}`);
    leave(socket, encodeReply(replyTo(error)), options.patienceMs);
    return undefined;
  }
}

/** Says the last word. A client that doesn't hang up then is hung up on: not at once, as that could take the word back. */
function leave(socket: Socket, answer: Uint8Array, patienceMs: number): void {
  socket.end(answer);
  socket.resume();
  const timer = setTimeout(() => socket.destroy(), patienceMs);
  socket.once('close', () => clearTimeout(timer));
}

/** What the client wants; undefined: nothing, and it has been told so as far as SOCKS has words for it. */
async function ask(socket: Socket, reader: Reader, { log, patienceMs }: ConnectionOptions): Promise<Request | undefined> {
  const refuse = (reason: string, answer: Uint8Array = new Uint8Array()): undefined => {
    log.debug(`a proxy's client was turned down: ${reason}`);
    leave(socket, answer, patienceMs);
  };
  const greeting = await reader.next(readGreeting);
  if (greeting === undefined) return refuse('it closed before it had greeted');
  if (greeting.state === 'bad') return refuse(greeting.reason);
  if (!greeting.value.includes(NO_AUTHENTICATION)) return refuse('it wants to prove who it is', encodeMethod(undefined));
  socket.write(encodeMethod(NO_AUTHENTICATION));
  const request = await reader.next(readRequest);
  if (request === undefined) return refuse('it closed before it had asked');
  if (request.state === 'bad') return refuse(request.reason, request.reply === undefined ? undefined : encodeReply(request.reply));
  return request.value;
}

async function connect(
  socket: Socket,
  { host, port }: Request,
  early: Uint8Array,
  { overlay }: ConnectionOptions,
): Promise<Splice | undefined> {
  const address = await overlay.find(host);
  if (socket.destroyed) return undefined;
  const stream = overlay.dial(address, port);
  const give = (): void => void stream.destroy();
  socket.once('close', give);
  await connected(stream);
  socket.removeListener('close', give);
  // The answer first: a spliced socket is written to by others.
  await new Promise<void>((resolve) => {
    socket.write(encodeReply(Reply.succeeded), () => resolve());
  });
  if (!socket.destroyed) return overlay.splice(socket, stream, early);
  stream.destroy();
  return undefined;
}

async function udp(socket: Socket, port: number, options: ConnectionOptions): Promise<undefined> {
  if (!options.mayAssociate()) throw new ThicketError('BUSY', 'there are too many UDP associations: close some');
  options.associated(socket);
  const bound = await associate(socket, port, options);
  socket.write(encodeReply(Reply.succeeded, bound));
}

const OF_ERRORS: Partial<Record<ErrorCode, Reply>> = {
  REFUSED: Reply.notAllowed,
  UNTRUSTED: Reply.notAllowed,
  DENIED: Reply.notAllowed,
  REVOKED: Reply.notAllowed,
  EXPIRED: Reply.notAllowed,
  NOT_FOUND: Reply.hostUnreachable,
  NO_ROUTE: Reply.hostUnreachable,
  BAD_KEY: Reply.hostUnreachable,
  UNKNOWN_NETWORK: Reply.hostUnreachable,
  WRONG_KEY: Reply.hostUnreachable,
  UNREACHABLE: Reply.networkUnreachable,
  NO_PARENT: Reply.networkUnreachable,
  TIMEOUT: Reply.timedOut,
};

const OF_SOCKETS: Readonly<Record<string, Reply>> = {
  ECONNREFUSED: Reply.refused,
  EHOSTUNREACH: Reply.hostUnreachable,
  ENETUNREACH: Reply.networkUnreachable,
  ETIMEDOUT: Reply.timedOut,
  EACCES: Reply.notAllowed,
};

/** What SOCKS says of an error of `Overlay`. */
export function replyTo(error: unknown): Reply {
  if (isThicketError(error)) return OF_ERRORS[error.code] ?? Reply.failed;
  const code: unknown = typeof error === 'object' && error !== null ? Reflect.get(error, 'code') : undefined;
  return (typeof code === 'string' ? OF_SOCKETS[code] : undefined) ?? Reply.failed;
}
