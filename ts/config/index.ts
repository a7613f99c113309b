export {
  type Config,
  changedRestartKeys,
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
export { type ForwardConfig, type ProxyConfig, parseProxy } from './outward.js';
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
