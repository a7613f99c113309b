/** Admission and WHO: whom we talk to at all, and how a policy names people. */
import { ThicketError } from '../errors.js';
import { checkLabel } from './certificate.js';
import type { VerifiedIdentity } from './identity.js';
import { type PublicKey, parseKey } from './keys.js';

export type Who =
  | { readonly kind: 'node'; readonly key: PublicKey }
  | { readonly kind: 'name'; readonly name: string; readonly network?: PublicKey }
  | { readonly kind: 'group'; readonly group: string; readonly network?: PublicKey }
  | { readonly kind: 'network'; readonly network: PublicKey }
  | { readonly kind: 'anyone-trusted' };

/** Turns a nickname or a key (with or without naming secret) into a network's key. */
export type NetworkLookup = (text: string) => PublicKey;

/** Reads `node:KEY`, `name:NAME[@NETWORK]`, `group:G[@NETWORK]`, `network:KEY`, `anyone-trusted`. Throws BAD_ARGUMENT. */
export function parseWho(text: string, network: NetworkLookup = (t) => parseKey(t.split('.', 1)[0] ?? '')): Who {
  if (text === 'anyone-trusted') return { kind: 'anyone-trusted' };
  const colon = text.indexOf(':');
  const kind = colon < 0 ? '' : text.slice(0, colon);
  const rest = text.slice(colon + 1);
  const at = rest.indexOf('@');
  const subject = at < 0 ? rest : rest.slice(0, at);
  const where = (): { readonly network?: PublicKey } => (at < 0 ? {} : { network: network(rest.slice(at + 1)) });
  switch (kind) {
    case 'node':
      return { kind, key: parseKey(rest) };
    case 'network':
      return { kind, network: network(rest) };
    case 'name':
      for (const part of subject.split('.')) checkLabel('name', part);
      return { kind, name: subject, ...where() };
    case 'group':
      return { kind, group: checkLabel('group', subject), ...where() };
    default:
      throw new ThicketError('BAD_ARGUMENT', `"${text}" names nobody: use node:KEY, name:NAME, group:G, network:KEY or anyone-trusted`);
  }
}

export function formatWho(who: Who): string {
  const at = 'network' in who && who.network !== undefined ? `@${who.network}` : '';
  switch (who.kind) {
    case 'node':
      return `node:${who.key}`;
    case 'name':
      return `name:${who.name}${at}`;
    case 'group':
      return `group:${who.group}${at}`;
    case 'network':
      return `network:${who.network}`;
    case 'anyone-trusted':
      return who.kind;
  }
}

/** Whether a policy's `who` means this (admitted) identity. Names and groups without a network mean our own. */
export function matches(who: Who, identity: VerifiedIdentity, ownNetwork: PublicKey | undefined): boolean {
  switch (who.kind) {
    case 'anyone-trusted':
      return true;
    case 'node':
      return who.key === identity.key;
    case 'network':
      return who.network === identity.network;
    case 'name':
      return (who.network ?? ownNetwork) === identity.network && (who.name === identity.name || who.name === identity.shortName);
    case 'group':
      return (who.network ?? ownNetwork) === identity.network && identity.groups.includes(who.group);
  }
}

export type Trusted = { readonly network: PublicKey } | { readonly node: PublicKey };

/** Networks and single keys that are admitted to sessions besides our own network. */
export class TrustList {
  readonly #own: PublicKey | undefined;
  readonly #keys: ReadonlySet<PublicKey>;

  constructor(own: PublicKey | undefined, trusted: readonly Trusted[]) {
    this.#own = own;
    this.#keys = new Set(trusted.map((t) => ('network' in t ? t.network : t.node)));
  }

  /** An endpoint is admitted with its gateway's key as well as with its own. */
  admits(identity: VerifiedIdentity): boolean {
    return (
      identity.network === this.#own ||
      this.#keys.has(identity.network) ||
      this.#keys.has(identity.key) ||
      (identity.gateway !== undefined && this.#keys.has(identity.gateway))
    );
  }

  /** Throws UNTRUSTED. */
  require(identity: VerifiedIdentity): void {
    if (this.admits(identity)) return;
    const text = `${identity.name} is of network ${identity.network}, which isn't trusted here: thicket trust add ${identity.network}`;
    throw new ThicketError('UNTRUSTED', text);
  }
}
