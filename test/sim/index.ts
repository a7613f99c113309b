/** Nodes on an in-memory data plane, wire and clock: see plane.ts for what is real. */
export { VirtualClock } from './clock.js';
export { type Arrival, SimNode } from './node.js';
export { SimPlane } from './plane.js';
export { Random } from './random.js';
export { Traffic } from './traffic.js';
export { type Datagram, type Sent, Wire } from './wire.js';
export { type PlantOptions, randomKey, World } from './world.js';
