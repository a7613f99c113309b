/** User-space mode of the native backend, in every mix with nodes that have an interface. */
import { userspaceSuite } from '../suites/userspace.js';

userspaceSuite([]);
