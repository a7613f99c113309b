/** What the DNS server says to one question: A and AAAA, PTR, services as DNS-SD has them, and the right kind of "no" for everything else. */
import type { Answer as DnsRecord } from 'dns-packet';
import ipaddr from 'ipaddr.js';
import type { Addresses } from './address-pool.js';
import { type Answer, CLASS, type Question, TYPE } from './dns-message.js';
import { type ParsedName, parseLabels, type ResolvableName } from './names.js';
import { reverseZones } from './pool-ranges.js';
import { type PublishedService, serviceTypes } from './service-types.js';

export type Resolution =
  | { readonly status: 'found'; readonly addresses: Addresses; readonly services?: readonly PublishedService[] }
  /** Nobody has that name. */
  | { readonly status: 'notFound' }
  /** It can't be told now: the tree is out of reach, the pool exhausted. */
  | { readonly status: 'failed'; readonly reason: string };

/** What the server asks of the node. */
export interface DnsHost {
  /** Looks a name up and gives it an address. An answer with it goes out as soon as this resolves: its TTL counts from then. */
  resolve(name: ResolvableName): Promise<Resolution>;
  /** The whole name, without a last dot, that a pool address stands for. */
  reverse(address: string): { readonly status: 'found'; readonly name: string } | { readonly status: 'notFound' };
  /** Whether this nickname or network key is a network known here. */
  isNetwork(label: string): boolean;
  /** Addresses of this host: questions from any other get no answer. */
  ownAddresses(): readonly string[];
}

export interface ZoneOptions {
  readonly domain: string;
  /** CIDRs whose reverse zones are ours. */
  readonly pools: readonly string[];
  readonly ttlMs: number;
  readonly reverse: DnsHost['reverse'];
  readonly isNetwork: DnsHost['isNetwork'];
  readonly resolve: DnsHost['resolve'];
}

/** How long a "no" may be remembered: an endpoint that is made now should not have to wait. */
const NEGATIVE_TTL = 5;
/** RFC 8914. */
const NO_REACHABLE_AUTHORITY = 22;

const REFUSED: Answer = { rcode: 'REFUSED' };

export class Zone {
  readonly #o: ZoneOptions;
  readonly #ttl: number;
  /** Our reverse zones, as labels joined by dots. */
  readonly #reverseZones: readonly string[];

  constructor(options: ZoneOptions) {
    this.#o = options;
    this.#ttl = Math.max(1, Math.floor(options.ttlMs / 1_000));
    this.#reverseZones = options.pools.flatMap(reverseZones);
  }

  async answer(question: Question): Promise<Answer> {
    const { labels, type } = question;
    if (question.class !== CLASS.IN && question.class !== CLASS.ANY) return REFUSED;
    if (type === TYPE.AXFR || type === TYPE.IXFR) return REFUSED;
    if (labels.at(-1) === this.#o.domain) return this.#forward(labels.slice(0, -1), type);
    const name = labels.join('.');
    const zone = this.#reverseZones.find((one) => name === one || name.endsWith(`.${one}`));
    return zone === undefined ? REFUSED : this.#backward(labels, type, zone);
  }

  // ── names to addresses ────────────────────────────────────────────────────────────────────────────────────────────────

  async #forward(labels: readonly string[], type: number): Promise<Answer> {
    const { domain } = this.#o;
    // `_rtsp._tcp.camera.home`: everything up to the last label with an underscore asks for a service of what comes behind.
    const services = labels.findLastIndex((label) => label.startsWith('_')) + 1;
    const name = parseLabels(labels.slice(services));
    if (name === undefined) return negative('NXDOMAIN', domain);
    if (name.kind === 'apex') return services > 0 ? negative('NXDOMAIN', domain) : this.#apex(name, type);
    if (name.kind === 'name' && !this.#o.isNetwork(name.network)) return negative('NXDOMAIN', domain);
    const resolution = await this.#o.resolve(name);
    switch (resolution.status) {
      case 'failed':
        return { rcode: 'SERVFAIL', extended: { code: NO_REACHABLE_AUTHORITY, text: resolution.reason } };
      case 'notFound':
        return negative('NXDOMAIN', domain);
      case 'found': {
        const owner = `${labels.slice(services).join('.')}.${domain}`;
        const addresses = this.#addresses(owner, resolution.addresses);
        if (services === 0) return found(addresses.filter(ofType(type)), domain);
        return this.#services(labels, owner, type, resolution.services ?? [], addresses);
      }
    }
  }

  #apex(name: ParsedName & { kind: 'apex' }, type: number): Answer {
    const { domain } = this.#o;
    if (name.network !== undefined) return negative(this.#o.isNetwork(name.network) ? 'NOERROR' : 'NXDOMAIN', domain);
    return found(type === TYPE.SOA || type === TYPE.ANY ? [soa(domain)] : [], domain);
  }

  #addresses(name: string, { v4, v6 }: Addresses): DnsRecord[] {
    const a: DnsRecord = { type: 'A', name, ttl: this.#ttl, data: v4 };
    return v6 === undefined ? [a] : [a, { type: 'AAAA', name, ttl: this.#ttl, data: v6 }];
  }

  /** RFC 6763, each device being a browsing domain of its own, and SRV as RFC 2782 has it. */
  #services(
    labels: readonly string[],
    owner: string,
    type: number,
    services: readonly PublishedService[],
    addresses: readonly DnsRecord[],
  ): Answer {
    const { domain } = this.#o;
    const asked = `${labels.join('.')}.${domain}`;
    const [device = ''] = owner.split('.');
    const records = serviceTypes(services).flatMap(({ type: serviceType, ports }) =>
      serviceRecords(serviceType, ports, owner, device, this.#ttl),
    );
    const here = records.filter((record) => record.name === asked);
    if (here.length === 0) {
      const below = records.some((record) => record.name.endsWith(`.${asked}`));
      return negative(below ? 'NOERROR' : 'NXDOMAIN', domain);
    }
    const answers = here.filter(ofType(type));
    return { ...found(answers, domain), ...(answers.some(({ type }) => type === 'SRV') ? { additionals: addresses } : {}) };
  }

  // ── addresses to names ────────────────────────────────────────────────────────────────────────────────────────────────

  #backward(labels: readonly string[], type: number, zone: string): Answer {
    const v6 = labels.at(-2) === 'ip6';
    const parts = labels.slice(0, -2);
    const most = v6 ? 32 : 4;
    if (parts.length > most || !parts.every((part) => (v6 ? /^[0-9a-f]$/ : OCTET).test(part))) return negative('NXDOMAIN', zone);
    if (parts.length < most) {
      return found(parts.length + 2 === zone.split('.').length && (type === TYPE.SOA || type === TYPE.ANY) ? [soa(zone)] : [], zone);
    }
    parts.reverse();
    const address = v6 ? new ipaddr.IPv6([...Buffer.from(parts.join(''), 'hex')]).toString() : parts.join('.');
    const reverse = this.#o.reverse(address);
    if (reverse.status === 'notFound') return negative('NXDOMAIN', zone);
    const ptr: DnsRecord = { type: 'PTR', name: labels.join('.'), ttl: this.#ttl, data: reverse.name };
    return found([ptr].filter(ofType(type)), zone);
  }
}

const OCTET = /^(0|[1-9]\d?|1\d\d|2[0-4]\d|25[0-5])$/;

function ofType(type: number): (record: DnsRecord) => boolean {
  return (record) => type === TYPE.ANY || TYPE[record.type as keyof typeof TYPE] === type;
}

/** The records, or that there are none of that type although the name exists. */
function found(answers: readonly DnsRecord[], zone: string): Answer {
  return answers.length > 0 ? { rcode: 'NOERROR', answers } : negative('NOERROR', zone);
}

function negative(rcode: 'NOERROR' | 'NXDOMAIN', zone: string): Answer {
  return { rcode, authorities: [soa(zone)] };
}

/** Says, in every "no", how long that may be remembered (RFC 2308). */
function soa(zone: string): DnsRecord {
  const data = { mname: zone, rname: `nobody.${zone}`, serial: 1, refresh: 3_600, retry: 600, expire: 86_400, minimum: NEGATIVE_TTL };
  return { type: 'SOA', name: zone, ttl: NEGATIVE_TTL, data };
}

function serviceRecords(type: string, ports: readonly number[], owner: string, device: string, ttl: number): DnsRecord[] {
  const name = `${type}.${owner}`;
  const records: DnsRecord[] = [{ type: 'PTR', name: `_services._dns-sd._udp.${owner}`, ttl, data: name }];
  ports.forEach((port, index) => {
    const instance = `${index === 0 ? device : `${device}-${port}`}.${name}`;
    const srv = { priority: 0, weight: 0, port, target: owner };
    records.push(
      { type: 'PTR', name, ttl, data: instance },
      { type: 'SRV', name, ttl, data: srv },
      { type: 'SRV', name: instance, ttl, data: srv },
      // One empty string: a service without attributes (RFC 6763, section 6.1).
      { type: 'TXT', name: instance, ttl, data: '' },
    );
  });
  return records;
}
