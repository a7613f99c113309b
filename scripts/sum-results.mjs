// Sums the machine-readable results in a folder; prints «N passed, N failed» and exits 1 on any failure. A runner that left no result counts as a failure.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

const folder = process.argv[2];
let passed = 0;
let failed = 0;

for (const name of ['unit.json', 'integration.json']) {
  try {
    const result = JSON.parse(readFileSync(join(folder, name), 'utf8'));
    passed += result.numPassedTests;
    failed += result.numFailedTests + result.numRuntimeErrorTestSuites;
  } catch {
    console.error(`no result from jest (${name})`);
    failed += 1;
  }
}

const cargo = readFileSync(join(folder, 'cargo.txt'), 'utf8');
const lines = [...cargo.matchAll(/^test result: \w+\. (\d+) passed; (\d+) failed/gm)];
for (const [, ok, bad] of lines) {
  passed += Number(ok);
  failed += Number(bad);
}
if (lines.length === 0 || /^error(\[|:)/m.test(cargo)) {
  console.error('cargo test did not finish');
  failed += 1;
}

try {
  const suite = readFileSync(join(folder, 'ctest.xml'), 'utf8');
  const count = (name) => {
    const value = Number(new RegExp(`<testsuite [^>]*\\b${name}="(\\d+)"`, 's').exec(suite)?.[1]);
    if (!Number.isInteger(value)) throw new TypeError(`no ${name}`);
    return value;
  };
  const bad = count('failures') + count('disabled') + count('skipped');
  passed += count('tests') - bad;
  failed += bad;
} catch {
  console.error('no result from ctest');
  failed += 1;
}

console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 && passed > 0 ? 0 : 1;
