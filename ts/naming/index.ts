export { type Addresses, AddressPool, type AddressPoolOptions, type InUse, type Subject } from './address-pool.js';
export { type DnsOptions, type DnsServer, openDns } from './dns-server.js';
export type { DnsHost, Resolution } from './dns-zone.js';
export { formatName, type ParsedName, type ParseNameOptions, parseName, type ResolvableName } from './names.js';
export { firstAddress, reverseZones } from './pool-ranges.js';
export type { PublishedService } from './service-types.js';
export { randomUla } from './ula.js';
