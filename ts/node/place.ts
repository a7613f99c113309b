/**
 * What a node is on its host: an interface, or a host of its own in its place (user-space mode); its pool of local addresses; its way to devices. A node that
 * others can find by its address (it listens) has none of this unless told otherwise: it carries packets and terminates none.
 */
import type { Logger } from 'pino';
import type { Config } from '../config/index.js';
import { type Backend, chooseBackend, type DataPlane, type DataPlaneEvent, type DataPlaneOptions } from '../dataplane/index.js';
import { describe, type ErrorCode, isThicketError, ThicketError } from '../errors.js';
import { type Lan, systemLan, type Translation } from '../gateway/lan.js';
import { Nat } from '../gateway/nat/index.js';
import { userSpaceTranslation } from '../gateway/nat/userspace.js';
import { type Flow, type FlowFilter, HostNet, loadKernel } from '../kernel/index.js';
import { AddressPool, type InUse, randomUla } from '../naming/index.js';
import { type KeyPair, keyBytes } from '../trust/index.js';
import type { Clock } from './clock.js';
import { Undo } from './undo.js';

/** The interface's MTU; the core cuts what is too long for the path. */
const MTU = 1_500;
const DNS_PORT = 53;

/** How local programs and devices meet the overlay. */
export type Mode = { readonly kind: 'tun' } | { readonly kind: 'userspace' /** Why there is no interface. */; readonly reason: string };

export interface Ground {
  readonly mode: Mode;
  readonly pool: AddressPool;
  readonly lan: Lan;
  readonly nat: Translation;
  /** Makes these addresses of endpoints, and no others, ones that `Outward.dial` may call from. */
  readonly callFrom: (addresses: readonly string[]) => Promise<void>;
  /** Where the DNS server shall listen; port 0: where it can. */
  readonly dns: { readonly addresses: readonly string[]; readonly port: number };
  /** Flows that the kernel knows beside the data plane, and that may be older than this program. */
  readonly flows: (filters: readonly FlowFilter[]) => Promise<readonly Flow[]>;
}

export interface Place {
  readonly backend: Backend;
  readonly plane: DataPlane;
  readonly ipv6: string | undefined;
  readonly ground: Ground | undefined;
}

export interface PlaceOptions {
  readonly config: Config;
  readonly stateFolder: string;
  readonly pair: KeyPair;
  readonly clock: Clock;
  readonly log: Logger;
  /** Which local addresses flows use. */
  readonly inUse: () => Promise<InUse>;
  readonly onEvent: (event: DataPlaneEvent) => void;
}

/** Takes the best place that the configuration and this host allow. Throws a ThicketError; what was done by then is in `undo`. */
export async function takePlace(options: PlaceOptions, undo: Undo): Promise<Place> {
  const { config, log } = options;
  const hidden = config.listen.length === 0 || config.allowUnrelayed;
  const backend = chooseBackend();
  if (backend.shortfall !== undefined) log.warn(`the ${backend.name} backend moves packets: ${backend.shortfall}`);
  if (!hidden) return { backend, plane: await open(options, backend, {}, undo), ipv6: undefined, ground: undefined };
  const { mode } = config.interface;
  if (mode === 'userspace') return inUserSpace(options, backend, 'interface.mode says so', undo);
  if (mode === 'tun') return onInterface(options, backend, undo);
  const attempt = new Undo();
  try {
    const place = await onInterface(options, backend, attempt);
    undo.push(() => attempt.run((error) => log.error(describe(error))));
    return place;
  } catch (error) {
    await attempt.run((failure) => log.error(describe(failure)));
    if (!isThicketError(error) || !NO_INTERFACE.has(error.code)) throw error;
    return inUserSpace(options, backend, describe(error), undo);
  }
}

/** What this host, and not the configuration, lacks for an interface. */
const NO_INTERFACE: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'BACKEND_UNAVAILABLE',
  'NETLINK',
  'NFT_FAILED',
  'NFT_MISSING',
  'NO_PRIVILEGE',
  'NO_TUN',
]);

/** Rules first, then the interface, then its addresses: at no moment can a packet of the pool leave elsewhere. */
async function onInterface(options: PlaceOptions, backend: Backend, undo: Undo): Promise<Place> {
  if (backend.name === 'wasm')
    throw new ThicketError('NO_TUN', 'the wasm backend makes no interface: install the native addon for this platform');
  const { config, stateFolder, log } = options;
  const { name, ipv4, offload } = config.interface;
  const kernel = loadKernel();
  const ipv6 = interfaceIpv6(options);
  const pool = await openPool(options, ipv6, undo);
  const dnsPort = config.dns.port ?? DNS_PORT;
  const net = await HostNet.open(kernel, {
    interface: name,
    pool4: ipv4,
    pool6: ipv6,
    own4: pool.first.v4,
    own6: pool.first.v6,
    mtu: MTU,
    dnsPort,
    stateFolder,
    log,
  });
  undo.push(() => net.detach());
  await net.prepare();
  const plane = await open(options, backend, { tun: { name, offload } }, undo);
  await net.attach();
  const { v4, v6 } = pool.first;
  const ground: Ground = {
    mode: { kind: 'tun' },
    pool,
    lan: kernel,
    nat: new Nat(kernel, net),
    callFrom: (addresses) => net.callFrom(addresses),
    dns: { addresses: v6 === undefined ? [v4] : [v4, v6], port: dnsPort },
    flows: (filters) => kernel.flows(filters),
  };
  return { backend, plane, ipv6, ground };
}

/** Nothing of the kernel's is changed, and no privilege is needed. */
async function inUserSpace(options: PlaceOptions, backend: Backend, reason: string, undo: Undo): Promise<Place> {
  const { config, log } = options;
  const { ipv6: wanted } = config.interface;
  // These addresses mean nothing to the kernel: it needn't have IPv6.
  const ipv6 = poolIpv6(wanted, options.stateFolder);
  const pool = await openPool(options, ipv6, undo);
  const plane = await open(options, backend, { userspace: {} }, undo);
  log.info(`user-space mode: ${reason}`);
  const ground: Ground = {
    mode: { kind: 'userspace', reason },
    pool,
    lan: systemLan,
    nat: userSpaceTranslation,
    callFrom: () => Promise.resolve(),
    dns: { addresses: ['127.0.0.1'], port: config.dns.port ?? 0 },
    flows: () => Promise.resolve([]),
  };
  return { backend, plane, ipv6, ground };
}

type Ways = Pick<DataPlaneOptions, 'tun' | 'userspace'>;

async function open({ config, pair, log, onEvent }: PlaceOptions, backend: Backend, ways: Ways, undo: Undo): Promise<DataPlane> {
  const { aead, threads } = config.interface;
  const plane = await backend.open({ nodeKey: keyBytes(pair.publicKey), listen: config.listen, aead, threads, ...ways }, (events) => {
    for (const event of events) {
      try {
        onEvent(event);
      } catch (error) {
        // What somebody sent must not end the node; a bug is told, and the next event is handled.
        log.error({ event: event.type }, `an event could not be handled: ${describe(error)}`);
      }
    }
  });
  undo.push(() => plane.close());
  return plane;
}

function openPool({ config, stateFolder, clock, inUse, log }: PlaceOptions, ipv6: string | undefined, undo: Undo): AddressPool {
  const pool = AddressPool.open({
    folder: stateFolder,
    ipv4: config.interface.ipv4,
    ipv6,
    ttlMs: config.dns.ttlMs,
    now: () => clock.now(),
    inUse,
    log,
  });
  undo.push(() => pool.close());
  return pool;
}

/** Without IPv6 on this host no name gets an AAAA record, since nothing could be sent there. */
function interfaceIpv6({ config, stateFolder, log }: PlaceOptions): string | undefined {
  const { ipv6 } = config.interface;
  if (ipv6 === 'off' || HostNet.hasIpv6(stateFolder)) return poolIpv6(ipv6, stateFolder);
  log.warn('IPv6 is switched off on this host: local addresses are IPv4 only');
  return undefined;
}

function poolIpv6(ipv6: string, stateFolder: string): string | undefined {
  if (ipv6 === 'off') return undefined;
  return ipv6 === 'auto' ? randomUla(stateFolder) : ipv6;
}
