/** The way to devices as user-space mode asks for it: of this host as it is, with no privilege. */
import { describe, expect, test } from '@jest/globals';
import { systemLan } from '../../ts/gateway/lan.js';

describe('without the kernel addon', () => {
  test.each(['127.0.0.1', '::1'])('our address on the way to %s is told', async (host) => {
    expect(await systemLan.routeTo(host)).toEqual({ source: host });
  });

  test('where no way leads is NO_ROUTE', async () => {
    // Nobody has it, and no route is that broad.
    await expect(systemLan.routeTo('255.255.255.255')).rejects.toMatchObject({
      code: 'NO_ROUTE',
      message: expect.stringMatching(/check this host/),
    });
  });

  test('our own addresses are known', async () => {
    expect((await systemLan.addresses()).map(({ address }) => address)).toContain('127.0.0.1');
  });
});
