/**
 * For whom this node relays. Networks on its list come in as they are; everyone else shares one small pool, capped per source prefix. Being relayed
 * gives no right to talk to anybody.
 */
import ipaddr from 'ipaddr.js';
import type { Config } from '../config/index.js';
import type { SocketAddress } from '../dataplane/data-plane.js';
import { ThicketError } from '../errors.js';
import type { ChildRights } from '../routing/index.js';
import type { PublicKey, VerifiedIdentity } from '../trust/index.js';

/** Children of no listed network, in all and from one IPv4 /32 or IPv6 /64. */
const GUESTS = 256;
const GUESTS_PER_PREFIX = 8;

/** A child as connected. */
export interface Child {
  readonly key: PublicKey;
  readonly identity: VerifiedIdentity | undefined;
  readonly remote: SocketAddress;
}

export class RelayRules {
  readonly #relay: () => Config['relay'];
  readonly #children: () => readonly Child[];

  constructor(relay: () => Config['relay'], children: () => readonly Child[]) {
    this.#relay = relay;
    this.#children = children;
  }

  /** Throws REFUSED unless we take this child, new or known. */
  accept(peer: PublicKey, identity: VerifiedIdentity | undefined, from: SocketAddress): void {
    const rules = this.#relay();
    if (rules.for === 'none') throw new ThicketError('REFUSED', 'this node relays for nobody: set relay: { for: … }');
    const others = this.#children().filter((child) => child.key !== peer);
    if (others.length >= rules.children) throw new ThicketError('BUSY', 'as many children as relay: children: allows');
    if (this.#listed(identity)) return;
    const guests = others.filter((child) => !this.#listed(child.identity));
    const prefix = sourcePrefix(from.host);
    if (guests.length >= GUESTS || guests.filter((child) => sourcePrefix(child.remote.host) === prefix).length >= GUESTS_PER_PREFIX) {
      throw new ThicketError('BUSY', 'no room for another child of a network that relay: for: does not list');
    }
  }

  /** What a child may announce; `elsewhere`: how many descendants there are through other children. */
  rights(identity: VerifiedIdentity | undefined, elsewhere: number): ChildRights {
    const { descendants, endpoints } = this.#relay();
    const room = Math.max(0, descendants - elsewhere);
    const listed = identity !== undefined && this.#listed(identity);
    const relay = listed && identity.rights.includes('relay');
    const gateway = listed && identity.rights.includes('gateway');
    return { relay, gateway, cap: relay ? room : gateway ? Math.min(endpoints, room) : 0 };
  }

  /** A certificate of any network counts where the list is `any`: who holds none has nothing to be judged by. */
  #listed(identity: VerifiedIdentity | undefined): boolean {
    const { for: list } = this.#relay();
    if (identity === undefined || list === 'none') return false;
    return list === 'any' || list.includes(identity.network);
  }
}

function sourcePrefix(host: string): string {
  const address = ipaddr.process(host);
  return address.kind() === 'ipv4' ? address.toString() : address.toByteArray().slice(0, 8).join('.');
}
