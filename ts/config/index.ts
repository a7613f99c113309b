export {
  type Config,
  changedRestartKeys,
  configOf,
  type EndpointConfig,
  keepRestartKeys,
  parseConfig,
  RESTART_KEYS,
  type RelayFor,
  readConfig,
  type ServiceConfig,
} from './config.js';
export { exampleConfig } from './example.js';
export { type Change, LocalChanges, networkOf } from './local.js';
export {
  checkOutlets,
  type ForwardConfig,
  type OutletConfig,
  type OutletSource,
  type ProxyConfig,
  parseOutlet,
  parseOutletSource,
  parseProxy,
} from './outward.js';
export {
  type HostPort,
  type ParentAddress,
  type ParsedService,
  parseDuration,
  parseHostPort,
  parseNamePort,
  parseService,
  parseServiceName,
  type ServicePort,
} from './values.js';
