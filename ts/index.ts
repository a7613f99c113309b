/**
 * Thicket in a Node.js program.
 *
 * ```js
 * const node = await Node.open({ state: '/var/lib/app/thicket', config: { parents: ['udp://203.0.113.5:7117#KEY'] } });
 * const stream = node.dial('camera.home.thicket:554');
 * ```
 */
export { OverlayError } from './api/errors.js';
export { type CertifyOptions, Network, type NetworkOptions } from './api/network.js';
export { Node } from './api/node.js';
export type {
  Caller,
  DialOptions,
  EndpointConfig,
  Listener,
  ListenOptions,
  LogLevel,
  LogLine,
  Membership,
  NodeConfig,
  OnStream,
  OpenOptions,
  OverlayErrorCode,
  Resolved,
  SigningRequest,
  StateOptions,
  Target,
} from './api/types.js';
export { type ErrorCode, isThicketError, ThicketError } from './errors.js';
