export { connected } from './connected.js';
export * from './data-plane.js';
export { join } from './join.js';
export { type Backend, type BackendName, chooseBackend, openDataPlane } from './loader.js';
export { type Datagrams, type Splice, StreamError, type StreamErrorCode, type UserSpace } from './userspace.js';
