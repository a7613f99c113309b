/** Loads an addon from the first place that has a good one: what a checkout built, else the package for this place. Every failure is kept: the message is built from that evidence. */
import { describe, ThicketError } from '../errors.js';
import { version } from '../version.js';
import { elfFault } from './elf.js';
import { sealFault } from './seal.js';
import type { AddonName, Sources } from './sources.js';
import { selectTriple, type Triple, triples } from './triples.js';

export interface LoadedAddon {
  readonly addon: { version(): string };
  /** `@thicket/linux-x64-gnu` or `build/Release`. */
  readonly from: string;
}

/** What goes wrong at one place, and which remedy that calls for. */
interface Failure {
  readonly text: string;
  readonly remedy: 'install' | 'reinstall' | 'build' | 'report';
  readonly cause?: unknown;
}

const WORDS: Readonly<Record<AddonName, string>> = { thicket_addon: 'the native addon', thicket_kernel: 'the kernel addon' };
const ORDER = ['build', 'reinstall', 'install', 'report'] as const;
const REMEDIES: Readonly<Record<Failure['remedy'], string>> = {
  build: 'run npm run build',
  install: 'run npm install --include=optional where thicket is installed (with a lock file from another platform: delete that first)',
  reinstall: 'remove node_modules and install thicket again',
  report: 'report this line and what thicket doctor prints',
};

/** Throws BACKEND_UNAVAILABLE, with every reason in one line, when no place has an addon of this version that loads here. */
export function loadAddon(name: AddonName, sources: Sources): LoadedAddon {
  const failures: Failure[] = [];
  const loaded = fromCheckout(name, sources, failures) ?? fromPackage(name, sources, failures);
  if (loaded !== undefined) return loaded;
  const remedy = ORDER.find((one) => failures.some((failure) => failure.remedy === one)) ?? 'report';
  const text = `${WORDS[name]} can't be loaded (${failures.map((failure) => failure.text).join('; ')}): ${REMEDIES[remedy]}`;
  throw new ThicketError('BACKEND_UNAVAILABLE', text, { cause: failures.map((failure) => failure.cause ?? failure.text) });
}

function fromCheckout(name: AddonName, { arch, local }: Sources, failures: Failure[]): LoadedAddon | undefined {
  const file = local.file(name);
  if (file === undefined) {
    if (local.checkout) failures.push({ text: `build/Release/${name}.node isn't built`, remedy: 'build' });
    return undefined;
  }
  return attempt(
    'build/Release',
    'build',
    failures,
    () => elfFault(file, arch),
    () => local.load(file),
  );
}

function fromPackage(name: AddonName, sources: Sources, failures: Failure[]): LoadedAddon | undefined {
  const { platform, arch, libc, packages } = sources;
  const triple = selectTriple(platform, arch, libc.libc);
  if (triple === undefined) {
    const place = [platform, arch, libc.libc ?? 'unknown C library'].join(' ');
    failures.push({ text: `no package has addons for ${place}`, remedy: 'report' });
    return undefined;
  }
  const from = `@thicket/${triple}`;
  let manifest: string;
  try {
    manifest = packages[triple].manifest();
  } catch (cause) {
    failures.push({ text: `${from} isn't installed${others(triple, sources)}`, remedy: 'install', cause });
    return undefined;
  }
  return attempt(
    from,
    'reinstall',
    failures,
    () => sealFault(manifest, `${name}.node`, version),
    () => packages[triple].load(name),
  );
}

/** Packages of other places, if there are any: they tell that a lock file, a copied node_modules or a container's image is at fault. */
function others(wanted: Triple, { packages }: Sources): string {
  const installed = triples.filter((triple) => {
    if (triple === wanted) return false;
    try {
      return packages[triple].manifest() !== '';
    } catch {
      return false;
    }
  });
  return installed.length === 0 ? '' : `, only ${installed.map((triple) => `@thicket/${triple}`).join(' and ')}`;
}

/** `fault` before `load`: a damaged file ends the process there. */
function attempt(
  from: string,
  remedy: Failure['remedy'],
  failures: Failure[],
  fault: () => string | undefined,
  load: () => unknown,
): LoadedAddon | undefined {
  const fail = (text: string, cause?: unknown): undefined => {
    failures.push({ text: `${from} ${text}`, remedy, cause });
    return undefined;
  };
  try {
    const found = fault();
    if (found !== undefined) return fail(found);
    const addon = load() as LoadedAddon['addon'];
    const its = addon.version();
    return its === version ? { addon, from } : fail(`is version ${its}, the program ${version}`);
  } catch (cause) {
    return fail(`fails: ${describe(cause).split('\n', 1)[0] ?? ''}`, cause);
  }
}
