/** User-space mode in WebAssembly, with a relay in WebAssembly on the way, in every mix with native nodes that have an interface. */
import { userspaceSuite } from '../suites/userspace.js';

userspaceSuite(['mid', 'gw', 'viewer2']);
