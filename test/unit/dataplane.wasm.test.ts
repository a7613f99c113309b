import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { expect, test } from '@jest/globals';
import { loadModule } from '../../ts/dataplane/wasm/module.js';
import { filled, openPlane } from '../planes/index.js';

test('a port in use is told in one line that says what to do', async () => {
  const socket = createSocket('udp4').bind(0, '127.0.0.1');
  await once(socket, 'listening');
  const { port } = socket.address();
  await expect(openPlane('wasm', { nodeKey: filled(9), listen: [{ host: '127.0.0.1', port }] })).rejects.toMatchObject({
    code: 'ADDRESS_IN_USE',
    message: `udp://127.0.0.1:${port}: bind EADDRINUSE 127.0.0.1:${port}: stop what listens there, or change listen`,
  });
  socket.close();
});

test('has no TUN, and says so', async () => {
  const tun = { name: 'thicket0', offload: 'auto' } as const;
  await expect(openPlane('wasm', { nodeKey: filled(9), listen: [], tun })).rejects.toMatchObject({
    code: 'NO_TUN',
    message: 'interface thicket0: the wasm backend has no interface, set interface.mode to userspace',
  });
});

test('a module that is missing, or of another version, is refused', () => {
  const missing = (): never => {
    throw new Error("Cannot find module 'thicket_wasm.js'\nRequire stack: …");
  };
  expect(() => loadModule(missing)).toThrow(
    expect.objectContaining({
      code: 'BACKEND_UNAVAILABLE',
      message: "the WASM module can't be loaded (Cannot find module 'thicket_wasm.js'): install thicket again",
    }),
  );
  expect(() => loadModule(() => ({ version: () => '0.0.0' }))).toThrow(
    /^the WASM module is version 0\.0\.0, the program .*: install thicket again$/,
  );
});
