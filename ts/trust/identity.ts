/** From bytes to who somebody is: verification of certificate chains. */
import { ThicketError } from '../errors.js';
import {
  type Certificate,
  decodeCertificate,
  decodeEndpointCertificate,
  decodeGrant,
  type EndpointCertificate,
  type Right,
} from './certificate.js';
import type { PublicKey } from './keys.js';

/** A key with what its network says of it. */
export interface VerifiedIdentity {
  readonly key: PublicKey;
  readonly network: PublicKey;
  /** `gw`, or `camera.gw` for an endpoint. */
  readonly name: string;
  /** `camera`, where a grant allows it. */
  readonly shortName?: string;
  readonly generation?: number;
  readonly groups: readonly string[];
  readonly rights: readonly Right[];
  /** An endpoint's gateway. */
  readonly gateway?: PublicKey;
  readonly serial: number;
  /** When the network itself signed, seconds since 1970: for an endpoint its gateway's certificate. */
  readonly issuedAt: number;
  readonly notAfter: number;
}

export interface ChainCheck {
  /** Links are between nodes: no endpoint's chain is valid for one. */
  readonly kind: 'link' | 'session';
  /** What is certainly past, seconds since 1970. */
  readonly floor: number;
  /** What the local clock says. */
  readonly now: number;
  /** Highest verified generation of a short name so far; lower ones are refused. */
  readonly generationOf?: (network: PublicKey, name: string) => number;
}

/** Throws a ThicketError that says which part fails. Signatures first, so that nothing unsigned is reasoned about. */
export function verifyChain(
  chain: readonly Uint8Array[],
  grant: Uint8Array | undefined,
  holder: PublicKey,
  check: ChainCheck,
): VerifiedIdentity {
  const [first, second] = chain;
  if (first === undefined || chain.length > 2) throw new ThicketError('NO_CERTIFICATE', 'a chain has one or two certificates');
  const node = decodeCertificate(first);
  checkDates(node, check);
  if (second === undefined) {
    if (node.key !== holder) throw new ThicketError('WRONG_KEY', 'the certificate is for another key');
    if (grant !== undefined) throw new ThicketError('BAD_CERTIFICATE', 'a node needs no grant');
    return {
      key: holder,
      network: node.network,
      name: node.name,
      groups: node.groups,
      rights: node.rights,
      serial: node.serial,
      issuedAt: node.issuedAt,
      notAfter: node.notAfter,
    };
  }
  if (check.kind === 'link') throw new ThicketError('BAD_CERTIFICATE', "an endpoint's certificate is not valid for a link");
  const endpoint = decodeEndpointCertificate(second);
  checkEndpoint(node, endpoint, holder);
  checkDates(endpoint, check);
  const short = grant === undefined ? undefined : checkGrant(grant, node, endpoint, check);
  return {
    key: holder,
    network: node.network,
    name: `${endpoint.name}.${node.name}`,
    ...(short === undefined ? {} : { shortName: endpoint.name, generation: short }),
    groups: endpoint.groups,
    rights: [],
    gateway: node.key,
    serial: endpoint.serial,
    issuedAt: node.issuedAt,
    notAfter: Math.min(node.notAfter, endpoint.notAfter),
  };
}

function checkEndpoint(node: Certificate, endpoint: EndpointCertificate, holder: PublicKey): void {
  if (!node.rights.includes('gateway')) throw new ThicketError('BAD_CERTIFICATE', `${node.name} has no right to be a gateway`);
  if (endpoint.gateway !== node.key) throw new ThicketError('BAD_CERTIFICATE', 'the endpoint certificate is of another gateway');
  if (endpoint.key !== holder) throw new ThicketError('WRONG_KEY', 'the certificate is for another key');
  if (endpoint.notAfter > node.notAfter) throw new ThicketError('BAD_CERTIFICATE', "the endpoint's certificate outlives its gateway's");
  const foreign = endpoint.groups.find((group) => !node.delegable.includes(group));
  if (foreign !== undefined) throw new ThicketError('BAD_CERTIFICATE', `${node.name} may not delegate group ${foreign}`);
}

function checkGrant(bytes: Uint8Array, node: Certificate, endpoint: EndpointCertificate, check: ChainCheck): number {
  const grant = decodeGrant(bytes);
  if (grant.network !== node.network || grant.gateway !== node.key || grant.name !== endpoint.name) {
    throw new ThicketError('BAD_CERTIFICATE', 'the grant is for another gateway or name');
  }
  const known = check.generationOf?.(grant.network, grant.name) ?? 0;
  if (grant.generation < known) throw new ThicketError('REVOKED', `the name ${grant.name} has moved to another gateway`);
  return grant.generation;
}

/** not-after before the floor, or before the local clock when that is past the floor: refused. */
function checkDates(certificate: { readonly name: string; readonly notAfter: number }, check: ChainCheck): void {
  const time = Math.max(check.floor, check.now);
  if (certificate.notAfter < time) throw new ThicketError('EXPIRED', `the certificate of ${certificate.name} has expired: sign a new one`);
}
