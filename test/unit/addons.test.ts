/** Which addon a place gets, and what is said when it gets none. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { hostSources, loadAddon, selectTriple } from '../../ts/addons/index.js';
import { detectLibc, hostEvidence, type LibcEvidence } from '../../ts/addons/libc.js';
import { version } from '../../ts/version.js';
import { built, elf, packageOf, sourcesOf } from '../fixtures/sources.js';

const good = { version: () => version };
const load = (given: Parameters<typeof sourcesOf>[0]): string => loadAddon('thicket_addon', sourcesOf(given)).from;

describe('a place', () => {
  test.each([
    ['linux', 'x64', 'glibc', 'linux-x64-gnu'],
    ['linux', 'x64', 'musl', 'linux-x64-musl'],
    ['linux', 'arm64', 'glibc', 'linux-arm64-gnu'],
    ['linux', 'arm64', 'musl', 'linux-arm64-musl'],
    ['linux', 'arm', 'glibc', 'linux-arm-gnueabihf'],
    ['linux', 'arm', 'musl', undefined],
    ['linux', 'armv6', 'glibc', undefined],
    ['linux', 'riscv64', 'glibc', undefined],
    ['linux', 'x64', undefined, undefined],
    ['darwin', 'arm64', undefined, undefined],
    ['win32', 'x64', 'glibc', undefined],
  ] as const)('%s %s %s has the addons %s', (platform, arch, libc, triple) => {
    expect(selectTriple(platform, arch, libc)).toBe(triple);
  });
});

describe('the C library', () => {
  const nothing: LibcEvidence = { override: undefined, maps: () => '', report: () => undefined, libraries: () => [], ldd: () => '' };
  const never = (): never => {
    throw new Error('was asked too early');
  };
  const debian = 'ldd (Debian GLIBC 2.36-9+deb12u10) 2.36\nCopyright (C) 2022 Free Software Foundation, Inc.\n';
  const alpine = 'musl libc (x86_64)\nVersion 1.2.5\nDynamic Program Loader\n';

  test('is what the variable says, before anything is asked', () => {
    const evidence = { override: 'musl', maps: never, report: never, libraries: never, ldd: never };
    expect(detectLibc(evidence)).toEqual({ libc: 'musl', version: undefined, source: 'THICKET_LIBC' });
    expect(() => detectLibc({ ...evidence, override: 'gnu' })).toThrow('THICKET_LIBC=gnu is no C library: set it to glibc or musl');
  });

  test.each([
    [
      'glibc',
      '7f2c1000-7f2c2000 r-xp 00000000 fe:00 12 /usr/lib/x86_64-linux-gnu/libc.so.6\n7ffc0000-7ffc1000 r-xp 00000000 00:00 0 [vdso]\n',
    ],
    ['glibc', 'b6d0000-b6e0000 r-xp 00000000 b3:02 7 /lib/arm-linux-gnueabihf/libc-2.28.so\n'],
    ['musl', '7f2c1000-7f2c2000 r-xp 00000000 fe:00 12 /lib/ld-musl-x86_64.so.1\n'],
  ])('is %s when the process has that mapped', (libc, mapped) => {
    const evidence = { ...nothing, maps: () => mapped, report: never, libraries: never, ldd: never };
    expect(detectLibc(evidence)).toEqual({ libc, version: undefined, source: 'maps' });
  });

  test('is what the process itself says, on an Alpine with a Node.js for glibc too', () => {
    const report = (): unknown => ({ header: { glibcVersionRuntime: '2.36' }, sharedObjects: ['/lib64/ld-linux-x86-64.so.2'] });
    expect(detectLibc({ ...nothing, report, libraries: never, ldd: never })).toEqual({ libc: 'glibc', version: '2.36', source: 'report' });
  });

  test('is musl when the process has it loaded', () => {
    const report = (): unknown => ({ header: {}, sharedObjects: ['/usr/bin/node', '/lib/ld-musl-x86_64.so.1'] });
    expect(detectLibc({ ...nothing, report, libraries: never, ldd: never })).toMatchObject({ libc: 'musl', source: 'report' });
  });

  test("is musl when musl's loader is there and the process says nothing", () => {
    expect(detectLibc({ ...nothing, libraries: () => ['ld-musl-aarch64.so.1'], ldd: never })).toMatchObject({
      libc: 'musl',
      source: 'loader',
    });
  });

  test('is what ldd says at last', () => {
    expect(detectLibc({ ...nothing, ldd: () => debian })).toEqual({ libc: 'glibc', version: '2.36', source: 'ldd' });
    expect(detectLibc({ ...nothing, ldd: () => alpine })).toEqual({ libc: 'musl', version: '1.2.5', source: 'ldd' });
    expect(detectLibc({ ...nothing, ldd: () => 'sh: ldd: not found' })).toMatchObject({ libc: undefined, source: 'none' });
  });

  test('of this host is known by the process, whose reports go on saying what it is connected to', () => {
    const report = process.report as typeof process.report & { excludeNetwork?: boolean };
    expect(hostSources({}).libc).toEqual({ libc: 'glibc', version: undefined, source: 'maps' });
    expect(detectLibc({ ...hostEvidence({}), maps: () => '' })).toMatchObject({
      libc: 'glibc',
      version: expect.stringMatching(/^2\.\d+$/),
      source: 'report',
    });
    expect(report?.excludeNetwork ?? false).toBe(false);
  });
});

describe('loading an addon', () => {
  test('takes the one of the package for this place, and no other', () => {
    expect(load({ packages: { 'linux-x64-gnu': packageOf(() => good) } })).toBe('@thicket/linux-x64-gnu');
    const musl = { libc: 'musl', version: undefined, source: 'report' } as const;
    expect(load({ libc: musl, packages: { 'linux-x64-musl': packageOf(() => good) } })).toBe('@thicket/linux-x64-musl');
  });

  test('takes what a checkout built before any package, and the package when that is no good', () => {
    const packages = { 'linux-x64-gnu': packageOf(() => good) };
    expect(load({ packages, local: { checkout: true, file: () => built(elf(62)), load: () => good } })).toBe('build/Release');
    expect(load({ packages, local: { checkout: true, file: () => built(elf(183)), load: () => good } })).toBe('@thicket/linux-x64-gnu');
    expect(load({ packages, local: { checkout: true } })).toBe('@thicket/linux-x64-gnu');
  });

  test('names the package that is missing, and the one that is there instead', () => {
    expect(() => load({})).toThrow(
      "the native addon can't be loaded (@thicket/linux-x64-gnu isn't installed): run npm install --include=optional",
    );
    expect(() => load({ packages: { 'linux-x64-musl': packageOf(() => good), 'linux-arm64-gnu': packageOf(() => good) } })).toThrow(
      "@thicket/linux-x64-gnu isn't installed, only @thicket/linux-x64-musl and @thicket/linux-arm64-gnu)",
    );
  });

  test('says of a place without prebuilt addons that there are none', () => {
    expect(() => load({ arch: 'riscv64' })).toThrow('no package has addons for linux riscv64 glibc');
  });

  test('never gives a damaged file to the dynamic loader', () => {
    const addons = packageOf(() => {
      throw new Error('the process would have ended');
    });
    writeFileSync(join(addons.folder, 'thicket_addon.node'), 'bytes of thicket_addoN');
    expect(() => load({ packages: { 'linux-x64-gnu': addons } })).toThrow(
      '(@thicket/linux-x64-gnu has a damaged thicket_addon.node (its checksum differs)): remove node_modules and install thicket again',
    );
  });

  test.each([
    ['is empty', Buffer.alloc(0), 'is damaged (no ELF file)'],
    ['is a text', Buffer.alloc(100, 'x'), 'is damaged (no ELF file)'],
    ['is a program', Buffer.concat([elf(62).subarray(0, 16), Buffer.of(2), elf(62).subarray(17)]), 'is damaged (no shared object)'],
    ['was cut', elf(62, 65), 'is damaged (cut off at 64 of 65 bytes)'],
    ['is for another processor', elf(183), 'is for arm64, not x64'],
  ])('refuses what a checkout built when it %s', (_, bytes, fault) => {
    const local = { checkout: true, file: () => built(bytes), load: () => good };
    expect(() => load({ local })).toThrow(`build/Release ${fault}; @thicket/linux-x64-gnu isn't installed): run npm run build`);
  });

  test('refuses a package of another version before it loads it, and an addon of another version after', () => {
    const never = (): never => {
      throw new Error('was loaded');
    };
    expect(() => load({ packages: { 'linux-x64-gnu': packageOf(never, { version: '9.9.9' }) } })).toThrow(
      `@thicket/linux-x64-gnu is version 9.9.9, the program ${version}`,
    );
    expect(() => load({ packages: { 'linux-x64-gnu': packageOf(() => ({ version: () => '9.9.8' })) } })).toThrow(
      `@thicket/linux-x64-gnu is version 9.9.8, the program ${version}`,
    );
  });

  test('keeps every reason in one line', () => {
    const old = packageOf(() => {
      throw new Error("/lib/libc.so.6: version `GLIBC_2.28' not found\nsecond line");
    });
    const local = { checkout: true, file: () => undefined };
    const attempt = (): unknown => load({ packages: { 'linux-x64-gnu': old }, local });
    expect(attempt).toThrow(
      "the native addon can't be loaded (build/Release/thicket_addon.node isn't built; @thicket/linux-x64-gnu fails: /lib/libc.so.6: version `GLIBC_2.28' not found): run npm run build",
    );
    expect(attempt).toThrow(expect.objectContaining({ code: 'BACKEND_UNAVAILABLE' }));
  });
});
