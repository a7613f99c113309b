/** The running node. */
export { type NodeOptions, type RunningNode, startNode } from './start.js';
