/** The names of this node. */
import { type KeyPair, type Membership, nameKeyPair } from '../trust/index.js';

/** Keys under which our own certified name is looked up: none without the naming secret. */
export function ownNameKeys(membership: Membership | undefined): KeyPair[] {
  const secret = membership?.network.namingSecret;
  return membership === undefined || secret === undefined ? [] : [nameKeyPair(secret, membership.name)];
}
