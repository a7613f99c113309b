export { openWasm } from './backend.js';
