/**
 * SOCKS5's messages (RFC 1928). All that comes from a client is read here; every reader takes any bytes at all, and says `more` until the message is whole.
 *
 * ```
 * greeting   version 5 | count u8 | methods, one byte each                      answer   version 5 | method
 * request    version 5 | command u8 | 0 | address type u8 | address | port u16   reply    version 5 | code u8 | 0 | address type u8 | address | port u16
 * datagram   0 u16 | fragment u8 | address type u8 | address | port u16 | data
 * ```
 * An address is 4 bytes (type 1), 16 bytes (type 4), or a length and so many characters of a name (type 3).
 */
import { isIP } from 'node:net';
import ipaddr from 'ipaddr.js';

const VERSION = 5;

const IPV4 = 1;
const NAME = 3;
const IPV6 = 4;

/** The only way of proving who one is that is understood here: none. */
export const NO_AUTHENTICATION = 0;

/** How a request ended (RFC 1928, section 6). */
export const Reply = {
  succeeded: 0,
  failed: 1,
  notAllowed: 2,
  networkUnreachable: 3,
  hostUnreachable: 4,
  refused: 5,
  timedOut: 6,
  commandUnknown: 7,
  addressUnknown: 8,
} as const;
export type Reply = (typeof Reply)[keyof typeof Reply];

export interface Target {
  /** An IP address in canonical text form (IPv4-mapped ones are IPv4), or a name as the client wrote it. */
  readonly host: string;
  readonly port: number;
}

export interface Request extends Target {
  readonly command: 'connect' | 'associate';
}

export interface Datagram extends Target {
  readonly data: Uint8Array;
}

export type Read<T> =
  | { readonly state: 'done'; readonly value: T /** Bytes that the message takes. */; readonly length: number }
  /** The message isn't whole. */
  | { readonly state: 'more' }
  /** It never will be one. `reply` is what the client is to be told, where SOCKS has a word for it. */
  | { readonly state: 'bad'; readonly reason: string; readonly reply: Reply | undefined };

const MORE = { state: 'more' } as const;
const bad = (reason: string, reply?: Reply): Read<never> => ({ state: 'bad', reason, reply });

/** What the client offers to prove who it is by. */
export function readGreeting(bytes: Uint8Array): Read<readonly number[]> {
  const [version, count] = bytes;
  if (version === undefined) return MORE;
  if (version !== VERSION) return bad('it does not speak SOCKS5');
  if (count === undefined || bytes.length < 2 + count) return MORE;
  return { state: 'done', value: [...bytes.subarray(2, 2 + count)], length: 2 + count };
}

export function readRequest(bytes: Uint8Array): Read<Request> {
  const [version, command] = bytes;
  if (version === undefined) return MORE;
  if (version !== VERSION) return bad('its request is not one of SOCKS5');
  const target = readTarget(bytes, 3);
  if (target.state !== 'done') return target;
  const { value, length } = target;
  if (command !== 1 && command !== 3) return bad('only CONNECT and UDP ASSOCIATE are served', Reply.commandUnknown);
  if (command === 1 && value.port === 0) return bad('a port is missing', Reply.failed);
  return { state: 'done', value: { ...value, command: command === 1 ? 'connect' : 'associate' }, length };
}

/** Undefined: nothing that could be sent on. Fragments are not: they are optional, and nobody sends them. */
export function readDatagram(bytes: Uint8Array): Datagram | undefined {
  const [high, low, fragment] = bytes;
  if (high !== 0 || low !== 0 || fragment !== 0) return undefined;
  const target = readTarget(bytes, 3);
  if (target.state !== 'done' || target.value.port === 0) return undefined;
  return { ...target.value, data: bytes.subarray(target.length) };
}

/** `at` is where the address type stands; `length` counts from the message's begin. */
function readTarget(bytes: Uint8Array, at: number): Read<Target> {
  const type = bytes[at];
  if (type === undefined) return MORE;
  const named = type === NAME ? 1 : 0;
  const size = type === IPV4 ? 4 : type === IPV6 ? 16 : type === NAME ? bytes[at + 1] : 0;
  if (size === undefined) return MORE;
  if (size === 0) {
    return type === NAME ? bad('a name is empty', Reply.failed) : bad('its kind of address is unknown', Reply.addressUnknown);
  }
  const from = at + 1 + named;
  const end = from + size + 2;
  if (bytes.length < end) return MORE;
  const address = bytes.subarray(from, from + size);
  const host = type === NAME ? canonical(Buffer.from(address).toString('latin1')) : ipaddr.process(ipOf(address)).toString();
  const port = (bytes[end - 2] ?? 0) * 256 + (bytes[end - 1] ?? 0);
  return { state: 'done', value: { host, port }, length: end };
}

const ipOf = (bytes: Uint8Array): string => ipaddr.fromByteArray([...bytes]).toString();

/** Some clients write addresses as names. */
const canonical = (name: string): string => (isIP(name) === 0 ? name : ipaddr.process(name).toString());

/** The answer to a greeting; undefined: none of what was offered will do. */
export function encodeMethod(method: number | undefined): Uint8Array {
  return Uint8Array.of(VERSION, method ?? 0xff);
}

/** `bound`: an IP address and port of ours; nothing where there is none to tell. */
export function encodeReply(reply: Reply, bound: Target = { host: '0.0.0.0', port: 0 }): Uint8Array {
  return Buffer.concat([Uint8Array.of(VERSION, reply, 0), encodeTarget(bound)]);
}

/** A datagram for the client, from an IP address. */
export function encodeDatagram({ host, port, data }: Datagram): Uint8Array {
  return Buffer.concat([Uint8Array.of(0, 0, 0), encodeTarget({ host, port }), data]);
}

/** An address of a message; throws a RangeError for a name longer than 255 bytes. */
export function encodeTarget({ host, port }: Target): Uint8Array {
  const end = [port >> 8, port & 0xff];
  const family = isIP(host);
  if (family !== 0) return Uint8Array.of(family === 4 ? IPV4 : IPV6, ...ipaddr.parse(host).toByteArray(), ...end);
  const name = Buffer.from(host, 'latin1');
  if (name.length === 0 || name.length > 255) throw new RangeError('a name has 1 to 255 bytes');
  return Uint8Array.of(NAME, name.length, ...name, ...end);
}
