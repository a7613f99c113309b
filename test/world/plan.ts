/** Who runs Thicket in the lab, what the owner certified of whom, and what stands in each thicket.yaml. */

import type { ConfigShape } from '../../ts/config/schema.js';
import type * as z from '../../ts/zod.js';
import type { InternetHost } from '../lab/index.js';

/** thicket.yaml as an object: what a user may write. */
export type NodeConfig = z.input<typeof ConfigShape>;
type EndpointText = NonNullable<NodeConfig['endpoints']>[number];

export type NodeName = InternetHost;
/** `home` owns all nodes but the stranger, who comes from `strange`. */
export type NetworkName = 'home' | 'strange';

export interface NodePlan {
  readonly network: NetworkName;
  /** A relay; one that starts before it. */
  readonly parent: InternetHost | undefined;
  /** Relays listen; leaves don't. */
  readonly listens: boolean;
  readonly rights: readonly ('gateway' | 'relay')[];
  readonly groups: readonly string[];
  /** Short names that the network grants. */
  readonly grants: readonly string[];
  readonly endpoints: readonly EndpointText[];
  /** It has no capability at all, and so no interface: it goes on in user-space mode, and reaches services by forwards (`WorldNode.at`). */
  readonly userspace?: boolean;
  /** Default the best that there is. */
  readonly backend?: 'native' | 'wasm';
}

const FAMILY = ['group:family'];
const leaf = { network: 'home', listens: false, rights: [], groups: [], grants: [], endpoints: [] } as const;

export const NODES: Readonly<Record<NodeName, NodePlan>> = {
  root: { ...leaf, parent: undefined, listens: true, rights: ['relay'] },
  mid: { ...leaf, parent: 'root', listens: true, rights: ['relay'] },
  gw: {
    ...leaf,
    parent: 'root',
    rights: ['gateway'],
    grants: ['camera', 'broker', 'files', 'light1', 'light2'],
    endpoints: [
      { name: 'camera', services: [{ port: 'tcp/554', proto: 'rtsp', target: '192.168.1.20:554', allow: FAMILY }] },
      { name: 'broker', services: [{ port: 'tcp/1883', target: '192.168.1.21:1883', allow: FAMILY }] },
      { name: 'files', services: [{ port: 'tcp/80', target: '192.168.1.22:80', allow: FAMILY }] },
      { name: 'light1', services: [{ port: 'tcp/80', target: '192.168.1.31:80', allow: FAMILY }] },
      { name: 'light2', services: [{ port: 'tcp/80', target: '192.168.1.32:80', allow: FAMILY }] },
    ],
  },
  gw2: {
    ...leaf,
    parent: 'mid',
    rights: ['gateway'],
    grants: ['lamp'],
    endpoints: [{ name: 'lamp', services: [{ port: 'tcp/80', target: '192.168.2.31:80', allow: FAMILY }] }],
  },
  viewer: { ...leaf, parent: 'mid', groups: ['family'] },
  viewer2: { ...leaf, parent: 'mid', groups: ['family'] },
  // The same group's name, in another network: it must open nothing.
  stranger: { ...leaf, network: 'strange', parent: 'mid', groups: ['family'] },
};

/** In the order in which they start: parents first. */
export const NODE_NAMES: readonly NodeName[] = ['root', 'mid', 'gw', 'gw2', 'viewer', 'viewer2', 'stranger'];
