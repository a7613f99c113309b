/**
 * What a node is on its host: its interface, its pool of local addresses, its rules in the kernel. A node that others can find by its address (it listens)
 * has none of this unless told otherwise: it carries packets and terminates none.
 */
import type { Logger } from 'pino';
import type { Config } from '../config/index.js';
import { type Backend, chooseBackend, type DataPlane, type DataPlaneEvent } from '../dataplane/index.js';
import { describe } from '../errors.js';
import { Nat } from '../gateway/nat/index.js';
import { HostNet, type KernelNet, loadKernel } from '../kernel/index.js';
import { AddressPool, type InUse, randomUla } from '../naming/index.js';
import { type KeyPair, keyBytes } from '../trust/index.js';
import type { Clock } from './clock.js';
import type { Undo } from './undo.js';

/** The interface's MTU; the core cuts what is too long for the path. */
const MTU = 1_500;

export interface Ground {
  readonly kernel: KernelNet;
  readonly pool: AddressPool;
  readonly nat: Nat;
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

/** Rules first, then the interface, then its addresses: at no moment can a packet of the pool leave elsewhere. */
export async function takePlace(options: PlaceOptions, undo: Undo): Promise<Place> {
  const { config, stateFolder, pair, clock, log } = options;
  const { name, ipv4, offload, aead, threads } = config.interface;
  const hidden = config.listen.length === 0 || config.allowUnrelayed;
  const backend = chooseBackend();
  if (backend.shortfall !== undefined) log.warn(`the ${backend.name} backend moves packets: ${backend.shortfall}`);
  const open = async (tun: boolean): Promise<DataPlane> => {
    const plane = await backend.open(
      { nodeKey: keyBytes(pair.publicKey), listen: config.listen, aead, threads, ...(tun ? { tun: { name, offload } } : {}) },
      (events) => {
        for (const event of events) {
          try {
            options.onEvent(event);
          } catch (error) {
            // What somebody sent must not end the node; a bug is told, and the next event is handled.
            log.error({ event: event.type }, `an event could not be handled: ${describe(error)}`);
          }
        }
      },
    );
    undo.push(() => plane.close());
    return plane;
  };
  if (!hidden) return { backend, plane: await open(false), ipv6: undefined, ground: undefined };

  const kernel = loadKernel();
  const ipv6 = ipv6Pool(options);
  const pool = await AddressPool.open({
    folder: stateFolder,
    ipv4,
    ipv6,
    ttlMs: config.dns.ttlMs,
    now: () => clock.now(),
    inUse: options.inUse,
    log,
  });
  undo.push(() => pool.close());
  const net = await HostNet.open(kernel, {
    interface: name,
    pool4: ipv4,
    pool6: ipv6,
    own4: pool.first.v4,
    own6: pool.first.v6,
    mtu: MTU,
    dnsPort: config.dns.port,
    stateFolder,
    log,
  });
  undo.push(() => net.detach());
  await net.prepare();
  const plane = await open(true);
  await net.attach();
  return { backend, plane, ipv6, ground: { kernel, pool, nat: new Nat(kernel, net) } };
}

/** Without IPv6 on this host no name gets an AAAA record, since nothing could be sent there. */
function ipv6Pool({ config, stateFolder, log }: PlaceOptions): string | undefined {
  const { ipv6 } = config.interface;
  if (ipv6 === 'off') return undefined;
  if (!HostNet.hasIpv6(stateFolder)) {
    log.warn('IPv6 is switched off on this host: local addresses are IPv4 only');
    return undefined;
  }
  return ipv6 === 'auto' ? randomUla(stateFolder) : ipv6;
}
