/** libsodium, ready: importing this module waits for its WASM once. */
import sodium from 'libsodium-wrappers';

await sodium.ready;

export { sodium };
