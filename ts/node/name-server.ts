/** The node's DNS server: questions go to the resolver, PTR questions to the pool. */
import type { Logger } from 'pino';
import type { Config } from '../config/index.js';
import { type AddressPool, type DnsServer, formatName, openDns, type Subject } from '../naming/index.js';
import type { Membership, NetworkRef, PublicKey } from '../trust/index.js';
import { findNetwork, type Resolver } from './resolver.js';

export interface NameServerOptions {
  readonly pool: AddressPool;
  readonly self: PublicKey;
  /** Where it listens: on the interface, or on loopback; port 0 is one that is free. */
  readonly listen: { readonly addresses: readonly string[]; readonly port: number };
  readonly dns: Config['dns'];
  readonly networks: () => ReadonlyMap<string, NetworkRef>;
  readonly membership: () => Membership | undefined;
  readonly resolver: Resolver;
  readonly log: Logger;
}

/** Throws ADDRESS_IN_USE when something answers there already. */
export function openNameServer(options: NameServerOptions): Promise<DnsServer> {
  const { pool, self, listen, dns, networks, resolver, log } = options;
  const { first } = pool;
  const addresses = first.v6 === undefined ? [first.v4] : [first.v4, first.v6];
  return openDns({
    ...listen,
    domain: dns.domain,
    ttlMs: dns.ttlMs,
    pools: pool.cidrs,
    log,
    host: {
      resolve: (name) => resolver.resolve(name),
      reverse(address) {
        const subject: Subject | undefined = addresses.includes(address) ? { kind: 'own', key: self } : pool.lookup(address);
        return subject === undefined ? { status: 'notFound' } : { status: 'found', name: nameOf(subject, dns.domain, networks()) };
      },
      isNetwork: (label) => findNetwork(label, networks(), options.membership()?.network) !== undefined,
      ownAddresses: () => addresses,
    },
  });
}

/** What a PTR question for the address of `subject` is answered: `camera.home.thicket`, or a key's name. */
function nameOf(subject: Subject, domain: string, nicknames: ReadonlyMap<string, NetworkRef>): string {
  return subject.kind === 'name'
    ? formatName({ kind: 'name', name: subject.name, network: nicknameOf(subject.network, nicknames) }, domain)
    : formatName({ kind: 'key', key: subject.key }, domain);
}

function nicknameOf(network: PublicKey, nicknames: ReadonlyMap<string, NetworkRef>): string {
  for (const [nickname, ref] of nicknames) if (ref.key === network) return nickname;
  return network;
}
