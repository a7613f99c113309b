/** The namespace lab: a world to test in, for jest and for the demo. */
export { Capture, type Packet, readPcap } from './capture.js';
export { type Datagram, datagramsOf, sendAllLengths, sendDatagrams } from './datagrams.js';
export {
  type Camera,
  type Devices,
  type FileServer,
  type Server,
  startBroker,
  startCamera,
  startDevices,
  startFiles,
  startLight,
} from './devices.js';
export { LabError } from './errors.js';
export { Host, type StartOptions } from './host.js';
export { Lab, type LabOptions, type Undo } from './lab.js';
export { Loopback } from './loopback.js';
export { DEVICES, type Device, type HostName, type InternetHost, underlay } from './plan.js';
export { type ExecOptions, type Exit, Process, type Result, run, type SpawnOptions } from './process.js';
export { repository, thicketProgram } from './repository.js';
export { sweep } from './runs.js';
export type { ShimOptions } from './shim.js';
export type { Stage } from './stage.js';
export { type WaitOptions, waitFor } from './wait.js';
