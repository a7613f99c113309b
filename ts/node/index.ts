/** The running node. */
export { ms } from './clock.js';
export { type NodeOptions, type RunningNode, startNode } from './start.js';
