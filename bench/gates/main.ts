/**
 * What noise can't touch: instructions per packet, sizes. Compares with bench/recorded.json, and fails where they are too far from it.
 *
 * `npm run bench -- gates [--record]`
 */
import { execFileSync } from 'node:child_process';
import { parseArgs } from 'node:util';
import { versions } from '../shared/machine.js';
import { instructions } from './instructions.js';
import { deviations, type Figures, RECORD, readRecorded, STAGES, writeRecorded } from './recorded.js';
import { sizes } from './sizes.js';

function report({ instructions, bytes }: Figures): void {
  console.log(`${'instructions a packet'.padEnd(34)}${STAGES.map((stage) => stage.padStart(10)).join('')}`);
  for (const [path, loads] of Object.entries(instructions)) {
    for (const [load, counts] of Object.entries(loads)) {
      console.log(`  ${`${path}, ${load}`.padEnd(32)}${STAGES.map((stage) => String(counts[stage]).padStart(10)).join('')}`);
    }
  }
  console.log('\nbytes');
  for (const [file, size] of Object.entries(bytes)) console.log(`  ${file.padEnd(42)}${String(size).padStart(12)}`);
}

const { values } = parseArgs({
  options: { record: { type: 'boolean', default: false }, quick: { type: 'boolean' }, gate: { type: 'boolean' } },
});
const figures: Figures = { instructions: await instructions(), bytes: sizes() };
report(figures);
if (values.record) {
  const valgrind = execFileSync('valgrind', ['--version'], { encoding: 'utf8' }).trim();
  const { rustc } = versions();
  writeRecorded({ with: { rustc, valgrind }, ...figures });
  console.log('\nrecorded in bench/recorded.json');
} else {
  const lines = deviations(readRecorded(), figures);
  for (const line of lines) console.error(line);
  if (lines.length > 0) {
    console.error(`\nif that is meant to be so: ${RECORD}`);
    process.exitCode = 1;
  }
}
