/** Bytes put together. */

/** A frame: one byte that says what it is, then the body. */
export function prefixed(kind: number, body: Uint8Array): Uint8Array {
  const frame = new Uint8Array(1 + body.length);
  frame[0] = kind;
  frame.set(body, 1);
  return frame;
}
