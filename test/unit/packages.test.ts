/** What must stay in step: the table of packages with the loader's, the release workflow with RELEASING.md, and the scripts with both. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { parse } from 'yaml';
import { selectTriple, triples } from '../../ts/addons/index.js';
import { repository, run } from '../lab/index.js';

const read = (file: string): string => readFileSync(join(repository, file), 'utf8');

interface Row {
  readonly triple: string;
  readonly name: string;
  readonly os: string;
  readonly cpu: string;
  readonly libc: 'glibc' | 'musl';
}
const { TABLE } = (await import(join(repository, 'scripts/package/table.mjs'))) as { readonly TABLE: readonly Row[] };

describe('the table of packages', () => {
  test("has a row for each triple that the loader knows, in npm's words for the same place", () => {
    expect(TABLE.map(({ triple }) => triple)).toEqual(triples);
    for (const { triple, name, os, cpu, libc } of TABLE) {
      expect(selectTriple(os, cpu, libc)).toBe(triple);
      expect(name).toBe(`@thicket/${triple}`);
    }
  });

  test('names packages that the loader asks for, by literal texts', () => {
    const source = read('ts/addons/sources.ts');
    for (const { name } of TABLE) {
      for (const file of ['package.json', 'thicket_addon.node', 'thicket_kernel.node']) expect(source).toContain(`'${name}/${file}'`);
    }
  });
});

describe('the release workflow', () => {
  interface Step {
    readonly name?: string;
    readonly run?: string;
  }
  const workflow = parse(read('.github/workflows/release.yml')) as {
    readonly jobs: Readonly<Record<string, { readonly permissions: Readonly<Record<string, string>>; readonly steps: readonly Step[] }>>;
  };
  const steps = Object.values(workflow.jobs).flatMap((job) => job.steps);
  const released = steps.flatMap(({ name, run: command }) => (name?.startsWith('release ') && command !== undefined ? [command] : []));

  test('runs what RELEASING.md says, in that order', () => {
    const block = /```sh\n([\s\S]*?)```/.exec(read('RELEASING.md'))?.[1] ?? '';
    expect(released).toEqual(
      block
        .trimEnd()
        .split('\n')
        .map((line) => line.replace(/\s*#.*$/, '')),
    );
    expect(released.length).toBeGreaterThan(3);
  });

  test('only runs scripts that are there', async () => {
    for (const command of released) {
      const [bash, script = ''] = command.split(' ');
      expect(bash).toBe('bash');
      await run(['bash', '-n', join(repository, script)]);
    }
  });

  test('may ask for what provenance needs', () => {
    expect(Object.values(workflow.jobs).map(({ permissions }) => permissions)).toEqual([{ contents: 'read', 'id-token': 'write' }]);
    expect(read('scripts/package/publish.sh')).toMatch(/npm publish .*--provenance/);
  });

  test('every file says the same version, and the changelog has it', async () => {
    const { version } = JSON.parse(read('package.json')) as { readonly version: string };
    const script = join(repository, 'scripts/package/tag.sh');
    const { stderr } = await run(['bash', script, `v${version}`], { check: false });
    // Until the day of the release the changelog has no date.
    expect(stderr.replace(`▸ CHANGELOG.md doesn't say ${version}`, '').trim()).toBe('');
    const other = await run(['bash', script, 'v99.0.0'], { check: false });
    expect(other.code).toBe(1);
    expect(other.stderr.trim().split('\n')).toHaveLength(6);
  });
});
