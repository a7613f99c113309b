/** The names of this node, and the names that its local addresses stand for. */
import { formatName, type Subject } from '../naming/index.js';
import { type KeyPair, type Membership, type NetworkRef, nameKeyPair, type PublicKey } from '../trust/index.js';

/** Keys under which our own certified name is looked up: none without the naming secret. */
export function ownNameKeys(membership: Membership | undefined): KeyPair[] {
  const secret = membership?.network.namingSecret;
  return membership === undefined || secret === undefined ? [] : [nameKeyPair(secret, membership.name)];
}

/** What a PTR question for the address of `subject` is answered: `camera.home.thicket`, or a key's name. */
export function nameOf(subject: Subject, domain: string, nicknames: ReadonlyMap<string, NetworkRef>): string {
  return subject.kind === 'name'
    ? formatName({ kind: 'name', name: subject.name, network: nicknameOf(subject.network, nicknames) }, domain)
    : formatName({ kind: 'key', key: subject.key }, domain);
}

function nicknameOf(network: PublicKey, nicknames: ReadonlyMap<string, NetworkRef>): string {
  for (const [nickname, ref] of nicknames) if (ref.key === network) return nickname;
  return network;
}
