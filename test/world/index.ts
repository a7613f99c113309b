/** The lab with Thicket in it, for jest, the demo and the bench. */
export { type Dug, dig } from './dig.js';
export { echo, echoRequests, from, type Knock, knock, listenOn } from './knocking.js';
export { WorldNode } from './node.js';
export { Owner, type SignWhat } from './owner.js';
export { type NetworkName, NODE_NAMES, NODES, type NodeConfig, type NodeName, type NodePlan } from './plan.js';
export { Player } from './player.js';
export { Pulse } from './pulse.js';
export {
  type Decoded,
  decode,
  fetchSha256,
  picture,
  publishAndSubscribe,
  startWatching,
  switchLight,
  urlHost,
  type Video,
  type Watch,
  watch,
  watched,
} from './traffic.js';
export { SOCKS_PORT, World, type WorldOptions } from './world.js';
