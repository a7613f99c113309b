import { constants } from 'node:os';
import { describe, expect, test } from '@jest/globals';
import type { KernelNet } from '../../ts/kernel/kernel-net.js';
import { loadKernel } from '../../ts/kernel/loader.js';
import { version } from '../../ts/version.js';
import { packageOf, sourcesOf } from '../fixtures/sources.js';

const { EPERM, ENETUNREACH, EEXIST, EINVAL, EBUSY, ENOENT } = constants.errno;

/** An addon whose every call is refused with this errno. */
function refusing(errno: number, message: string, libraryMissing = false): KernelNet {
  const refuse = (): Promise<never> => Promise.reject(Object.assign(new Error(message), { errno, reason: 'a reason', libraryMissing }));
  const addon = new Proxy({ version: () => version }, { get: (target, name) => (name === 'version' ? target.version : refuse) });
  return loadKernel(sourcesOf({ packages: { 'linux-x64-gnu': packageOf(() => addon) } }));
}

const route = { destination: '198.18.0.0/15', protocol: 116 };

describe('loading the kernel addon', () => {
  test('says which it is when it is not there', () => {
    expect(() => loadKernel(sourcesOf({}))).toThrow(/^the kernel addon can't be loaded \(@thicket\/linux-x64-gnu isn't installed\)/);
  });
});

describe("the kernel's refusals", () => {
  test('without privilege say how to run', async () => {
    await expect(refusing(EPERM, 'add the route x').addRoute(route)).rejects.toMatchObject({
      code: 'NO_PRIVILEGE',
      message: "can't add the route x: run as root or with CAP_NET_ADMIN",
    });
    await expect(refusing(EPERM, 'Error: Operation not permitted').nft('x')).rejects.toMatchObject({
      code: 'NO_PRIVILEGE',
      message: "can't change nftables: run as root or with CAP_NET_ADMIN",
    });
  });

  test('to add what is there, and to delete what is not, are no errors', async () => {
    await expect(refusing(EEXIST, 'x').addRoute(route)).resolves.toBe(false);
    await expect(refusing(EEXIST, 'x').addRule({ family: 4, priority: 1 })).resolves.toBe(false);
    await expect(refusing(ENOENT, 'x').deleteRule({ family: 4, priority: 1 })).resolves.toBeUndefined();
    await expect(refusing(3, 'x').deleteRoute(route)).resolves.toBeUndefined();
    await expect(refusing(ENOENT, 'x').deleteAddress('a', '198.18.0.1/32')).resolves.toBeUndefined();
  });

  test('to find a route are NO_ROUTE', async () => {
    await expect(refusing(ENETUNREACH, 'find a route to 9.9.9.9').routeTo('9.9.9.9')).rejects.toMatchObject({ code: 'NO_ROUTE' });
  });

  test('of other kinds carry the reason', async () => {
    await expect(refusing(EBUSY, 'list routes').routes()).rejects.toMatchObject({
      code: 'NETLINK',
      message: "can't list routes (a reason): check what else manages this host's network",
    });
    await expect(refusing(EINVAL, 'find a route').routeTo('x')).rejects.toMatchObject({ code: 'NETLINK' });
  });

  test('of nftables are one line', async () => {
    const words = 'internal:0:0-0: Error: Could not process rule: No such file or directory\nadd rule inet x\n ^^^';
    await expect(refusing(ENOENT, words).nft('x')).rejects.toMatchObject({
      code: 'NFT_FAILED',
      message: 'nftables refused a rule (Could not process rule: No such file or directory): check that the kernel has nf_tables with NAT',
    });
  });

  test('a missing library says which package to install', async () => {
    await expect(refusing(ENOENT, 'no such file', true).nft('x')).rejects.toMatchObject({
      code: 'NFT_MISSING',
      message: expect.stringContaining('install the package libnftables1'),
    });
  });
});
