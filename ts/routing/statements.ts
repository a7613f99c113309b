/**
 * What nodes sign about their place in the tree. Deterministic CBOR arrays, constant size but for the list of parents:
 *
 * edge (link attestation): [1, child 32 B, parent 32 B, nonce 16 B (the parent's), epoch, seq, child's signature, parent's signature]
 * parent set: [1, child 32 B, [parents, ≤ 4], epoch, seq, child's signature]
 * endpoint edge: [1, endpoint 32 B, gateway 32 B, nonce 16 B (the gateway's parent's), epoch, seq, endpoint's signature, gateway's signature]
 * name record: [1, name key 32 B, holder 32 B, epoch, seq, name key's signature, holder's signature]
 */
import { ThicketError } from '../errors.js';
import { type Cbor, decodeCbor, encodeCbor, Fields, type KeyPair, keyBytes, keyFromBytes, type PublicKey, verify } from '../trust/index.js';

/** A moment in a signer's life: boots, then statements. */
export interface Stamp {
  readonly epoch: bigint;
  readonly seq: bigint;
}

/** Positive when `a` is the later. */
export function compareStamps(a: Stamp, b: Stamp): number {
  if (a.epoch !== b.epoch) return a.epoch > b.epoch ? 1 : -1;
  return a.seq === b.seq ? 0 : a.seq > b.seq ? 1 : -1;
}

export interface Edge extends Stamp {
  readonly child: PublicKey;
  readonly parent: PublicKey;
  readonly nonce: Uint8Array;
}

export interface ParentSet extends Stamp {
  readonly child: PublicKey;
  readonly parents: readonly PublicKey[];
}

export interface NameRecord extends Stamp {
  readonly name: PublicKey;
  readonly holder: PublicKey;
}

const NO_SIGNATURE = new Uint8Array(64);

function edgeBody(edge: Edge): Cbor[] {
  return [1, keyBytes(edge.child), keyBytes(edge.parent), edge.nonce, edge.epoch, edge.seq];
}

/** The child's half; the parent's signature is still zero. */
export function signEdge(edge: Edge, child: KeyPair): Uint8Array {
  const body = edgeBody(edge);
  return encodeCbor([...body, child.sign('link attestation', encodeCbor(body)), NO_SIGNATURE]);
}

/** Verifies the child's half and adds the parent's. Throws BAD_SIGNATURE or BAD_ENCODING. */
export function countersignEdge(bytes: Uint8Array, parent: KeyPair): { readonly edge: Edge; readonly bytes: Uint8Array } {
  const { edge, body, first } = readEdge(bytes, 'link attestation');
  const signature = parent.sign('link attestation', encodeCbor(body));
  return { edge, bytes: encodeCbor([...body, first, signature]) };
}

/** Throws unless both signatures hold. */
export function verifyEdge(bytes: Uint8Array): Edge {
  const { edge, body, second } = readEdge(bytes, 'link attestation');
  if (!verify(edge.parent, 'link attestation', encodeCbor(body), second)) throw bad('parent');
  return edge;
}

export function signEndpointEdge(edge: Edge, endpoint: KeyPair, gateway: KeyPair): Uint8Array {
  const body = edgeBody(edge);
  const message = encodeCbor(body);
  return encodeCbor([...body, endpoint.sign('endpoint edge', message), gateway.sign('endpoint edge', message)]);
}

export function verifyEndpointEdge(bytes: Uint8Array): Edge {
  const { edge, body, second } = readEdge(bytes, 'endpoint edge');
  if (!verify(edge.parent, 'endpoint edge', encodeCbor(body), second)) throw bad('gateway');
  return edge;
}

function readEdge(
  bytes: Uint8Array,
  context: 'link attestation' | 'endpoint edge',
): { edge: Edge; body: Cbor[]; first: Uint8Array; second: Uint8Array } {
  const fields = new Fields(decodeCbor(bytes), 8);
  one(fields);
  const edge: Edge = {
    child: keyFromBytes(fields.bytes(32)),
    parent: keyFromBytes(fields.bytes(32)),
    nonce: fields.bytes(16),
    epoch: fields.u64(),
    seq: fields.u64(),
  };
  const body = edgeBody(edge);
  const [first, second] = [fields.bytes(64), fields.bytes(64)];
  if (!verify(edge.child, context, encodeCbor(body), first)) throw bad('child');
  return { edge, body, first, second };
}

function parentSetBody(set: ParentSet): Cbor[] {
  return [1, keyBytes(set.child), set.parents.map(keyBytes), set.epoch, set.seq];
}

export function signParentSet(set: ParentSet, child: KeyPair): Uint8Array {
  const body = parentSetBody(set);
  return encodeCbor([...body, child.sign('parent set', encodeCbor(body))]);
}

export function verifyParentSet(bytes: Uint8Array): ParentSet {
  const fields = new Fields(decodeCbor(bytes), 6);
  one(fields);
  const child = keyFromBytes(fields.bytes(32));
  const parents = fields.list(4).map((item) => {
    if (!(item instanceof Uint8Array)) throw new ThicketError('BAD_ENCODING', 'not a key');
    return keyFromBytes(item);
  });
  const set: ParentSet = { child, parents, epoch: fields.u64(), seq: fields.u64() };
  if (!verify(child, 'parent set', encodeCbor(parentSetBody(set)), fields.bytes(64))) throw bad('child');
  return set;
}

function nameBody(record: NameRecord): Cbor[] {
  return [1, keyBytes(record.name), keyBytes(record.holder), record.epoch, record.seq];
}

export function signNameRecord(stamp: Stamp, name: KeyPair, holder: KeyPair): Uint8Array {
  const record: NameRecord = { name: name.publicKey, holder: holder.publicKey, ...stamp };
  const body = nameBody(record);
  const message = encodeCbor(body);
  return encodeCbor([...body, name.sign('name record', message), holder.sign('name record', message)]);
}

export function verifyNameRecord(bytes: Uint8Array): NameRecord {
  const fields = new Fields(decodeCbor(bytes), 7);
  one(fields);
  const record: NameRecord = {
    name: keyFromBytes(fields.bytes(32)),
    holder: keyFromBytes(fields.bytes(32)),
    epoch: fields.u64(),
    seq: fields.u64(),
  };
  const message = encodeCbor(nameBody(record));
  if (!verify(record.name, 'name record', message, fields.bytes(64))) throw bad('name');
  if (!verify(record.holder, 'name record', message, fields.bytes(64))) throw bad('holder');
  return record;
}

function one(fields: Fields): void {
  if (fields.count() !== 1) throw new ThicketError('BAD_ENCODING', 'of another version');
}

function bad(who: string): ThicketError {
  return new ThicketError('BAD_SIGNATURE', `the ${who}'s signature doesn't hold`);
}
