/** Reading the small values that occur in thicket.yaml and on the command line. Each throws BAD_ARGUMENT with one line. */
import { isIP } from 'node:net';
import ipaddr from 'ipaddr.js';
import { ThicketError } from '../errors.js';
import { agreementKey, checkLabel, type PublicKey, parseKey } from '../trust/index.js';

export interface HostPort {
  readonly host: string;
  readonly port: number;
}

export interface ParentAddress extends HostPort {
  readonly key: PublicKey;
}

export interface ServicePort {
  readonly protocol: 'tcp' | 'udp';
  readonly port: number;
}

const bad = (message: string): ThicketError => new ThicketError('BAD_ARGUMENT', message);

export function parsePort(text: string): number {
  const port = /^\d{1,6}$/.test(text) ? Number(text) : 0;
  if (port < 1 || port > 65_535) throw bad(`"${text}" is not a port: use a number from 1 to 65535`);
  return port;
}

/** `host:port`, `[v6]:port`; the host may be a name where `names` says so. */
export function parseHostPort(text: string, names = false): HostPort {
  const match = /^(?:\[([^\]]+)\]|([^:[\]]*)):([^:]+)$/.exec(text);
  if (match === null) throw bad(`"${text}" is not an address: use host:port, or [host]:port for IPv6`);
  const [, v6, other, portText = ''] = match;
  const host = v6 ?? other ?? '';
  const port = parsePort(portText);
  if (v6 !== undefined ? isIP(v6) !== 6 : isIP(host) !== 4 && !(names && isHostName(host))) {
    throw bad(`"${host}" in "${text}" is not ${names ? 'a host name or an IP address' : 'an IP address'}: check its spelling`);
  }
  return { host, port };
}

function isHostName(text: string): boolean {
  return (
    text.length <= 253 &&
    /^[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*\.?$/.test(text) &&
    !/^[\d.]+$/.test(text)
  );
}

/** `udp://host:port`. */
export function parseListen(text: string): HostPort {
  const match = /^udp:\/\/([^#]+)$/.exec(text);
  if (match === null) throw bad(`"${text}" is not a listening address: use udp://address:port`);
  return parseHostPort(match[1] ?? '');
}

/** `udp://host:port#key`. */
export function parseParent(text: string): ParentAddress {
  const match = /^udp:\/\/([^#]+)#(.+)$/.exec(text);
  if (match === null) throw bad(`"${text}" is not a parent: use udp://host:port#<parent key>`);
  return { ...parseHostPort(match[1] ?? '', true), key: reachableKey(match[2] ?? '') };
}

/** 52 good characters are a key only where they name a point of the curve: nobody could shake hands with another. */
function reachableKey(text: string): PublicKey {
  const key = parseKey(text);
  try {
    agreementKey(key);
  } catch {
    throw bad(`"${text}" is nobody's key: copy the parent's from its thicket status`);
  }
  return key;
}

/** `tcp/554`, `udp/5683`. */
export function parseServicePort(text: string): ServicePort {
  const match = /^(tcp|udp)\/(.+)$/.exec(text);
  if (match === null) throw bad(`"${text}" is not a service port: use tcp/PORT or udp/PORT`);
  return { protocol: match[1] as 'tcp' | 'udp', port: parsePort(match[2] ?? '') };
}

const UNITS: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** `500ms`, `120s`, `2m`, `1h`, `365d`: milliseconds. */
export function parseDuration(text: string, least = 0, most = Number.MAX_SAFE_INTEGER): number {
  const match = /^(\d{1,9})(ms|s|m|h|d)$/.exec(text);
  if (match === null) throw bad(`"${text}" is not a duration: use a number with ms, s, m, h or d behind it`);
  const value = Number(match[1]) * (UNITS[match[2] ?? ''] ?? 0);
  if (value < least || value > most) throw bad(`${text} is out of range: use ${formatDuration(least)} to ${formatDuration(most)}`);
  return value;
}

function formatDuration(value: number): string {
  for (const unit of ['d', 'h', 'm', 's'] as const) {
    const size = UNITS[unit] ?? 1;
    if (value >= size && value % size === 0) return `${value / size}${unit}`;
  }
  return `${value}ms`;
}

/** A CIDR of this family with no bits set behind the prefix, its prefix length within bounds. */
export function parsePool(text: string, family: 4 | 6, shortest: number, longest: number): string {
  if (!ipaddr.isValidCIDR(text)) throw bad(`"${text}" is not a CIDR: use ${family === 4 ? '198.18.0.0/15' : 'fd00:1234:5678:9abc::/64'}`);
  const [address, prefix] = ipaddr.parseCIDR(text);
  if (address.kind() !== (family === 4 ? 'ipv4' : 'ipv6')) throw bad(`"${text}" is not an IPv${family} CIDR: check which pool it is for`);
  if (prefix < shortest || prefix > longest)
    throw bad(`the pool ${text} has the wrong size: use a prefix from /${shortest} to /${longest}`);
  const network = family === 4 ? ipaddr.IPv4.networkAddressFromCIDR(text) : ipaddr.IPv6.networkAddressFromCIDR(text);
  if (network.toString() !== address.toString()) throw bad(`"${text}" has bits set behind its prefix: use ${network.toString()}/${prefix}`);
  return `${network.toString()}/${prefix}`;
}

/** `NAME:PORT` as `forward` wants it: the name may leave the domain out. */
export function parseNamePort(text: string): { readonly name: string; readonly port: number } {
  const colon = text.lastIndexOf(':');
  if (colon <= 0) throw bad(`"${text}" is not a service: use NAME:PORT`);
  const name = text.slice(0, colon);
  if (!isHostName(name)) throw bad(`"${name}" is not a name: use one as in camera.home.thicket`);
  return { name, port: parsePort(text.slice(colon + 1)) };
}

const SCHEMES: Readonly<Record<string, { readonly port: number; readonly rtsp: boolean }>> = {
  rtsp: { port: 554, rtsp: true },
  http: { port: 80, rtsp: false },
  https: { port: 443, rtsp: false },
  mqtt: { port: 1883, rtsp: false },
  mqtts: { port: 8883, rtsp: false },
};

export interface ParsedService extends ServicePort {
  readonly rtsp: boolean;
  readonly target: HostPort;
}

/**
 * A service as `thicket expose` takes it: `rtsp://192.168.1.20`, `http://192.168.1.31:8080`, `192.168.1.20:554` (TCP, the same port) or
 * `udp/5683=192.168.1.40:5683`.
 */
export function parseService(text: string): ParsedService {
  const url = /^([a-z]+):\/\/([^/]+)\/?.*$/.exec(text);
  if (url !== null) {
    const scheme = SCHEMES[url[1] ?? ''];
    if (scheme === undefined) throw bad(`"${text}": use ${Object.keys(SCHEMES).join(', ')} URLs, or tcp/PORT=address:port`);
    const where = url[2] ?? '';
    const target = parseHostPort(/:\d+$/.test(where.replace(/^\[.*\]/, '')) ? where : `${where}:${scheme.port}`);
    return { protocol: 'tcp', port: target.port, rtsp: scheme.rtsp, target };
  }
  const equals = text.indexOf('=');
  const target = parseHostPort(text.slice(equals + 1));
  const port = equals < 0 ? { protocol: 'tcp' as const, port: target.port } : parseServicePort(text.slice(0, equals));
  return { ...port, rtsp: port.protocol === 'tcp' && port.port === 554, target };
}

/** `camera` (all its services), `camera:554`, `camera:tcp/554`. */
export function parseServiceName(text: string): { readonly endpoint: string; readonly service: ServicePort | undefined } {
  const [endpoint = '', port, ...more] = text.split(':');
  checkLabel('endpoint name', endpoint);
  if (more.length > 0) throw bad(`"${text}" is not a service: use NAME, NAME:PORT or NAME:udp/PORT`);
  if (port === undefined) return { endpoint, service: undefined };
  return { endpoint, service: port.includes('/') ? parseServicePort(port) : { protocol: 'tcp', port: parsePort(port) } };
}
