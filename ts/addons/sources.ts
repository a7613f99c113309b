/** Where addons may lie: in the platform packages that npm installs beside this one, or where a checkout builds them. */
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { packageRoot } from '../package-root.js';
import { detectLibc, hostEvidence, type LibcFound } from './libc.js';
import type { Triple } from './triples.js';

/** The Rust addon, which moves packets, and the C++ addon, which speaks to the kernel's control plane. Files of these names, with `.node`. */
export type AddonName = 'thicket_addon' | 'thicket_kernel';

export type Environment = Readonly<Record<string, string | undefined>>;

export interface PlatformPackage {
  /** Path of its package.json. Throws where it isn't installed. */
  manifest(): string;
  /** Throws what Node.js throws. */
  load(name: AddonName): unknown;
}

/** All that loading asks the outside for, so that tests can be other places. */
export interface Sources {
  readonly platform: string;
  /** As `process.arch`, but `armv6` for a Node.js that was built for that: our addons for arm need ARMv7. */
  readonly arch: string;
  readonly libc: LibcFound;
  readonly packages: Readonly<Record<Triple, PlatformPackage>>;
  readonly local: {
    /** Whether this is a checkout, where addons can be built. */
    readonly checkout: boolean;
    /** Where it would be built to; undefined where it isn't there. */
    file(name: AddonName): string | undefined;
    load(file: string): unknown;
  };
}

const require_ = createRequire(import.meta.url);

/** Literal texts, so that bundlers see which files belong to the program. */
const PACKAGES: Sources['packages'] = {
  'linux-x64-gnu': {
    manifest: () => require_.resolve('@thicket/linux-x64-gnu/package.json'),
    load: (name) =>
      name === 'thicket_addon'
        ? require_('@thicket/linux-x64-gnu/thicket_addon.node')
        : require_('@thicket/linux-x64-gnu/thicket_kernel.node'),
  },
  'linux-x64-musl': {
    manifest: () => require_.resolve('@thicket/linux-x64-musl/package.json'),
    load: (name) =>
      name === 'thicket_addon'
        ? require_('@thicket/linux-x64-musl/thicket_addon.node')
        : require_('@thicket/linux-x64-musl/thicket_kernel.node'),
  },
  'linux-arm64-gnu': {
    manifest: () => require_.resolve('@thicket/linux-arm64-gnu/package.json'),
    load: (name) =>
      name === 'thicket_addon'
        ? require_('@thicket/linux-arm64-gnu/thicket_addon.node')
        : require_('@thicket/linux-arm64-gnu/thicket_kernel.node'),
  },
  'linux-arm64-musl': {
    manifest: () => require_.resolve('@thicket/linux-arm64-musl/package.json'),
    load: (name) =>
      name === 'thicket_addon'
        ? require_('@thicket/linux-arm64-musl/thicket_addon.node')
        : require_('@thicket/linux-arm64-musl/thicket_kernel.node'),
  },
  'linux-arm-gnueabihf': {
    manifest: () => require_.resolve('@thicket/linux-arm-gnueabihf/package.json'),
    load: (name) =>
      name === 'thicket_addon'
        ? require_('@thicket/linux-arm-gnueabihf/thicket_addon.node')
        : require_('@thicket/linux-arm-gnueabihf/thicket_kernel.node'),
  },
};

/** This host, as `env` lets it be seen (`THICKET_LIBC`). Throws BAD_ARGUMENT for an override that is none. */
export function hostSources(env: Environment): Sources {
  return {
    platform: process.platform,
    arch: architecture(),
    libc: detectLibc(hostEvidence(env)),
    packages: PACKAGES,
    local: {
      checkout: existsSync(join(packageRoot, 'native/Cargo.toml')),
      file: (name) => {
        const file = join(packageRoot, 'build/Release', `${name}.node`);
        return existsSync(file) ? file : undefined;
      },
      load: (file) => require_(file),
    },
  };
}

function architecture(): string {
  const { arm_version: version } = process.config.variables as { readonly arm_version?: string };
  return process.arch === 'arm' && version === '6' ? 'armv6' : process.arch;
}
