/** mac1, mac2 and cookies of link handshakes: see native/core/src/gate.rs, which judges them. */
import { sodium } from '../trust/index.js';

const text = (label: string): Uint8Array => new TextEncoder().encode(label);

function keyFor(label: string, nodeKey: Uint8Array): Uint8Array {
  const input = new Uint8Array(label.length + nodeKey.length);
  input.set(text(label));
  input.set(nodeKey, label.length);
  return sodium.crypto_generichash(32, input, null);
}

/** Fills the last 32 bytes of a 1,232-byte message to the node with `receiver`'s key: mac1, and mac2 where a cookie is known, else zeros. */
export function writeMacs(message: Uint8Array, receiver: Uint8Array, cookie: Uint8Array | undefined): void {
  const at = message.length - 32;
  message.set(sodium.crypto_generichash(16, message.subarray(0, at), keyFor('thicket mac1', receiver)), at);
  if (cookie === undefined) message.fill(0, at + 16);
  else message.set(sodium.crypto_generichash(16, message.subarray(0, at + 16), cookie), at + 16);
}

/** Opens a cookie reply to `message`; undefined when it isn't one. */
export function readCookie(reply: Uint8Array, responder: Uint8Array, message: Uint8Array): Uint8Array | undefined {
  if (reply.length !== 64) return undefined;
  const mac1 = message.subarray(message.length - 32, message.length - 16);
  try {
    return sodium.crypto_aead_xchacha20poly1305_ietf_decrypt(
      null,
      reply.subarray(32),
      mac1,
      reply.subarray(8, 32),
      keyFor('thicket cookie', responder),
    );
  } catch {
    return undefined;
  }
}
