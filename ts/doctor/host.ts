/** This host, as the doctor looks at it. */
import { closeSync, constants, fstatSync, openSync, readFileSync } from 'node:fs';
import { detectLibc, type Environment, hostEvidence } from '../addons/index.js';
import { chooseBackend } from '../dataplane/index.js';
import { describe } from '../errors.js';
import { loadKernel } from '../kernel/index.js';
import type { Capability, Examined } from './doctor.js';

const TUN = '/dev/net/tun';
/** Major 10 (misc), minor 200: Documentation/admin-guide/devices.txt. */
const TUN_DEVICE = 0x0ac8;
/** Bits in /proc/self/status: include/uapi/linux/capability.h. */
const BITS: Readonly<Record<Capability, bigint>> = { CAP_NET_BIND_SERVICE: 10n, CAP_NET_ADMIN: 12n };

export function thisHost(env: Environment): Examined {
  return {
    nodeVersion: () => process.versions.node,
    place: `${process.platform} ${process.arch}`,
    backend: () => {
      const { name, from, shortfall } = chooseBackend(env);
      return { name, from, shortfall: shortfall ?? null };
    },
    // Not by what is mapped: the report names the version, too.
    libc: () => detectLibc({ ...hostEvidence(env), maps: () => '' }),
    tun: openTun,
    capabilities,
    nftables: async () => {
      // Commands that are none: the library is loaded and asked, the kernel isn't.
      await loadKernel().nft('');
    },
  };
}

/** Opening it makes no interface yet. */
function openTun(): void {
  let fd: number;
  try {
    fd = openSync(TUN, constants.O_RDWR);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENODEV') {
      throw new Error(`${TUN} is missing: load the tun module or give the container the device`, { cause: error });
    }
    if (code === 'EACCES' || code === 'EPERM')
      throw new Error(`${TUN} can't be opened: run as root or give the user the device`, { cause: error });
    throw new Error(`${TUN} can't be opened (${describe(error)}): check the device`, { cause: error });
  }
  try {
    const { rdev } = fstatSync(fd);
    if (rdev !== TUN_DEVICE) throw new Error(`${TUN} is not the kernel's TUN device: make it with mknod ${TUN} c 10 200`);
  } finally {
    closeSync(fd);
  }
}

function capabilities(): ReadonlySet<Capability> {
  const mask = BigInt(`0x${/^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? '0'}`);
  return new Set((Object.keys(BITS) as Capability[]).filter((name) => (mask >> BITS[name]) & 1n));
}
