export { decodeFrame, encodeFrame, type Frame, type PathErrorReason } from './frames.js';
export type { LookupResult } from './lookups.js';
export { type Hosted, type Neighbour, Router, type RouterHost } from './router.js';
export { type Incoming, PathSetups, type SetupHost, type SetupOutcome } from './setup.js';
export type { Edge, NameRecord, ParentSet, Stamp } from './statements.js';
export { type ChildRights, type Entry, RoutingTable } from './table.js';
