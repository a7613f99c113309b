/** The parts of thicket.yaml that lead from this host into the overlay: forwards and proxies. */
import ipaddr from 'ipaddr.js';
import { ThicketError } from '../errors.js';
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
