/**
 * Certificates and grants: what a network key, and a gateway below it, say about keys. All deterministic CBOR arrays, the signature last, each under its own
 * context.
 *
 * certificate: [1, network 32 B, key 32 B, name, groups, rights bits, delegable groups, serial, issued-at s, not-after s, signature 64 B], ≤ 320 B
 * endpoint certificate: [1, gateway 32 B, key 32 B, name, groups, serial, issued-at s, not-after s, signature 64 B], ≤ 320 B
 * grant: [1, network 32 B, gateway 32 B, name, generation, serial, issued-at s, signature 64 B], ≤ 214 B
 */
import { ThicketError } from '../errors.js';
import { type Cbor, decodeCbor, encodeCbor, Fields } from './cbor.js';
import { type KeyPair, keyBytes, keyFromBytes, type PublicKey, type SignatureContext, verify } from './keys.js';

export const CERTIFICATE_MAX = 320;
export const GRANT_MAX = 214;
const LABEL = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/;
const GROUPS_MAX = 16;

export type Right = 'gateway' | 'relay' | 'enroll';
const RIGHTS: readonly Right[] = ['gateway', 'relay', 'enroll'];

export interface Certificate {
  readonly network: PublicKey;
  readonly key: PublicKey;
  readonly name: string;
  readonly groups: readonly string[];
  readonly rights: readonly Right[];
  /** Groups that the holder, a gateway, may put into its endpoints' certificates. */
  readonly delegable: readonly string[];
  readonly serial: number;
  /** Seconds since 1970. */
  readonly issuedAt: number;
  readonly notAfter: number;
}

export interface EndpointCertificate {
  readonly gateway: PublicKey;
  readonly key: PublicKey;
  readonly name: string;
  readonly groups: readonly string[];
  readonly serial: number;
  readonly issuedAt: number;
  readonly notAfter: number;
}

export interface Grant {
  readonly network: PublicKey;
  readonly gateway: PublicKey;
  readonly name: string;
  readonly generation: number;
  readonly serial: number;
  readonly issuedAt: number;
}

/** One DNS label, lower case. Throws BAD_ARGUMENT. */
export function checkLabel(what: string, text: string): string {
  if (!LABEL.test(text)) throw new ThicketError('BAD_ARGUMENT', `${what} "${text}" is not one DNS label: use a–z, 0–9 and -, at most 63`);
  return text;
}

function seal(context: SignatureContext, body: readonly Cbor[], signer: KeyPair): Uint8Array {
  return encodeCbor([...body, signer.sign(context, encodeCbor(body))]);
}

/** Splits the signature off and verifies it. */
function open(context: SignatureContext, bytes: Uint8Array, length: number, most: number, signer: (body: Fields) => PublicKey): Fields {
  if (bytes.length > most) throw new ThicketError('BAD_ENCODING', `longer than ${most} bytes`);
  const items = decodeCbor(bytes);
  const fields = new Fields(items, length);
  const all = items as readonly Cbor[];
  const signature = all[length - 1];
  const body = all.slice(0, -1);
  const key = signer(fields);
  if (!(signature instanceof Uint8Array) || !verify(key, context, encodeCbor(body), signature)) {
    throw new ThicketError('BAD_SIGNATURE', `the ${context}'s signature doesn't hold`);
  }
  return fields;
}

function version(fields: Fields): void {
  if (fields.count() !== 1) throw new ThicketError('BAD_ENCODING', 'of another version: update thicket');
}

export function encodeCertificate(c: Certificate, network: KeyPair): Uint8Array {
  checkLabel('name', c.name);
  for (const group of [...c.groups, ...c.delegable]) checkLabel('group', group);
  const rights = c.rights.reduce((bits, right) => bits | (1 << RIGHTS.indexOf(right)), 0);
  const body = [1, keyBytes(c.network), keyBytes(c.key), c.name, [...c.groups], rights, [...c.delegable], c.serial, c.issuedAt, c.notAfter];
  const bytes = seal('certificate', body, network);
  if (bytes.length > CERTIFICATE_MAX) {
    const over = bytes.length - CERTIFICATE_MAX;
    throw new ThicketError('TOO_LONG', `the certificate is ${over} bytes over ${CERTIFICATE_MAX}: use shorter or fewer groups`);
  }
  return bytes;
}

/** Throws BAD_ENCODING or BAD_SIGNATURE. Dates and networks are judged by `verifyChain`. */
export function decodeCertificate(bytes: Uint8Array): Certificate {
  let network: PublicKey | undefined;
  const fields = open('certificate', bytes, 11, CERTIFICATE_MAX, (f) => {
    version(f);
    network = keyFromBytes(f.bytes(32));
    return network;
  });
  const key = keyFromBytes(fields.bytes(32));
  const name = label(fields.text(63));
  const groups = fields.texts(GROUPS_MAX, 63).map(label);
  const bits = fields.count();
  if (bits >= 1 << RIGHTS.length) throw new ThicketError('BAD_ENCODING', 'an unknown right');
  const rights = RIGHTS.filter((_, i) => bits & (1 << i));
  const delegable = fields.texts(GROUPS_MAX, 63).map(label);
  return {
    network: network as PublicKey,
    key,
    name,
    groups,
    rights,
    delegable,
    serial: fields.count(),
    issuedAt: fields.count(),
    notAfter: fields.count(),
  };
}

export function encodeEndpointCertificate(c: EndpointCertificate, gateway: KeyPair): Uint8Array {
  checkLabel('name', c.name);
  for (const group of c.groups) checkLabel('group', group);
  const body = [1, keyBytes(c.gateway), keyBytes(c.key), c.name, [...c.groups], c.serial, c.issuedAt, c.notAfter];
  const bytes = seal('endpoint certificate', body, gateway);
  if (bytes.length > CERTIFICATE_MAX) throw new ThicketError('TOO_LONG', `the certificate of ${c.name} is too long: use fewer groups`);
  return bytes;
}

export function decodeEndpointCertificate(bytes: Uint8Array): EndpointCertificate {
  let gateway: PublicKey | undefined;
  const fields = open('endpoint certificate', bytes, 9, CERTIFICATE_MAX, (f) => {
    version(f);
    gateway = keyFromBytes(f.bytes(32));
    return gateway;
  });
  return {
    gateway: gateway as PublicKey,
    key: keyFromBytes(fields.bytes(32)),
    name: label(fields.text(63)),
    groups: fields.texts(GROUPS_MAX, 63).map(label),
    serial: fields.count(),
    issuedAt: fields.count(),
    notAfter: fields.count(),
  };
}

export function encodeGrant(g: Grant, network: KeyPair): Uint8Array {
  checkLabel('endpoint name', g.name);
  const bytes = seal('grant', [1, keyBytes(g.network), keyBytes(g.gateway), g.name, g.generation, g.serial, g.issuedAt], network);
  if (bytes.length > GRANT_MAX) throw new ThicketError('TOO_LONG', `the grant is over ${GRANT_MAX} bytes: use a shorter endpoint name`);
  return bytes;
}

export function decodeGrant(bytes: Uint8Array): Grant {
  let network: PublicKey | undefined;
  const fields = open('grant', bytes, 8, GRANT_MAX, (f) => {
    version(f);
    network = keyFromBytes(f.bytes(32));
    return network;
  });
  return {
    network: network as PublicKey,
    gateway: keyFromBytes(fields.bytes(32)),
    name: label(fields.text(63)),
    generation: fields.count(),
    serial: fields.count(),
    issuedAt: fields.count(),
  };
}

function label(text: string): string {
  if (!LABEL.test(text)) throw new ThicketError('BAD_ENCODING', 'not a DNS label');
  return text;
}
