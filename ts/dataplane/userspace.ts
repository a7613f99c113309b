/**
 * The user-space part of the seam: a TCP/IP host inside the data plane in place of the kernel's, for places without a TUN or privileges. What the core would
 * write to a TUN goes to that host, and what it sends comes back as a local program's packets do: policy, flows and accounting are the same code.
 *
 * There are two layers. `UserSpace` is what the rest of TypeScript uses. `HostOrders` and `HostEvent` are what a backend's shell has to do for it; `HostStreams`
 * (streams.ts) makes the first of the second, for both backends.
 */
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { SessionId } from './data-plane.js';

export interface UserSpaceOptions {
  /**
   * Bytes that the buffers of all streams may take together, default 64 MiB. Buffers shrink as streams grow in number; a stream for which nothing is left is
   * refused (its caller sees a reset, `dial` fails with ENOBUFS).
   */
  readonly budget?: number;
}

/** Where a stream goes: from an address of ours (the node's own, or an endpoint's) to a remote key's or name's address in our pool. */
export interface StreamAddress {
  /** Text form; `own` and `peer` are of one family. The port at `own` is chosen by the host. */
  readonly own: string;
  readonly peer: string;
  readonly port: number;
}

/**
 * How a stream ended. `done`: both directions were finished and acknowledged. `refused`: a reset instead of a connection (nobody listens, or the far end
 * denies it). `reset`: a reset later, or the policy changed. `timedOut`: no answer, or none any more. `unreachable`: an ICMP error said so (no session, no
 * route). `full`: no buffers or ports are left here.
 */
export type StreamEnd = 'done' | 'refused' | 'reset' | 'timedOut' | 'unreachable' | 'full';

/** As Node's own sockets name these. */
export type StreamErrorCode = 'ECONNREFUSED' | 'ECONNRESET' | 'ETIMEDOUT' | 'EHOSTUNREACH' | 'ENOBUFS';

const CODES: Readonly<Record<Exclude<StreamEnd, 'done'>, readonly [StreamErrorCode, string]>> = {
  refused: ['ECONNREFUSED', 'the connection was refused'],
  reset: ['ECONNRESET', 'the connection was reset'],
  timedOut: ['ETIMEDOUT', 'the far end does not answer'],
  unreachable: ['EHOSTUNREACH', 'the far end is out of reach'],
  full: ['ENOBUFS', 'too many connections at once'],
};

/** What a stream is destroyed with. `code` is that of a Node socket in the same place. */
export class StreamError extends Error {
  readonly code: StreamErrorCode;

  constructor(end: Exclude<StreamEnd, 'done'>) {
    const [code, text] = CODES[end];
    super(text);
    this.name = 'StreamError';
    this.code = code;
  }
}

/** A local socket and a stream that carry each other's bytes. */
export interface Splice {
  /** Resolves once both are closed; never rejects. */
  readonly closed: Promise<void>;
  /** Resets both. */
  abort(): void;
}

/** UDP from one port of ours, chosen by the host, to whom one likes. */
export interface Datagrams {
  /** Sends one datagram (at most 65,507 bytes). What can't be sent is lost, as UDP's is. */
  send(peer: string, port: number, bytes: Uint8Array): void;
  close(): void;
}

export type OnDatagram = (peer: string, port: number, bytes: Uint8Array) => void;

export interface UserSpace {
  /**
   * Opens a TCP stream. It emits `connect`, and may be written to before; half-open streams stay half open (`end()` sends a FIN and reading goes on).
   * Back-pressure is that of any stream: the window closes while nobody reads, and `write` returns false while the far end's is closed. Fails by being destroyed
   * with a StreamError. `destroy()` resets what isn't finished.
   */
  dial(address: StreamAddress): Duplex;
  /**
   * Joins an accepted socket and a stream of `dial` (or of an `incoming` event) until both are over: half-closes pass either way, a reset or an error of one
   * resets the other. `initial` is written to the stream before anything that comes from the socket; what the socket has read but nobody took goes next. Nobody
   * else may use either from now on, and nothing may have been read from or written to the stream. On the native backend the descriptor moves into the data
   * plane, so that no byte enters JavaScript; elsewhere this pipes.
   */
  splice(socket: Socket, stream: Duplex, initial?: Uint8Array): Splice;
  datagrams(own: string, onDatagram: OnDatagram): Datagrams;
}

export interface UserSpaceStats {
  /** TCP streams that the host knows, those that are being opened and those that linger included. */
  readonly streams: number;
  /** UDP flows to devices, and ports opened by `datagrams`. */
  readonly datagrams: number;
  /** Bytes that wait in the host's buffers now. */
  readonly buffered: number;
  /** Streams refused since the start because nothing was left for them. */
  readonly refused: bigint;
}

/**
 * What a shell does for the streams and datagrams of this side. Orders are fire-and-forget and in order, as all of the data plane's; one that names something
 * unknown is ignored, as it may have just ended. Numbers of streams and ports are u32, chosen by TypeScript, odd; the shell chooses even ones for streams that
 * come in.
 */
export interface HostOrders {
  /** Opens a stream: `streamConnected` or `streamClosed` follows. */
  streamDial(stream: number, own: string, peer: string, port: number): void;
  /** Bytes for the far end (the caller leaves them alone). The next write comes only after `streamWritten`; up to some 128 KiB at once. */
  streamWrite(stream: number, bytes: Uint8Array): void;
  /** So many more bytes may be told of by `streamData`; none before. May come before `streamConnected`. */
  streamRead(stream: number, bytes: number): void;
  /** FIN, after all that was written. */
  streamFinish(stream: number): void;
  /** RST, and no more events of it; also takes a spliced stream and its socket down. */
  streamAbort(stream: number): void;
  /**
   * Native only: duplicates the descriptor before it returns, and joins it with the stream, which may still be opening and of which nothing was read or
   * written; `initial` (may be empty) goes to the stream first. Of its events only `streamClosed` follows, when both are over. A stream that fails resets the
   * socket (SO_LINGER 0), and the other way round.
   */
  streamSplice?(stream: number, fd: number, initial: Uint8Array): void;
  /** Opens a UDP port at `own`. */
  datagramsOpen(port: number, own: string): void;
  datagramsSend(port: number, peer: string, peerPort: number, bytes: Uint8Array): void;
  datagramsClose(port: number): void;
}

/** What a shell tells, among its other events and in order with them. */
export type HostEvent =
  | { readonly type: 'streamConnected'; readonly stream: number }
  /** As many bytes as `streamRead` allowed, or fewer. */
  | { readonly type: 'streamData'; readonly stream: number; readonly bytes: Uint8Array }
  /** All of the last write is in the host's buffers: the next may come. */
  | { readonly type: 'streamWritten'; readonly stream: number }
  /** The far end's FIN; all that came before it has been told of. */
  | { readonly type: 'streamFinished'; readonly stream: number }
  /** The last word on a stream; its number is free. */
  | { readonly type: 'streamClosed'; readonly stream: number; readonly reason: StreamEnd }
  /** A caller's stream to a service that is `local`, already accepted. */
  | {
      readonly type: 'streamIncoming';
      readonly stream: number;
      readonly session: SessionId;
      readonly account: number;
      /** The caller's address in our pool, and the port that it calls from. */
      readonly peer: string;
      readonly peerPort: number;
    }
  | { readonly type: 'datagram'; readonly port: number; readonly peer: string; readonly peerPort: number; readonly bytes: Uint8Array };
