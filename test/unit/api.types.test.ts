/** The types that ship: a program is compiled against them, as against any package. */
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { expect, test } from '@jest/globals';
import type { NodeConfig } from '../../ts/api/types.js';
import type { ConfigShape } from '../../ts/config/schema.js';
import type * as z from '../../ts/zod.js';
import { repository } from '../lab/index.js';

const run = promisify(execFile);

test('what a program writes compiles, and what it must not write does not, with nothing but Node.js and what ships', async () => {
  const tsc = join(repository, 'node_modules', '.bin', 'tsc');
  const { stdout } = await run(tsc, ['-p', join(repository, 'test', 'types'), '--listFiles', '--pretty', 'false'], {
    cwd: repository,
  }).catch((error: { readonly stdout?: string }) => ({ stdout: `failed:\n${error.stdout}` }));
  expect(stdout).not.toMatch(/^failed/);
  const others = stdout
    .split('\n')
    .filter((file) => file !== '' && !/\/node_modules\/(typescript|@typescript\/[^/]+|@types\/node|undici-types)\//.test(file));
  expect(others.map((file) => file.slice(repository.length + 1)).sort()).toEqual([
    'dist/api/errors.d.ts',
    'dist/api/network.d.ts',
    'dist/api/node.d.ts',
    'dist/api/types.d.ts',
    'dist/errors.d.ts',
    'dist/index.d.ts',
    'test/types/consumer.ts',
  ]);
});

test('the package has one entry, with its types', async () => {
  const { exports } = JSON.parse(readFileSync(join(repository, 'package.json'), 'utf8')) as { exports: Record<string, unknown> };
  expect(exports).toEqual({ '.': { types: './dist/index.d.ts', default: './dist/index.js' }, './package.json': './package.json' });
  const program = `import('thicket').then((api) => console.log(Object.keys(api).join()))`;
  const { stdout } = await run(process.execPath, ['-e', program], { cwd: repository });
  expect(stdout.trim()).toBe('Network,Node,OverlayError,ThicketError,isThicketError');
});

/** Objects and arrays that nobody promises to leave alone. */
type Mutable<T> = T extends object ? { -readonly [K in keyof T]: Mutable<T[K]> } : T;
type Same<A, B> = [A] extends [B] ? ([B] extends [A] ? true : false) : false;

test('a configuration object may have just what thicket.yaml may have', () => {
  const same: Same<Mutable<NodeConfig>, z.input<typeof ConfigShape>> = true;
  expect(same).toBe(true);
});
