/** Bare data planes over loopback, viewer – relay – gateway, of any backend each: keys and labels are given to them, nobody shakes hands. */
import type {
  AllowedService,
  DataPlane,
  DataPlaneEvent,
  DataPlaneOptions,
  Generation,
  Hop,
  Label,
  LinkId,
  LinkKeys,
  OnEvents,
  PathId,
  SessionId,
  SocketAddress,
} from '../../ts/dataplane/data-plane.js';
import { openDataPlane } from '../../ts/dataplane/loader.js';
import { openWasm } from '../../ts/dataplane/wasm/index.js';

export type BackendName = DataPlane['backend'];
export const backends: readonly BackendName[] = ['native', 'wasm'];

/** A data plane of this backend. */
export async function openPlane(backend: BackendName, options: DataPlaneOptions, onEvents: OnEvents = () => {}): Promise<DataPlane> {
  return backend === 'wasm' ? openWasm(options, onEvents) : openDataPlane(options, onEvents, { ...process.env, THICKET_BACKEND: 'native' });
}

/** 32 bytes of one value. */
export const filled = (value: number): Uint8Array => new Uint8Array(32).fill(value);

const generation = 1 as Generation;

/** By which the ends know each other. */
export const viewerAddresses = { own4: '198.18.0.1', peer4: '198.18.0.2', own6: 'fd00:18::1', peer6: 'fd00:18::2' } as const;
export const gatewayAddresses = { own4: '198.18.0.65', peer4: '198.18.0.66', own6: 'fd00:19::65', peer6: 'fd00:19::66' } as const;
export const session = 5 as SessionId;

export const hop = (link: number, label: number): Hop => ({ link: link as LinkId, label: label as Label, generation });

/** Keys of a link between two planes, as each has them. */
export function linkKeys(number: number, to: SocketAddress, end: { readonly link: number; readonly initiator: boolean }): LinkKeys {
  const [forth, back] = [filled(10 * number + 1), filled(10 * number + 2)];
  return {
    link: end.link as LinkId,
    generation,
    socket: 0,
    remote: to,
    initiator: end.initiator,
    receiveIndex: 1_000 * number + (end.initiator ? 1 : 2),
    sendIndex: 1_000 * number + (end.initiator ? 2 : 1),
    sendKey: end.initiator ? forth : back,
    receiveKey: end.initiator ? back : forth,
    hopSecret: filled(10 * number + 3),
    confirmed: true,
  };
}

export interface WayOptions {
  readonly viewer: BackendName;
  readonly relay: BackendName;
  readonly gateway: BackendName;
  /** What the viewer may reach. */
  readonly inbound?: readonly AllowedService[];
  readonly budget?: number;
}

/** The three of them, with a session between the ends. The viewer's dials lead to the gateway's services. */
export class Way {
  readonly viewer: DataPlane;
  readonly relay: DataPlane;
  readonly gateway: DataPlane;
  readonly events: { readonly viewer: DataPlaneEvent[]; readonly gateway: DataPlaneEvent[] };

  static async open(options: WayOptions): Promise<Way> {
    const events = { viewer: [] as DataPlaneEvent[], gateway: [] as DataPlaneEvent[] };
    const userspace = options.budget === undefined ? {} : { budget: options.budget };
    const end = (name: 'viewer' | 'gateway'): Promise<DataPlane> =>
      openPlane(options[name], { nodeKey: filled(1), listen: [{ host: '127.0.0.1', port: 0 }], userspace }, (batch) => {
        events[name].push(...batch);
      });
    const relay = await openPlane(options.relay, { nodeKey: filled(2), listen: [{ host: '127.0.0.1', port: 0 }] });
    const way = new Way(await end('viewer'), relay, await end('gateway'), events);
    way.#connect(options.inbound ?? []);
    return way;
  }

  private constructor(viewer: DataPlane, relay: DataPlane, gateway: DataPlane, events: Way['events']) {
    this.viewer = viewer;
    this.relay = relay;
    this.gateway = gateway;
    this.events = events;
  }

  #connect(inbound: readonly AllowedService[]): void {
    const { viewer, relay, gateway } = this;
    const at = ({ sockets: [socket] }: DataPlane): SocketAddress => ({ host: '127.0.0.1', port: socket?.port ?? 0 });
    viewer.linkInstall(linkKeys(1, at(relay), { link: 1, initiator: true }));
    relay.linkInstall(linkKeys(1, at(viewer), { link: 1, initiator: false }));
    gateway.linkInstall(linkKeys(2, at(relay), { link: 1, initiator: true }));
    relay.linkInstall(linkKeys(2, at(gateway), { link: 2, initiator: false }));
    relay.labelForward(hop(1, 1_000), hop(2, 2_000));
    relay.labelForward(hop(2, 3_000), hop(1, 4_000));
    const policy = { session, rtspPorts: [], echo: false };
    const path = { path: 7 as PathId, session, confirmed: true };
    viewer.sessionOpen({ session, ...viewerAddresses });
    viewer.sessionPolicy({ ...policy, inbound: [], outbound: true });
    viewer.pathInstall({ ...path, ingress: hop(1, 4_000), egress: hop(1, 1_000), sendKey: filled(31), receiveKey: filled(32) });
    gateway.sessionOpen({ session, ...gatewayAddresses });
    gateway.sessionPolicy({ ...policy, inbound, outbound: false });
    gateway.pathInstall({ ...path, ingress: hop(1, 2_000), egress: hop(1, 3_000), sendKey: filled(32), receiveKey: filled(31) });
    // All has been carried out when counters come back.
    for (const plane of [viewer, relay, gateway]) plane.stats();
  }

  async close(): Promise<void> {
    await Promise.all([this.viewer, this.relay, this.gateway].map((plane) => plane.close()));
  }
}
