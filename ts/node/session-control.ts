/** What two ends say to each other inside a session besides data: the first byte tells what. */
import { prefixed } from '../bytes.js';
import { type Cbor, decodeCbor, encodeCbor, Fields, sodium } from '../trust/index.js';

/** `heard` answers a hello with its `helloNonce`: hellos are repeated until then. */
export const controlKind = { ping: 1, pong: 2, rekey1: 3, rekey2: 4, close: 6, hello: 7, heard: 8 } as const;

/** A service that the sender of a hello lets the receiver use. */
export interface OfferedService {
  readonly protocol: 'tcp' | 'udp';
  readonly port: number;
  readonly rtsp: boolean;
}

const SERVICES_MAX = 128;

export function nonceFrame(kind: number, nonce: bigint): Uint8Array {
  const frame = new Uint8Array(9);
  frame[0] = kind;
  new DataView(frame.buffer).setBigUint64(1, nonce);
  return frame;
}

export function readNonce(frame: Uint8Array): bigint | undefined {
  return frame.length === 9 ? new DataView(frame.buffer, frame.byteOffset, 9).getBigUint64(1) : undefined;
}

export function encodeHello(services: readonly OfferedService[]): Uint8Array {
  const list: Cbor[] = services.slice(0, SERVICES_MAX).map((s) => [s.protocol === 'tcp' ? 6 : 17, s.port, s.rtsp ? 1 : 0]);
  return prefixed(controlKind.hello, encodeCbor([1, list]));
}

/** What tells one hello from another: eight bytes of its hash. */
export function helloNonce(frame: Uint8Array): bigint {
  const digest = sodium.crypto_generichash(16, frame, null);
  return new DataView(digest.buffer, digest.byteOffset).getBigUint64(0);
}

/** Undefined for anything that isn't a hello. */
export function decodeHello(frame: Uint8Array): OfferedService[] | undefined {
  try {
    const fields = new Fields(decodeCbor(frame.subarray(1)), 2);
    if (fields.count() !== 1) return undefined;
    return fields.list(SERVICES_MAX).map((item) => {
      const service = new Fields(item, 3);
      const [protocol, port, rtsp] = [service.count(), service.count(), service.count()];
      if ((protocol !== 6 && protocol !== 17) || port < 1 || port > 65_535 || rtsp > 1) throw new RangeError('not a service');
      return { protocol: protocol === 6 ? 'tcp' : 'udp', port, rtsp: rtsp === 1 };
    });
  } catch {
    return undefined;
  }
}
