/**
 * Puts what the suites measured last into one document, tables and pictures, in bench/results, and a line into its history. With `--record` these become the figures that the repository
 * keeps (bench/figures), and the README's.
 *
 * `npm run bench -- report [--record]`
 */
import { appendFileSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { RESULTS, readSuites } from '../shared/results.js';
import { digits } from '../shared/statistics.js';
import { charts } from './charts.js';
import { historyLine } from './history.js';
import { FIGURES, readReadme, withFigures, writeReadme } from './readme.js';
import { document } from './table.js';
import { targets } from './targets.js';

const { values } = parseArgs({
  options: {
    record: { type: 'boolean', default: false },
    quick: { type: 'boolean' },
    gate: { type: 'boolean' },
    targets: { type: 'boolean' },
  },
});
const results = readSuites();
const files: Record<string, string> = {
  'results.json': `${JSON.stringify(results, null, 1)}\n`,
  'table.md': document(results),
  ...charts(results),
};
for (const folder of values.record ? [RESULTS, FIGURES] : [RESULTS]) {
  mkdirSync(folder, { recursive: true });
  for (const [name, content] of Object.entries(files)) writeFileSync(join(folder, name), content);
}
appendFileSync(join(RESULTS, 'history.jsonl'), historyLine(results, new Date()));
for (const { what, unit, atLeast, target, stretch, measured, verdict } of targets(results)) {
  const wanted = `${atLeast ? '≥' : '≤'} ${target}${stretch === undefined ? '' : ` (${stretch})`} ${unit}`;
  console.log(`${what.padEnd(66)}${wanted.padEnd(18)}${(measured === undefined ? '' : digits(measured.median)).padStart(8)}  ${verdict}`);
}
console.log('\nbench/results: results.json, history.jsonl, table.md and pictures');
if (values.record) {
  writeReadme(withFigures(readReadme(), results));
  console.log('recorded in bench/figures and README.md');
}
