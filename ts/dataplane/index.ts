export * from './data-plane.js';
export { loadAddon, openDataPlane } from './loader.js';
