/** The packages as a user installs them: offline, without compilers, by npm, Yarn and pnpm. scripts/package.sh makes them before. */
import { readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import type { DoctorDocument } from '../../ts/doctor/index.js';
import { Shop, tarball, version } from '../packages/shop.js';

const HERE = 'linux-x64-gnu';
const dependent = { name: 'dependent', version: '1.0.0', private: true, dependencies: { thicket: version } };

let shop: Shop;
beforeAll(async () => {
  shop = await Shop.open();
});
afterAll(() => shop?.close());

/** Where npm and pnpm put the command. */
const command = (folder: string): readonly string[] => ['sh', '-c', 'exec "$0" "$@"', join(folder, 'node_modules/.bin/thicket')];
const backend = (document: DoctorDocument): string => document.checks.find(({ name }) => name === 'backend')?.text ?? '';

/** No prebuilt addon could be loaded, and what is said about that in one line. */
function expectFallback(document: DoctorDocument, reason: string): void {
  expect(document).toMatchObject({ ok: true, backend: { name: 'wasm', from: 'thicket', shortfall: expect.stringContaining(reason) } });
  expect(backend(document)).toMatch(/^wasm, not native: [^\n]*$/);
}

describe('npm', () => {
  test('installs the command, the addons of this place and nothing else, from a registry', async () => {
    const prefix = shop.place('global');
    await shop.npm(['install', '--global', '--prefix', prefix, 'thicket']);
    const installed = await shop.exec(['sh', '-c', `cd ${prefix}/lib/node_modules && echo * thicket/node_modules/@thicket/*`]);
    expect(installed.stdout.trim()).toBe(`thicket thicket/node_modules/@thicket/${HERE}`);
    const thicket = [join(prefix, 'bin/thicket')];
    expect((await shop.exec([...thicket, '--version'])).stdout).toBe(`thicket ${version}\naddon ${version}\nkernel ${version}`);
    const document = await shop.doctor(thicket);
    expect(document).toMatchObject({ ok: true, version, backend: { name: 'native', from: `@thicket/${HERE}`, shortfall: null } });
    expect(shop.asked).toEqual([]);
  });

  test('installs from two tarballs without a registry', async () => {
    const folder = shop.place('tarballs', { 'package.json': { name: 'dependent', private: true } });
    const registry = { npm_config_registry: 'http://127.0.0.1:1/', npm_config_fetch_retries: '0' };
    await shop.npm(['install', tarball('thicket'), tarball(`@thicket/${HERE}`)], { cwd: folder, env: registry });
    expect(await shop.doctor(command(folder))).toMatchObject({ backend: { name: 'native', from: `@thicket/${HERE}` } });
  });

  test('with --omit=optional leaves the addons out: that is said, and what to do', async () => {
    const folder = shop.place('omit', { 'package.json': dependent });
    await shop.npm(['install', '--omit=optional'], { cwd: folder });
    expectFallback(await shop.doctor(command(folder)), `@thicket/${HERE} isn't installed): run npm install --include=optional`);
    const { stdout } = await shop.exec([...command(folder), '--version']);
    expect(stdout).toMatch(/^thicket \S+\naddon missing \(.*\)\nkernel missing \(.*\)$/);
    await shop.npm(['install', '--include=optional'], { cwd: folder });
    expect(await shop.doctor(command(folder))).toMatchObject({ backend: { name: 'native' } });
  });

  test('with the addons of another libc: that is said, and none is loaded', async () => {
    const folder = shop.place('musl', { 'package.json': dependent });
    await shop.npm(['install', '--libc=musl'], { cwd: folder });
    expectFallback(await shop.doctor(command(folder)), `@thicket/${HERE} isn't installed, only @thicket/linux-x64-musl)`);
    // Told to take them all the same, it says what the dynamic loader says.
    const forced = await shop.doctor(command(folder), { env: { THICKET_LIBC: 'musl' } });
    expectFallback(forced, '@thicket/linux-x64-musl fails: ');
  });

  test('with a lock file of another platform finds the addons of this one, or says that they are missing and what to do', async () => {
    const folder = shop.place('lock', { 'package.json': dependent });
    await shop.npm(['install', '--cpu=arm64', '--libc=musl'], { cwd: folder });
    expect(readFileSync(join(folder, 'package-lock.json'), 'utf8')).toContain(`@thicket/${HERE}`);
    await shop.npm(['ci'], { cwd: folder });
    expect(await shop.doctor(command(folder))).toMatchObject({ backend: { name: 'native', from: `@thicket/${HERE}` } });
  });
});

describe('a package that something happened to', () => {
  let folder: string;
  const addon = (): string => join(folder, `node_modules/@thicket/${HERE}/thicket_addon.node`);
  let good: Buffer;
  beforeAll(async () => {
    folder = shop.place('damaged', { 'package.json': dependent });
    await shop.npm(['install'], { cwd: folder });
    good = readFileSync(addon());
  });

  test.each([
    ['cut', () => truncateSync(addon(), 500_000)],
    ['emptied', () => truncateSync(addon(), 0)],
    [
      'changed in one bit',
      () => writeFileSync(addon(), Buffer.concat([good.subarray(0, 700_000), Buffer.of((good[700_000] ?? 0) ^ 1), good.subarray(700_001)])),
    ],
  ])('an addon that was %s is not loaded, and one line says so', async (_, damage) => {
    damage();
    expectFallback(
      await shop.doctor(command(folder)),
      `@thicket/${HERE} has a damaged thicket_addon.node (its checksum differs)): remove node_modules`,
    );
    const forced = await shop.exec([...command(folder), 'doctor', '--json'], { check: false, env: { THICKET_BACKEND: 'native' } });
    expect(forced.code).toBe(1);
    expect(JSON.parse(forced.stdout)).toMatchObject({ ok: false, backend: null });
  });

  test('addons of another version are not loaded', async () => {
    writeFileSync(addon(), good);
    const manifest = join(folder, `node_modules/@thicket/${HERE}/package.json`);
    writeFileSync(manifest, readFileSync(manifest, 'utf8').replace(`"version": "${version}"`, '"version": "0.0.9"'));
    expectFallback(await shop.doctor(command(folder)), `@thicket/${HERE} is version 0.0.9, the program ${version}`);
  });
});

describe('other package managers', () => {
  test('pnpm', async () => {
    const folder = shop.place('pnpm', { 'package.json': dependent });
    await shop.tool('pnpm/package/bin/pnpm.cjs', ['install', '--store-dir', join(folder, 'store')], { cwd: folder });
    expect(await shop.doctor(command(folder))).toMatchObject({ backend: { name: 'native', from: `@thicket/${HERE}` } });
  });

  test('Yarn 1, which installs those of both libcs', async () => {
    const folder = shop.place('yarn1', { 'package.json': dependent });
    await shop.tool('yarn/package/bin/yarn.js', ['install', '--no-progress', '--cache-folder', join(folder, 'cache')], { cwd: folder });
    expect(await shop.doctor(command(folder))).toMatchObject({ backend: { name: 'native', from: `@thicket/${HERE}` } });
  });

  test.each(['node-modules', 'pnp'])('Yarn 4, %s', async (linker) => {
    const folder = shop.place(`yarn4-${linker}`, { 'package.json': dependent, 'yarn.lock': '', '.yarnrc.yml': `nodeLinker: ${linker}\n` });
    const yarn = '@yarnpkg/cli-dist/package/bin/yarn.js';
    await shop.tool(yarn, ['install'], { cwd: folder });
    const { stdout } = await shop.tool(yarn, ['run', 'thicket', 'doctor', '--json'], { cwd: folder, check: false });
    expect(JSON.parse(stdout)).toMatchObject({ backend: { name: 'native', from: `@thicket/${HERE}` } });
  });
});
