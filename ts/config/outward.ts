/** The parts of thicket.yaml that lead from this host into the overlay: forwards, proxies, outlets. */
import { isIP } from 'node:net';
import ipaddr from 'ipaddr.js';
import { ThicketError } from '../errors.js';
import { checkLabel } from '../trust/index.js';
import type { ConfigText } from './schema.js';
import { type HostPort, parseHostPort, parseNamePort } from './values.js';

export interface ForwardConfig {
  readonly listen: HostPort;
  readonly name: string;
  readonly port: number;
}

export interface ProxyConfig {
  readonly listen: HostPort;
  /** Other hosts may use it: it asks for no password. */
  readonly open: boolean;
}

/** The one device that may use an outlet. */
export interface OutletSource {
  readonly ip: string;
  /** As `02:00:5e:10:00:01`. */
  readonly mac?: string;
}

export interface OutletConfig extends ForwardConfig {
  /** The endpoint of ours whose key dials. */
  readonly as: string;
  readonly from: OutletSource;
}

export const parseForward = (raw: ConfigText['forwards'][number]): ForwardConfig => ({
  listen: parseHostPort(raw.listen),
  ...parseNamePort(raw.to),
});

/** Throws BAD_ARGUMENT for an address that others reach, unless told that they may. */
export function parseProxy(raw: { readonly listen: string; readonly open: boolean }): ProxyConfig {
  const listen = parseHostPort(raw.listen);
  if (!raw.open && ipaddr.parse(listen.host).range() !== 'loopback') {
    throw new ThicketError(
      'BAD_ARGUMENT',
      `other hosts could use a proxy on ${listen.host}, which asks for no password: use 127.0.0.1, or say open`,
    );
  }
  return { listen, open: raw.open };
}

export function parseOutlet(raw: ConfigText['outlets'][number]): OutletConfig {
  const { ip, mac } = raw.from;
  if (isIP(ip) === 0) throw new ThicketError('BAD_ARGUMENT', `"${ip}" is not an IP address: say which device may use the outlet`);
  if (mac !== undefined && isIP(ip) === 6) {
    throw new ThicketError('BAD_ARGUMENT', `${ip} has no MAC address here: one can be asked of devices with an IPv4 address`);
  }
  return {
    listen: parseHostPort(raw.listen),
    ...parseNamePort(raw.to),
    as: checkLabel('endpoint name', raw.as),
    from: { ip: ipaddr.parse(ip).toString(), ...(mac === undefined ? {} : { mac: parseMac(mac) }) },
  };
}

function parseMac(text: string): string {
  if (!/^[0-9a-f]{2}([:-][0-9a-f]{2}){5}$/i.test(text)) {
    throw new ThicketError('BAD_ARGUMENT', `"${text}" is not a MAC address: use 02:00:5e:10:00:01`);
  }
  return text.toLowerCase().replaceAll('-', ':');
}

/** `IP[,MAC]`, as `thicket outlet --from` takes it. */
export function parseOutletSource(text: string): ConfigText['outlets'][number]['from'] {
  const [ip = '', mac, ...more] = text.split(',');
  if (more.length > 0) throw new ThicketError('BAD_ARGUMENT', `"${text}" is not a device: use IP or IP,MAC`);
  return mac === undefined ? { ip } : { ip, mac };
}

/** Each outlet needs its endpoint, of the file or exposed by command. Throws BAD_CONFIG. */
export function checkOutlets(outlets: readonly OutletConfig[], endpoints: readonly { readonly name: string }[]): void {
  for (const { as, name, port } of outlets) {
    if (endpoints.some((endpoint) => endpoint.name === as)) continue;
    throw new ThicketError(
      'BAD_CONFIG',
      `the outlet to ${name}:${port} is to call as ${as}, but there is no endpoint ${as} here: expose it first`,
    );
  }
}
