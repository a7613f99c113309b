/** For which places there are prebuilt addons. scripts/package/table.mjs says how each is built and packed; a test compares the two. */

/** npm's words, as in a package's `libc` field. */
export type Libc = 'glibc' | 'musl';

const TRIPLES = {
  'linux-x64-gnu': { arch: 'x64', libc: 'glibc' },
  'linux-x64-musl': { arch: 'x64', libc: 'musl' },
  'linux-arm64-gnu': { arch: 'arm64', libc: 'glibc' },
  'linux-arm64-musl': { arch: 'arm64', libc: 'musl' },
  'linux-arm-gnueabihf': { arch: 'arm', libc: 'glibc' },
} as const;

export type Triple = keyof typeof TRIPLES;

export const triples = Object.keys(TRIPLES) as readonly Triple[];

/** The prebuilt addons' name for such a place (`process.platform`, `process.arch`), or undefined where there are none. */
export function selectTriple(platform: string, arch: string, libc: Libc | undefined): Triple | undefined {
  if (platform !== 'linux') return undefined;
  return triples.find((triple) => TRIPLES[triple].arch === arch && TRIPLES[triple].libc === libc);
}
