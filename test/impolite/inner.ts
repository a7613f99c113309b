/** Inner packets, byte by byte as native/core/src/wire/inner.rs reads them: for sending what no well-behaved node would. */

export const kind = { tcp: 1, udp: 2, echo: 3, error: 4, part: 5, control: 6 } as const;
export const tcpFlag = { fin: 1, syn: 2, rst: 4, psh: 8, ack: 16 } as const;
export const errorClass = { portUnreachable: 1, hostUnreachable: 2, tooBig: 3, denied: 4, hopLimit: 5 } as const;

export interface InnerOptions {
  /** DSCP and ECN; default 0. */
  readonly trafficClass?: number;
  /** Default 64. */
  readonly hopLimit?: number;
}

/** Inner header and body; `kind` may be any byte. */
export function inner(kind: number, body: Uint8Array, options: InnerOptions = {}): Uint8Array {
  const out = new Uint8Array(4 + body.length);
  out.set([kind, options.trafficClass ?? 0, options.hopLimit ?? 64, 0]);
  out.set(body, 4);
  return out;
}

/** A TCP segment as it travels: without its checksum. */
export function tcpBody(
  ports: { readonly from: number; readonly to: number },
  flags: number,
  payload: Uint8Array = new Uint8Array(0),
  sequence: { readonly seq?: number; readonly ack?: number } = {},
): Uint8Array {
  const out = new Uint8Array(18 + payload.length);
  const view = new DataView(out.buffer);
  view.setUint16(0, ports.from);
  view.setUint16(2, ports.to);
  view.setUint32(4, sequence.seq ?? 1);
  view.setUint32(8, sequence.ack ?? 0);
  out[12] = 5 << 4;
  out[13] = flags;
  view.setUint16(14, 65_535);
  out.set(payload, 18);
  return out;
}

export function udpBody(ports: { readonly from: number; readonly to: number }, payload: Uint8Array = new Uint8Array(0)): Uint8Array {
  const out = new Uint8Array(4 + payload.length);
  const view = new DataView(out.buffer);
  view.setUint16(0, ports.from);
  view.setUint16(2, ports.to);
  out.set(payload, 4);
  return out;
}

export function echoBody(type: 'request' | 'reply', id: number, sequence: number, data: Uint8Array = new Uint8Array(0)): Uint8Array {
  const out = new Uint8Array(6 + data.length);
  const view = new DataView(out.buffer);
  out[0] = type === 'request' ? 0 : 1;
  view.setUint16(2, id);
  view.setUint16(4, sequence);
  out.set(data, 6);
  return out;
}

/** About a packet that went from port `from` to port `to`; `protocol` is IP's number. */
export function errorBody(reason: number, protocol: number, ports: { readonly from: number; readonly to: number }, value = 0): Uint8Array {
  const out = new Uint8Array(8);
  const view = new DataView(out.buffer);
  out.set([reason, protocol]);
  view.setUint16(2, value);
  view.setUint16(4, ports.from);
  view.setUint16(6, ports.to);
  return out;
}

export function partBody(id: number, index: number, count: number, slice: Uint8Array): Uint8Array {
  const out = new Uint8Array(4 + slice.length);
  new DataView(out.buffer).setUint16(0, id);
  out.set([index, count], 2);
  out.set(slice, 4);
  return out;
}
