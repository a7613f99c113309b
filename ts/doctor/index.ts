/** `thicket doctor`'s examination of a host. */
export { type Check, type DoctorDocument, examine } from './doctor.js';
export { thisHost } from './host.js';
