/** The native backend: `DataPlane` over the Rust addon's worker thread. */
import { randomBytes } from 'node:crypto';
import { describe, type ErrorCode, ThicketError } from '../errors.js';
import type {
  DataPlane,
  DataPlaneEvent,
  DataPlaneOptions,
  DataPlaneStats,
  Generation,
  Hop,
  Ingress,
  Label,
  LinkId,
  LinkKeys,
  OnEvents,
  PathId,
  PathKeys,
  SessionAddresses,
  SessionId,
  SessionPolicy,
  SocketAddress,
} from './data-plane.js';
import { HostStreams, isHostEvent } from './streams.js';
import type { HostEvent, HostOrders, UserSpaceStats } from './userspace.js';

interface NativeTraffic {
  readonly id: number;
  readonly rxBytes: bigint;
  readonly txBytes: bigint;
  readonly rxPackets: bigint;
  readonly txPackets: bigint;
  readonly flows: number;
  readonly idleMs: number;
  readonly sentMs: number;
  readonly pathMtu: number;
}

interface NativeStats {
  readonly links: readonly NativeTraffic[];
  readonly sessions: readonly NativeTraffic[];
  readonly services: DataPlaneStats['services'];
  readonly relayPackets: bigint;
  readonly relayBytes: bigint;
  readonly relayLabels: number;
  readonly media: number;
  readonly payload: bigint;
  readonly overhead: bigint;
  readonly control: bigint;
  readonly keepAlive: bigint;
  readonly sealed: readonly bigint[];
  readonly opened: readonly bigint[];
  readonly userspace?: UserSpaceStats;
  readonly drops: readonly { readonly name: string; readonly count: bigint }[];
}

interface NativeInstance extends Required<HostOrders> {
  readonly sockets: readonly SocketAddress[];
  readonly tun: readonly [string, string] | null;
  sendHandshake(socket: number, to: SocketAddress, bytes: Uint8Array): void;
  linkInstall(keys: LinkKeys): void;
  linkSend(
    link: number,
    frame: Uint8Array,
    generation: number | undefined,
    socket: number | undefined,
    to: SocketAddress | undefined,
    keepAlive: boolean,
  ): void;
  linkMove(link: number, socket: number, to: SocketAddress): void;
  linkRetire(link: number, generation: number): void;
  linkRemove(link: number): void;
  labelForward(ingress: Hop, egress: Hop): void;
  labelRemove(label: number): void;
  sessionOpen(addresses: SessionAddresses): void;
  sessionAliasRemove(addresses: SessionAddresses): void;
  sessionPolicy(policy: SessionPolicy): void;
  pathInstall(keys: PathKeys): void;
  pathRekey(path: number, slot: number, send: Uint8Array, receive: Uint8Array, confirmed: boolean): void;
  pathRetire(path: number, slot: number): void;
  pathRemove(path: number): void;
  sessionSend(session: number, bytes: Uint8Array, path: number | undefined): void;
  sessionRemove(session: number): void;
  stats(): NativeStats;
  close(): void;
}

type NativeEvent = DataPlaneEvent | HostEvent;

/** Bytes of `UserSpaceOptions.budget` when nothing is said. */
const HOST_BUDGET = 64 * 1_024 * 1_024;

/** What the addon exports. */
export interface NativeAddon {
  version(): string;
  NativeDataPlane: new (
    options: {
      readonly nodeKey: Uint8Array;
      readonly seed: Uint8Array;
      readonly listen: readonly SocketAddress[];
      readonly tunName?: string;
      readonly tunOffload: boolean;
      readonly ring: boolean;
      /** Bytes for the buffers of user-space mode; absent without it. */
      readonly hostBudget?: number;
    },
    onEvents: (events: readonly NativeEvent[]) => void,
  ) => NativeInstance;
}

/** Opens the native data plane. Throws a ThicketError that says what to do about a port in use, a missing TUN or a missing privilege. */
export function openNative(addon: NativeAddon, options: DataPlaneOptions, onEvents: OnEvents): DataPlane {
  let streams: HostStreams | undefined;
  const toEvents = (events: readonly NativeEvent[]): void => {
    if (streams === undefined) onEvents(events.filter((event) => !isHostEvent(event)));
    else onEvents(streams.translate(events));
  };
  let inner: NativeInstance;
  try {
    inner = new addon.NativeDataPlane(
      {
        nodeKey: options.nodeKey,
        seed: randomBytes(32),
        listen: options.listen,
        tunOffload: options.tun?.offload !== 'off',
        ring: options.aead === 'ring',
        ...(typeof options.threads === 'number' ? { threads: options.threads } : {}),
        ...(options.tun === undefined ? {} : { tunName: options.tun.name }),
        ...(options.userspace === undefined ? {} : { hostBudget: options.userspace.budget ?? HOST_BUDGET }),
      },
      toEvents,
    );
  } catch (error) {
    throw explain(error, options);
  }
  if (options.userspace !== undefined) streams = new HostStreams(inner);
  return new NativeBackend(inner, streams);
}

function explain(error: unknown, options: DataPlaneOptions): ThicketError {
  const message = describe(error);
  const name = message.split(':', 1)[0] ?? '';
  const isTun = message.includes(': interface ');
  const make = (code: ErrorCode, text: string): ThicketError => new ThicketError(code, text, { cause: error });
  const device = options.tun?.name ?? 'TUN';
  switch (name) {
    case 'EADDRINUSE':
      return make('ADDRESS_IN_USE', `${message.slice(name.length + 2)}: stop what listens there, or change listen`);
    case 'EADDRNOTAVAIL':
      return make('ADDRESS_IN_USE', `${message.slice(name.length + 2)}: this host doesn't have that address, change listen`);
    case 'EPERM':
    case 'EACCES':
      if (isTun) return make('NO_PRIVILEGE', `interface ${device} can't be made: run as root or with CAP_NET_ADMIN`);
      return make('NO_PRIVILEGE', `${message.slice(name.length + 2)}: run with the privilege to bind there`);
    case 'ENOENT':
    case 'ENODEV':
      if (isTun) return make('NO_TUN', `/dev/net/tun is missing: load the tun module or give the container the device`);
      break;
    case 'EBUSY':
      if (isTun) return make('EXISTS', `interface ${device} is in use: stop the program that holds it, or change interface.name`);
      break;
  }
  if (isTun) {
    const reason = message.slice(message.lastIndexOf(`${device}: `) + device.length + 2);
    return make('NO_TUN', `interface ${device} can't be made (${reason}): check that /dev/net/tun is the kernel's TUN device`);
  }
  return make('DATA_PLANE', `the data plane can't start: ${message}`);
}

class NativeBackend implements DataPlane {
  readonly backend = 'native';
  readonly sockets: readonly SocketAddress[];
  readonly tun: { readonly name: string; readonly offload: string } | undefined;
  readonly userspace: HostStreams | undefined;
  readonly #inner: NativeInstance;

  constructor(inner: NativeInstance, userspace: HostStreams | undefined) {
    this.#inner = inner;
    this.userspace = userspace;
    this.sockets = inner.sockets;
    this.tun = inner.tun ? { name: inner.tun[0], offload: inner.tun[1] } : undefined;
  }

  sendHandshake(socket: number, to: SocketAddress, bytes: Uint8Array): void {
    this.#inner.sendHandshake(socket, to, bytes);
  }

  linkInstall(keys: LinkKeys): void {
    this.#inner.linkInstall(keys);
  }

  linkSend(link: LinkId, frame: Uint8Array, options: Parameters<DataPlane['linkSend']>[2] = {}): void {
    this.#inner.linkSend(link, frame, options.generation, options.to?.socket, options.to?.remote, options.keepAlive ?? false);
  }

  linkMove(link: LinkId, socket: number, remote: SocketAddress): void {
    this.#inner.linkMove(link, socket, remote);
  }

  linkRetire(link: LinkId, generation: Generation): void {
    this.#inner.linkRetire(link, generation);
  }

  linkRemove(link: LinkId): void {
    this.#inner.linkRemove(link);
  }

  labelForward(ingress: Ingress, egress: Hop): void {
    this.#inner.labelForward(ingress, egress);
  }

  labelRemove(label: Label): void {
    this.#inner.labelRemove(label);
  }

  sessionOpen(addresses: SessionAddresses): void {
    this.#inner.sessionOpen(addresses);
  }

  sessionAliasRemove(addresses: SessionAddresses): void {
    this.#inner.sessionAliasRemove(addresses);
  }

  sessionPolicy(policy: SessionPolicy): void {
    this.#inner.sessionPolicy(policy);
  }

  pathInstall(keys: PathKeys): void {
    this.#inner.pathInstall(keys);
  }

  pathRekey(path: PathId, slot: number, sendKey: Uint8Array, receiveKey: Uint8Array, confirmed: boolean): void {
    this.#inner.pathRekey(path, slot, sendKey, receiveKey, confirmed);
  }

  pathRetire(path: PathId, slot: number): void {
    this.#inner.pathRetire(path, slot);
  }

  pathRemove(path: PathId): void {
    this.#inner.pathRemove(path);
  }

  sessionSend(session: SessionId, bytes: Uint8Array, path?: PathId): void {
    this.#inner.sessionSend(session, bytes, path);
  }

  sessionRemove(session: SessionId): void {
    this.#inner.sessionRemove(session);
  }

  stats(): DataPlaneStats {
    const s = this.#inner.stats();
    return {
      links: s.links.map(({ id, ...rest }) => ({ link: id as LinkId, ...rest })),
      sessions: s.sessions.map(({ id, ...rest }) => ({ session: id as SessionId, ...rest })),
      services: s.services,
      relay: { packets: s.relayPackets, bytes: s.relayBytes, labels: s.relayLabels },
      media: s.media,
      ledger: { payload: s.payload, overhead: s.overhead, control: s.control, keepAlive: s.keepAlive },
      trains: { sealed: s.sealed, opened: s.opened },
      ...(s.userspace === undefined ? {} : { userspace: s.userspace }),
      drops: Object.fromEntries(s.drops.map(({ name, count }) => [name, count])),
    };
  }

  async close(): Promise<void> {
    this.#inner.close();
    this.userspace?.close();
  }
}
