/** One line a run: how the figures that have a target move from commit to commit. */
import type { Results } from '../shared/results.js';
import { targets } from './targets.js';

/** JSON and a line's end. A figure that wasn't measured is missing. */
export function historyLine(results: Results, at: Date): string {
  const { tunnel, micro, cameras, isolation } = results.suites;
  const run = (tunnel ?? micro ?? cameras ?? isolation)?.run;
  const measured = targets(results).flatMap(({ what, unit, measured: found, verdict }) =>
    found === undefined ? [] : [[what, { value: found.median, unit, reached: verdict === 'reached' }] as const],
  );
  const line = { at: at.toISOString(), ...run?.versions, quick: run?.quick, machine: run?.machine, figures: Object.fromEntries(measured) };
  return `${JSON.stringify(line)}\n`;
}
