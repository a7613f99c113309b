export type { Overlay } from './overlay.js';
export { type SocksOptions, SocksServer } from './server.js';
