/** thicket.yaml: read, checked line by line, and made into what the node works with. */
import { readFileSync, statSync } from 'node:fs';
import { isIP } from 'node:net';
import { join } from 'node:path';
import { type Document, LineCounter, parseDocument, visit } from 'yaml';
import { describe, ThicketError } from '../errors.js';
import {
  checkLabel,
  type NetworkLookup,
  type NetworkRef,
  type PublicKey,
  parseKey,
  parseNetworkRef,
  parseWho,
  type Trusted,
  type Who,
} from '../trust/index.js';
import type * as z from '../zod.js';
import { type ForwardConfig, type OutletConfig, type ProxyConfig, parseForward, parseOutlet, parseProxy } from './outward.js';
import { lineOf, type Path, Place } from './place.js';
import { ConfigShape, type ConfigText } from './schema.js';
import {
  type HostPort,
  type ParentAddress,
  parseDuration,
  parseHostPort,
  parseListen,
  parseParent,
  parsePool,
  parseServicePort,
  type ServicePort,
} from './values.js';

export interface ServiceConfig extends ServicePort {
  readonly rtsp: boolean;
  /** Absent only where a program that embeds the node answers by itself; never in a file. */
  readonly target?: HostPort;
  readonly allow: readonly Who[];
  /** The target may be in loopback, link-local, the pool or the gateway itself. */
  readonly force: boolean;
}

export interface EndpointConfig {
  readonly name: string;
  readonly groups: readonly string[];
  readonly services: readonly ServiceConfig[];
}

export type RelayFor = 'any' | 'none' | readonly PublicKey[];

export interface Config {
  readonly listen: readonly HostPort[];
  readonly parents: readonly ParentAddress[];
  readonly relay: { readonly for: RelayFor; readonly children: number; readonly descendants: number; readonly endpoints: number };
  readonly allowUnrelayed: boolean;
  readonly interface: {
    readonly name: string;
    /** `auto`: a TUN where this host gives one, else user-space mode. */
    readonly mode: 'auto' | 'tun' | 'userspace';
    readonly ipv4: string;
    /** A /64, made up and kept by the node, or no IPv6. */
    readonly ipv6: string | 'auto' | 'off';
    readonly offload: 'auto' | 'off';
    readonly aead: 'auto' | 'ring';
    /** That move packets; `auto`: one for each processor. */
    readonly threads: 'auto' | number;
  };
  readonly dns: {
    readonly domain: string;
    /** Undefined: 53 on the interface, one that is free in user-space mode. */
    readonly port: number | undefined;
    readonly ttlMs: number;
  };
  readonly networks: ReadonlyMap<string, NetworkRef>;
  readonly trust: readonly Trusted[];
  readonly session: { readonly rekeyMs: number };
  readonly endpoints: readonly EndpointConfig[];
  readonly forwards: readonly ForwardConfig[];
  readonly proxies: readonly ProxyConfig[];
  readonly outlets: readonly OutletConfig[];
  readonly control: { readonly socket: string };
  readonly log: { readonly level: 'debug' | 'info' | 'warn' | 'error' };
}

/** Keys that a running node can't change: the rest is applied by `reload`. */
export const RESTART_KEYS = ['listen', 'allow_unrelayed', 'interface', 'dns', 'control'] as const;

/** Those of them whose values differ. */
export function changedRestartKeys(before: Config, after: Config): string[] {
  const parts = (c: Config): Readonly<Record<(typeof RESTART_KEYS)[number], unknown>> => ({
    listen: c.listen,
    allow_unrelayed: c.allowUnrelayed,
    interface: c.interface,
    dns: c.dns,
    control: c.control,
  });
  return RESTART_KEYS.filter((key) => JSON.stringify(parts(before)[key]) !== JSON.stringify(parts(after)[key]));
}

/** `after` as far as a node that runs with `before` can be it: those keys keep their values. */
export function keepRestartKeys(before: Config, after: Config): Config {
  const { listen, allowUnrelayed, interface: tun, dns, control } = before;
  return { ...after, listen, allowUnrelayed, interface: tun, dns, control };
}

/** Reads a configuration file. Throws BAD_CONFIG with `file:line: reason`, or LAX_PERMISSIONS when others can read a naming secret in it. */
export function readConfig(file: string, stateFolder: string): Config {
  let text: string;
  let mode: number;
  try {
    text = readFileSync(file, 'utf8');
    mode = statSync(file).mode;
  } catch (error) {
    throw new ThicketError('BAD_CONFIG', `${file} can't be read (${describe(error)}): check its path and permissions`);
  }
  const config = parseConfig(text, file, stateFolder);
  const secret = [...config.networks].find(([, network]) => network.namingSecret !== undefined);
  if (secret !== undefined && (mode & 0o077) !== 0) {
    throw new ThicketError(
      'LAX_PERMISSIONS',
      `${file} holds the naming secret of ${secret[0]} and can be read by others: chmod 600 ${file}`,
    );
  }
  return config;
}

export function parseConfig(text: string, file: string, stateFolder: string): Config {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false, uniqueKeys: true });
  const fault = document.errors[0] ?? document.warnings[0];
  if (fault !== undefined) {
    const [first = ''] = fault.message.split('\n', 1);
    throw new ThicketError('BAD_CONFIG', `${file}:${lines.linePos(fault.pos[0]).line}: ${first}`);
  }
  return read(plainOf(document, file, lines) ?? {}, new Place(file, (path) => lineOf(path, document, lines)), stateFolder);
}

/** What a program hands over instead of a file. Throws BAD_CONFIG with `what: path: reason`. */
export function configOf(value: unknown, what: string, stateFolder: string): Config {
  return read(value, new Place(what), stateFolder);
}

function read(value: unknown, place: Place, stateFolder: string): Config {
  const shape = ConfigShape.safeParse(value);
  if (!shape.success) throw shapeError(place, shape.error);
  return build(shape.data, place, stateFolder);
}

/** The document as plain values; aliases that lead nowhere, or to too much, are refused. */
function plainOf(document: Document, file: string, lines: LineCounter): unknown {
  let at = 0;
  visit(document, {
    Alias(_, alias) {
      at = alias.range?.[0] ?? 0;
      return alias.resolve(document) === undefined ? visit.BREAK : undefined;
    },
  });
  try {
    return document.toJS({ maxAliasCount: 16 });
  } catch (error) {
    throw new ThicketError('BAD_CONFIG', `${file}:${lines.linePos(at).line}: ${describe(error)}`);
  }
}

function shapeError(place: Place, error: z.core.$ZodError): ThicketError {
  const issue = error.issues[0];
  if (issue === undefined) return place.error([], 'not a configuration');
  if (issue.code === 'unrecognized_keys') {
    const key = issue.keys[0] ?? '';
    return place.error([...issue.path, key], `unknown key "${[...issue.path, key].map(String).join('.')}": see thicket config example`);
  }
  const path = issue.path.map(String).join('.');
  const missing = issue.code === 'invalid_type' && issue.message.endsWith('received undefined');
  return place.error(issue.path, missing ? `${path} is missing: see thicket config example` : `${path || 'the file'}: ${issue.message}`);
}

function build(raw: ConfigText, place: Place, stateFolder: string): Config {
  const networks = new Map<string, NetworkRef>();
  for (const [nickname, text] of Object.entries(raw.networks)) {
    place.at(['networks', nickname], () => networks.set(checkLabel('nickname', nickname), parseNetworkRef(text)));
  }
  const network: NetworkLookup = (text) => networks.get(text)?.key ?? parseNetworkRef(text).key;
  const list = <A, B>(items: readonly A[], path: Path, read: (item: A, index: number) => B): B[] =>
    items.map((item, index) => place.at([...path, index], () => read(item, index)));
  const config: Config = {
    listen: list(raw.listen, ['listen'], parseListen),
    parents: list(raw.parents, ['parents'], parseParent),
    relay: {
      ...raw.relay,
      for: typeof raw.relay.for === 'string' ? raw.relay.for : list(raw.relay.for, ['relay', 'for'], network),
    },
    allowUnrelayed: raw.allow_unrelayed,
    interface: {
      name: place.at(['interface', 'name'], () => interfaceName(raw.interface.name)),
      mode: raw.interface.mode,
      ipv4: place.at(['interface', 'ipv4'], () => parsePool(raw.interface.ipv4, 4, 8, 29)),
      ipv6: place.at(['interface', 'ipv6'], () =>
        raw.interface.ipv6 === 'auto' || raw.interface.ipv6 === 'off' ? raw.interface.ipv6 : parsePool(raw.interface.ipv6, 6, 64, 64),
      ),
      offload: raw.interface.offload,
      aead: raw.interface.aead,
      threads: raw.interface.threads,
    },
    dns: {
      domain: place.at(['dns', 'domain'], () => checkLabel('domain', raw.dns.domain)),
      port: raw.dns.port,
      ttlMs: place.at(['dns', 'ttl'], () => parseDuration(raw.dns.ttl, 1_000, 86_400_000)),
    },
    networks,
    trust: list(
      raw.trust,
      ['trust'],
      (item): Trusted => ('network' in item ? { network: network(item.network) } : { node: parseKey(item.node) }),
    ),
    session: { rekeyMs: place.at(['session', 'rekey'], () => parseDuration(raw.session.rekey, 1_000, 120_000)) },
    endpoints: list(raw.endpoints, ['endpoints'], (endpoint, index) => readEndpoint(endpoint, ['endpoints', index], place, network)),
    forwards: list(raw.forwards, ['forwards'], parseForward),
    proxies: list(raw.proxies, ['proxies'], parseProxy),
    outlets: list(raw.outlets, ['outlets'], parseOutlet),
    control: { socket: raw.control.socket ?? join(stateFolder, 'control.sock') },
    log: raw.log,
  };
  const address = ({ host, port }: HostPort): string => `${host} ${port}`;
  unique(config.listen, address, (index) => place.error(['listen', index], 'this address is there twice: remove one'));
  const doors = (['forwards', 'proxies', 'outlets'] as const).flatMap((key) =>
    config[key].map(({ listen }, index) => ({ listen, path: [key, index, 'listen'] })),
  );
  unique(
    doors,
    ({ listen }) => address(listen),
    (index) => place.error(doors[index]?.path ?? [], 'this address is there twice: use another port'),
  );
  unique(
    config.endpoints,
    (e) => e.name,
    (index) => place.error(['endpoints', index, 'name'], 'this endpoint name is there twice: use another'),
  );
  unique(
    config.parents,
    (p) => p.key,
    (index) => place.error(['parents', index], 'this parent is there twice: remove one'),
  );
  if (config.listen.length === 0 && config.parents.length === 0) {
    throw place.error([], 'neither listen nor parents: a leaf needs parents, a root needs listen');
  }
  if (config.listen.length > 0 && config.endpoints.length > 0 && !config.allowUnrelayed) {
    throw place.error(
      ['endpoints'],
      'a node that listens hosts no endpoints, since its address is known: put them on a leaf, or set allow_unrelayed: true',
    );
  }
  return config;
}

function readEndpoint(raw: ConfigText['endpoints'][number], path: Path, place: Place, network: NetworkLookup): EndpointConfig {
  const services = raw.services.map((service, index): ServiceConfig => {
    const here = [...path, 'services', index];
    const port = place.at([...here, 'port'], () => parseServicePort(service.port));
    const rtsp = service.proto === undefined ? port.protocol === 'tcp' && port.port === 554 : service.proto === 'rtsp';
    if (rtsp && port.protocol !== 'tcp') throw place.error([...here, 'proto'], 'RTSP runs over TCP: use port tcp/…');
    return {
      ...port,
      rtsp,
      target: place.at([...here, 'target'], () => parseHostPort(service.target)),
      allow: service.allow.map((who, n) => place.at([...here, 'allow', n], () => parseWho(who, network))),
      force: service.force,
    };
  });
  unique(
    services,
    (s) => `${s.protocol}/${s.port}`,
    (index) => place.error([...path, 'services', index, 'port'], 'this port is there twice: use another'),
  );
  return {
    name: place.at([...path, 'name'], () => checkLabel('endpoint name', raw.name)),
    groups: raw.groups.map((group, n) => place.at([...path, 'groups', n], () => checkLabel('group', group))),
    services,
  };
}

function unique<T>(items: readonly T[], key: (item: T) => string, error: (index: number) => ThicketError): void {
  const seen = new Set<string>();
  for (const [index, item] of items.entries()) {
    if (seen.has(key(item))) throw error(index);
    seen.add(key(item));
  }
}

function interfaceName(text: string): string {
  if (!/^[A-Za-z0-9_.-]{1,15}$/.test(text) || text === '.' || text === '..' || isIP(text) !== 0) {
    throw new ThicketError('BAD_ARGUMENT', `"${text}" is not an interface name: use at most 15 letters, digits, ., _ or -`);
  }
  return text;
}
