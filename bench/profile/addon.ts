/** The Rust addon with symbols, in place of the one that ships for as long as this process runs. */
import { copyFileSync, existsSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { LabError, repository } from '../../test/lab/index.js';

const PLACE = join(repository, 'build/Release/thicket_addon.node');
/** Compiled by `build_profile` of scripts/common.sh. */
const PROFILED = join(repository, 'native/target/profiled/release/libthicket_addon.so');

/** By renaming: a process that has the other one open keeps it. Should this process be killed, the next build puts things right. */
export function useSymbols(): void {
  if (!existsSync(PROFILED)) throw new LabError(`${PROFILED} is not there: build it by npm run bench -- profile`);
  const aside = `${PLACE}.shipped`;
  copyFileSync(PLACE, aside);
  process.once('exit', () => renameSync(aside, PLACE));
  const next = `${PLACE}.profiled`;
  copyFileSync(PROFILED, next);
  renameSync(next, PLACE);
  rmSync(next, { force: true });
}
