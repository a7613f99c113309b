/**
 * Control frames between neighbours: kind u8, then a body. Binary where a frame is answered per path, deterministic CBOR for what is signed.
 *
 * kind  body
 *  5 path set-up: the 52-byte routing header (kind u8, hops left u8, 0 u16, label u32, destination 32 B, id u64, replaced label u32), then message 1, 1,148 B.
 *    Replaced label: the receiver's own, of a path to the same destination that this one is to replace; 0 for none
 *  6 path answer: the same header with the receiver's label, the forward label in the destination's first four bytes, no replaced label; then message 2
 *  7 path error: label u32 (the receiver's own), reason u8          8 path close: label u32 (the receiver's own)
 *  9 announce: CBOR [[type, bytes], …]     10 withdraw: CBOR [key, …]
 * 12 look-up: CBOR [id, name key, [keys known wrong, ≤ 8]]          13 look-up answer: CBOR [id, status, [keys, ≤ 4]]
 * 14 trace probe: label u32 (the receiver's), hops left u8, nonce u64          15 trace answer: label u32 (the receiver's), hop u8, nonce u64, key 32 B
 * 16 nonce: 16 B, from parent to child: sign your place in the tree with it
 * 18 attestation, the child's half: an edge without the parent's signature          19 the whole edge, back to the child
 * 20 numbered: number u32, then a frame of kinds 7 to 10, 16, 18, 19, 22 (see channel.ts)          21 acknowledged: next number u32, later ones that have come u32
 * 22 complete: the child has announced all that it knows
 */

import { prefixed } from '../bytes.js';
import type { Label } from '../dataplane/data-plane.js';
import { type Cbor, decodeCbor, encodeCbor, Fields, keyBytes, keyFromBytes, type PublicKey } from '../trust/index.js';

export const frameKinds = {
  setup: 5,
  answer: 6,
  error: 7,
  close: 8,
  announce: 9,
  withdraw: 10,
  lookup: 12,
  found: 13,
  probe: 14,
  probed: 15,
  nonce: 16,
  edgeHalf: 18,
  edgeFull: 19,
  numbered: 20,
  acknowledged: 21,
  complete: 22,
} as const;

export const SESSION_MESSAGE = 1_148;
const ROUTING_HEADER = 52;
/** Announcements are cut into frames of at most so much: with five bytes for their number they fit into a link frame. */
const ANNOUNCE_MAX = 1_150;
const KEYS_MAX = 32;

/** `noRoute`: the whole tree knows of no such key. `unreachable`: the part that may know can't be asked. */
export type PathErrorReason = 'noRoute' | 'refused' | 'dead' | 'unreachable';
const REASONS: readonly PathErrorReason[] = ['noRoute', 'refused', 'dead', 'unreachable'];

export type LookupStatus = 'found' | 'notFound' | 'unreachable';
const STATUSES: readonly LookupStatus[] = ['found', 'notFound', 'unreachable'];

export type AnnouncedType = 'edge' | 'parentSet' | 'endpointEdge' | 'name';
const TYPES: readonly AnnouncedType[] = ['edge', 'parentSet', 'endpointEdge', 'name'];

export interface Announced {
  readonly type: AnnouncedType;
  readonly bytes: Uint8Array;
}

export type Frame =
  | {
      readonly kind: 'setup';
      readonly hops: number;
      readonly label: Label;
      readonly destination: PublicKey;
      readonly id: bigint;
      readonly replaces?: Label | undefined;
      readonly message: Uint8Array;
    }
  | { readonly kind: 'answer'; readonly label: Label; readonly forward: Label; readonly id: bigint; readonly message: Uint8Array }
  | { readonly kind: 'error'; readonly label: Label; readonly reason: PathErrorReason }
  | { readonly kind: 'close'; readonly label: Label }
  | { readonly kind: 'announce'; readonly items: readonly Announced[] }
  | { readonly kind: 'withdraw'; readonly keys: readonly PublicKey[] }
  | { readonly kind: 'lookup'; readonly id: bigint; readonly name: PublicKey; readonly exclude: readonly PublicKey[] }
  | { readonly kind: 'found'; readonly id: bigint; readonly status: LookupStatus; readonly keys: readonly PublicKey[] }
  | { readonly kind: 'probe'; readonly label: Label; readonly hops: number; readonly nonce: bigint }
  | { readonly kind: 'probed'; readonly label: Label; readonly hop: number; readonly nonce: bigint; readonly key: PublicKey }
  | { readonly kind: 'nonce'; readonly nonce: Uint8Array }
  | { readonly kind: 'edgeHalf'; readonly statement: Uint8Array }
  | { readonly kind: 'edgeFull'; readonly statement: Uint8Array }
  | { readonly kind: 'numbered'; readonly number: number; readonly body: Uint8Array }
  | { readonly kind: 'acknowledged'; readonly next: number; readonly later: number }
  | { readonly kind: 'complete' };

export function encodeFrame(frame: Frame): Uint8Array {
  switch (frame.kind) {
    case 'setup':
    case 'answer': {
      const out = new Uint8Array(ROUTING_HEADER + SESSION_MESSAGE);
      const view = new DataView(out.buffer);
      out[0] = frameKinds[frame.kind];
      view.setUint32(4, frame.label);
      view.setBigUint64(40, frame.id);
      if (frame.kind === 'setup') {
        out[1] = frame.hops;
        out.set(keyBytes(frame.destination), 8);
        view.setUint32(48, frame.replaces ?? 0);
      } else {
        view.setUint32(8, frame.forward);
      }
      out.set(frame.message, ROUTING_HEADER);
      return out;
    }
    case 'error': {
      const out = new Uint8Array(6);
      out[0] = frameKinds.error;
      new DataView(out.buffer).setUint32(1, frame.label);
      out[5] = REASONS.indexOf(frame.reason);
      return out;
    }
    case 'close': {
      const out = new Uint8Array(5);
      out[0] = frameKinds.close;
      new DataView(out.buffer).setUint32(1, frame.label);
      return out;
    }
    case 'announce':
      return tagged(
        frameKinds.announce,
        frame.items.map((item) => [TYPES.indexOf(item.type), item.bytes]),
      );
    case 'withdraw':
      return tagged(frameKinds.withdraw, frame.keys.map(keyBytes));
    case 'lookup':
      return tagged(frameKinds.lookup, [frame.id, keyBytes(frame.name), frame.exclude.map(keyBytes)]);
    case 'found':
      return tagged(frameKinds.found, [frame.id, STATUSES.indexOf(frame.status), frame.keys.map(keyBytes)]);
    case 'probe': {
      const out = new Uint8Array(14);
      const view = new DataView(out.buffer);
      out[0] = frameKinds.probe;
      view.setUint32(1, frame.label);
      out[5] = frame.hops;
      view.setBigUint64(6, frame.nonce);
      return out;
    }
    case 'probed': {
      const out = new Uint8Array(46);
      const view = new DataView(out.buffer);
      out[0] = frameKinds.probed;
      view.setUint32(1, frame.label);
      out[5] = frame.hop;
      view.setBigUint64(6, frame.nonce);
      out.set(keyBytes(frame.key), 14);
      return out;
    }
    case 'nonce': {
      const out = new Uint8Array(17);
      out[0] = frameKinds.nonce;
      out.set(frame.nonce, 1);
      return out;
    }
    case 'edgeHalf':
    case 'edgeFull':
      return prefixed(frameKinds[frame.kind], frame.statement);
    case 'numbered': {
      const out = new Uint8Array(5 + frame.body.length);
      out[0] = frameKinds.numbered;
      new DataView(out.buffer).setUint32(1, frame.number);
      out.set(frame.body, 5);
      return out;
    }
    case 'acknowledged': {
      const out = new Uint8Array(9);
      const view = new DataView(out.buffer);
      out[0] = frameKinds.acknowledged;
      view.setUint32(1, frame.next);
      view.setUint32(5, frame.later);
      return out;
    }
    case 'complete':
      return Uint8Array.of(frameKinds.complete);
  }
}

/** Undefined for anything that isn't exactly a frame. */
export function decodeFrame(bytes: Uint8Array): Frame | undefined {
  try {
    return decode(bytes);
  } catch {
    return undefined;
  }
}

function decode(bytes: Uint8Array): Frame | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const label = (at: number): Label | undefined => {
    const value = view.getUint32(at);
    return value < 256 ? undefined : (value as Label);
  };
  switch (bytes[0]) {
    case frameKinds.setup:
    case frameKinds.answer: {
      const own = label(4);
      if (bytes.length !== ROUTING_HEADER + SESSION_MESSAGE || own === undefined || view.getUint16(2) !== 0) return undefined;
      const id = view.getBigUint64(40);
      const replaced = view.getUint32(48);
      const message = bytes.slice(ROUTING_HEADER);
      if (bytes[0] === frameKinds.setup) {
        const destination = keyFromBytes(bytes.subarray(8, 40));
        const replaces = label(48);
        if (replaced !== 0 && replaces === undefined) return undefined;
        return { kind: 'setup', hops: bytes[1] ?? 0, label: own, destination, id, ...(replaces && { replaces }), message };
      }
      const forward = label(8);
      if (forward === undefined || bytes[1] !== 0 || replaced !== 0 || bytes.subarray(12, 40).some((b) => b !== 0)) return undefined;
      return { kind: 'answer', label: own, forward, id, message };
    }
    case frameKinds.error: {
      const own = label(1);
      const reason = REASONS[bytes[5] ?? 255];
      return bytes.length === 6 && own !== undefined && reason !== undefined ? { kind: 'error', label: own, reason } : undefined;
    }
    case frameKinds.close: {
      const own = label(1);
      return bytes.length === 5 && own !== undefined ? { kind: 'close', label: own } : undefined;
    }
    case frameKinds.announce: {
      const items = new Fields([decodeCbor(bytes.subarray(1))], 1).list(64).map((item): Announced => {
        const fields = new Fields(item, 2);
        const type = TYPES[fields.count()];
        if (type === undefined) throw new RangeError('an unknown type');
        return { type, bytes: fields.bytesUpTo(512) };
      });
      return { kind: 'announce', items };
    }
    case frameKinds.withdraw:
      return { kind: 'withdraw', keys: keys(decodeCbor(bytes.subarray(1)), KEYS_MAX) };
    case frameKinds.lookup: {
      const fields = new Fields(decodeCbor(bytes.subarray(1)), 3);
      return { kind: 'lookup', id: fields.u64(), name: keyFromBytes(fields.bytes(32)), exclude: keys(fields.raw(), 8) };
    }
    case frameKinds.found: {
      const fields = new Fields(decodeCbor(bytes.subarray(1)), 3);
      const id = fields.u64();
      const status = STATUSES[fields.count()];
      if (status === undefined) return undefined;
      return { kind: 'found', id, status, keys: keys(fields.raw(), 4) };
    }
    case frameKinds.probe: {
      const own = label(1);
      if (bytes.length !== 14 || own === undefined) return undefined;
      return { kind: 'probe', label: own, hops: bytes[5] ?? 0, nonce: view.getBigUint64(6) };
    }
    case frameKinds.probed: {
      const own = label(1);
      if (bytes.length !== 46 || own === undefined) return undefined;
      return { kind: 'probed', label: own, hop: bytes[5] ?? 0, nonce: view.getBigUint64(6), key: keyFromBytes(bytes.subarray(14)) };
    }
    case frameKinds.nonce:
      return bytes.length === 17 ? { kind: 'nonce', nonce: bytes.slice(1) } : undefined;
    case frameKinds.edgeHalf:
      return { kind: 'edgeHalf', statement: bytes.slice(1) };
    case frameKinds.edgeFull:
      return { kind: 'edgeFull', statement: bytes.slice(1) };
    case frameKinds.numbered:
      return bytes.length > 5 ? { kind: 'numbered', number: view.getUint32(1), body: bytes.slice(5) } : undefined;
    case frameKinds.acknowledged:
      return bytes.length === 9 ? { kind: 'acknowledged', next: view.getUint32(1), later: view.getUint32(5) } : undefined;
    case frameKinds.complete:
      return bytes.length === 1 ? { kind: 'complete' } : undefined;
    default:
      return undefined;
  }
}

/** One frame with as many of the first announcements as fit, and how many those are; `items` isn't empty. */
export function announceFrame(items: readonly Announced[]): { readonly frame: Uint8Array; readonly count: number } {
  let size = 8;
  const more = items.findIndex((item) => (size += item.bytes.length + 6) > ANNOUNCE_MAX);
  const count = more < 0 ? items.length : Math.max(more, 1);
  return { frame: encodeFrame({ kind: 'announce', items: items.slice(0, count) }), count };
}

/** Cuts a list of lost keys into frames. */
export function withdrawFrames(lost: readonly PublicKey[]): Uint8Array[] {
  const frames: Uint8Array[] = [];
  for (let at = 0; at < lost.length; at += KEYS_MAX) {
    frames.push(encodeFrame({ kind: 'withdraw', keys: lost.slice(at, at + KEYS_MAX) }));
  }
  return frames;
}

function tagged(kind: number, value: Cbor): Uint8Array {
  return prefixed(kind, encodeCbor(value));
}

function keys(value: Cbor, most: number): PublicKey[] {
  return new Fields([value], 1).list(most).map((item) => {
    if (!(item instanceof Uint8Array)) throw new RangeError('not a key');
    return keyFromBytes(item);
  });
}
