export { ControlClient } from './client.js';
export * from './documents.js';
export { type ControlHost, type ControlServer, openControl } from './server.js';
