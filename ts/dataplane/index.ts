export * from './data-plane.js';
export { join } from './join.js';
export { loadAddon, openDataPlane } from './loader.js';
export { type Datagrams, type Splice, StreamError, type StreamErrorCode, type UserSpace } from './userspace.js';
