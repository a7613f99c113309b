/**
 * The one table of what is built and packed: a row for each platform package. `triple` names it as the loader does (ts/addons/triples.ts),
 * `os`, `cpu` and `libc` are npm's words for where it may be installed, `rust` and `zig` the compilers' for what it is built for. glibc 2.28
 * is what Node 20's own builds need; Rust's musl targets link statically unless told otherwise, which no addon can be.
 */
export const GLIBC_FLOOR = '2.28';

const row = (triple, cpu, libc, rust, zig) => ({ triple, name: `@thicket/${triple}`, os: 'linux', cpu, libc, rust, zig });

export const TABLE = [
  row('linux-x64-gnu', 'x64', 'glibc', 'x86_64-unknown-linux-gnu', `x86_64-linux-gnu.${GLIBC_FLOOR}`),
  row('linux-x64-musl', 'x64', 'musl', 'x86_64-unknown-linux-musl', 'x86_64-linux-musl'),
  row('linux-arm64-gnu', 'arm64', 'glibc', 'aarch64-unknown-linux-gnu', `aarch64-linux-gnu.${GLIBC_FLOOR}`),
  row('linux-arm64-musl', 'arm64', 'musl', 'aarch64-unknown-linux-musl', 'aarch64-linux-musl'),
  row('linux-arm-gnueabihf', 'arm', 'glibc', 'armv7-unknown-linux-gnueabihf', `arm-linux-gnueabihf.${GLIBC_FLOOR}`),
];

/** The addons that each of them carries. */
export const ADDONS = ['thicket_addon.node', 'thicket_kernel.node'];
