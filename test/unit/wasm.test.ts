import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import type { PlaneModule } from '../../ts/dataplane/wasm/bindings.js';
import { wasmBuild, wasmBuilds, wasmFolder } from '../../ts/dataplane/wasm/build.js';
import { sodium } from '../../ts/trust/index.js';
import { version } from '../../ts/version.js';
import { inner, kind, tcpBody, tcpFlag } from '../impolite/inner.js';
import { wasm, wasmModules } from '../impolite/wasm.js';

/** Node has it; the ES libraries and Node's types don't. */
interface ModuleInspector {
  new (bytes: Uint8Array): object;
  imports(module: object): readonly { readonly module: string; readonly name: string }[];
}
const { Module } = (globalThis as unknown as { readonly WebAssembly: { readonly Module: ModuleInspector } }).WebAssembly;

const hex = (value: Uint8Array): string => Buffer.from(value).toString('hex');
const counting = (length: number): Uint8Array => Uint8Array.from({ length }, (_, at) => at);

describe('the WASM module', () => {
  test.each(wasmBuilds)('%s is of the same version as the program, and seals by its own code', (build) => {
    const module = wasmModules[build];
    expect(module.version()).toBe(version);
    expect(module.aeadKernels()).toEqual([build, 'RustCrypto']);
    // The fastest that passes its self-test.
    expect(module.chooseAead('auto')).toBe(build);
    expect(() => module.chooseAead('AVX2')).toThrow('AEAD AVX2: this module has no such, see aeadKernels()');
  });

  test('is the build with vectors where the engine has them, or the one that is asked for', () => {
    expect(wasmBuild('')).toBe('simd128');
    expect(wasmBuild(undefined, () => false)).toBe('scalar');
    expect(wasmBuild('scalar')).toBe('scalar');
    expect(wasmBuild('simd128', () => false)).toBe('simd128');
    expect(() => wasmBuild('avx2')).toThrow(
      expect.objectContaining({
        code: 'BACKEND_UNAVAILABLE',
        message: 'THICKET_WASM=avx2 is no build of the WASM module: set it to simd128 or scalar, or unset it',
      }),
    );
  });

  test.each(wasmBuilds)('%s imports nothing but its own JavaScript: no clock, no randomness, no environment', (build) => {
    const imports = Module.imports(new Module(readFileSync(join(wasmFolder(build), 'thicket_wasm_bg.wasm'))));
    expect([...new Set(imports.map(({ module }) => module))]).toEqual(['./thicket_wasm_bg.js']);
    expect(imports.filter(({ name }) => /random|crypto|time|date|performance|now/i.test(name))).toEqual([]);
  });

  test('throws for a key of the wrong length and goes on working', () => {
    expect(() => new wasm.AeadKey(new Uint8Array(31))).toThrow(/32 bytes/);
    expect(() => new wasm.WasmCore(new Uint8Array(32), new Uint8Array(31), false)).toThrow(/32 bytes/);
    const core = new wasm.WasmCore(new Uint8Array(32), new Uint8Array(32), false);
    expect(() => core.command(1_000_000n, 'linkSend', { link: 1, frame: 'no bytes' })).toThrow(/command/);
    expect(() => core.command(1_000_000n, 'fly', {})).toThrow(/fly/);
    core.command(1_000_000n, 'linkRemove', { link: 1 });
    expect(core.stats(1_000_000n).drops['staleCommand']).toBe(1n);
  });
});

describe('the WASM data plane', () => {
  const { WasmPlane } = wasm as unknown as PlaneModule;

  test('counts past 2^32 and 2^53 one by one', () => {
    const plane = new WasmPlane(counting(32), counting(32), false, 0);
    const most = 2 ** 32 - 1;
    const lost = (): bigint | undefined => plane.stats(1_000_000).drops['queueFull'];
    plane.sent(most);
    expect(lost()).toBe(2n ** 32n - 1n);
    plane.sent(1);
    expect(lost()).toBe(2n ** 32n);
    for (let call = 1; call < 2 ** 21; call += 1) plane.sent(most);
    plane.sent(2 ** 21 - 2);
    expect(lost()).toBe(2n ** 53n - 1n);
    plane.sent(1);
    expect(lost()).toBe(2n ** 53n);
    plane.sent(1);
    expect(lost()).toBe(2n ** 53n + 1n);
  });
});

describe('a gateway on the WASM module', () => {
  const now = 1_000_000n;
  const [link, session, label] = [1, 5, 4_000];
  const [linkKey, sendKey, hopSecret] = [counting(32), counting(32).reverse(), counting(32).fill(7)];
  const hop = { link, label, generation: 1 };

  function gateway(): InstanceType<typeof wasm.WasmCore> {
    const core = new wasm.WasmCore(counting(32), counting(32), false);
    const remote = { host: '192.0.2.1', port: 7117 };
    const keys = { sendKey: linkKey, receiveKey: linkKey, hopSecret, receiveIndex: 1, sendIndex: 2, initiator: false, confirmed: true };
    core.command(now, 'linkInstall', { link, generation: 1, socket: 0, remote, ...keys });
    core.command(now, 'sessionOpen', { session, own4: '198.18.0.77', peer4: '198.18.0.88' });
    const target = { host: '192.168.1.20', port: 554 };
    const camera = { protocol: 'tcp', port: 554, family: 4, target, rtsp: { lan: '192.168.1.1' }, account: 1 };
    core.command(now, 'sessionPolicy', { session, inbound: [camera], outbound: false, echo: false, rtspPorts: [] });
    const path = { path: 1, session, ingress: hop, egress: hop, sendKey: linkKey, receiveKey: sendKey, confirmed: true };
    core.command(now, 'pathInstall', path);
    return core;
  }

  test('refuses media over UDP at once, for it has no sockets on the LAN', () => {
    const core = gateway();
    const ask = 'SETUP rtsp://camera/live RTSP/1.0\r\nTransport: RTP/AVP;unicast;client_port=6100-6101\r\nCSeq: 1\r\n\r\n';
    const ports = { from: 5_000, to: 554 };
    const segments = [
      tcpBody(ports, tcpFlag.syn, new Uint8Array(0), { seq: 9 }),
      tcpBody(ports, tcpFlag.ack | tcpFlag.psh, Buffer.from(ask), { seq: 10, ack: 1 }),
    ];
    const tags = wasm.HopKey.derive(hopSecret, label, true);
    segments.forEach((segment, counter) => {
      const datagram = wasm.dataPacket(sendKey, BigInt(counter), label, tags, inner(kind.tcp, segment));
      core.handleDatagram(now, 0, '192.0.2.1', 7117, datagram);
    });
    const said = core.takePackets().map((packet) => Buffer.from(packet).subarray(40).toString());
    expect(said.join('')).toBe(ask.replace('RTP/AVP', 'XTP/AVP'));
  });
});

describe("the core's primitives in WASM", () => {
  test("hop tags are SipHash-2-4, as libsodium's", () => {
    // The input of a hop tag is 28 bytes: label, counter field, AEAD tag.
    const input = counting(28);
    const view = new DataView(input.buffer);
    const tag = new wasm.HopKey(counting(16)).tag(view.getUint32(0), view.getBigUint64(4), input.subarray(12));
    expect(hex(tag)).toBe(hex(sodium.crypto_shorthash(input, counting(16))));
  });

  test("hop keys depend on secret, label and direction, and are keyed BLAKE2b, as libsodium's", () => {
    const secret = counting(32);
    const aeadTag = counting(16);
    for (const [label, fromInitiator] of [
      [0x01020304, true],
      [0xfffffffe, false],
    ] as const) {
      const input = Buffer.concat([Buffer.from('thicket hop'), Buffer.alloc(4), Buffer.of(fromInitiator ? 0 : 1)]);
      input.writeUInt32BE(label, 11);
      const key = sodium.crypto_generichash(16, input, secret);
      const expected = new wasm.HopKey(key).tag(label, 7n, aeadTag);
      expect(hex(wasm.HopKey.derive(secret, label, fromInitiator).tag(label, 7n, aeadTag))).toBe(hex(expected));
      expect(hex(wasm.HopKey.derive(secret, label, !fromInitiator).tag(label, 7n, aeadTag))).not.toBe(hex(expected));
    }
  });

  test.each([0, 1, 64, 127, 128, 129, 1_000])("BLAKE2b of %d bytes is libsodium's", (length) => {
    const input = counting(length);
    expect(hex(wasm.blake2b256(input))).toBe(hex(sodium.crypto_generichash(32, input, null)));
    expect(hex(wasm.blake2b128(counting(32), input))).toBe(hex(sodium.crypto_generichash(16, input, counting(32))));
  });

  test('a data packet is laid out as documented and opens with libsodium', () => {
    const key = counting(32);
    const hop = new wasm.HopKey(counting(16));
    const inner = counting(40);
    const field = wasm.counterField(2, 5n);
    expect(field).toBe((2n << 62n) | 5n);
    const packet = Buffer.from(wasm.dataPacket(key, field, 0xdeadbeef, hop, inner));
    expect([packet.length, packet.readUInt32BE(0), packet.readBigUInt64BE(4)]).toEqual([36 + 40, 0xdeadbeef, field]);
    expect(hex(packet.subarray(12, 20))).toBe(hex(hop.tag(0xdeadbeef, field, packet.subarray(-16))));
    const nonce = Buffer.alloc(12);
    nonce.writeBigUInt64LE(field, 4);
    expect(hex(sodium.crypto_aead_chacha20poly1305_ietf_decrypt(null, packet.subarray(20), null, nonce, key))).toBe(hex(inner));
  });

  test('a train of packets opens as it was sealed, and a flipped bit spoils its own packet only', () => {
    const key = new wasm.AeadKey(counting(32));
    const train = counting(20 * 200);
    key.sealTrain(9n, train, 200);
    const nonce = new Uint8Array(12);
    nonce[4] = 9 + 3;
    expect(hex(key.open(nonce, new Uint8Array(0), train.subarray(620, 800)) ?? new Uint8Array(0))).toBe(hex(counting(784).subarray(620)));
    train[1_030] = (train[1_030] ?? 0) ^ 1;
    expect(key.openTrain(9n, train, 200)).toBe(19);
  });
});
