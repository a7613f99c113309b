/** The only gate on time: the ratio to a peer below half of what was recorded. */
import { median } from '../shared/statistics.js';
import { ratios, type Which } from './ratios.js';
import type { Run, TestName, Topology } from './results.js';

const GATED: readonly { readonly test: TestName; readonly topology: Topology }[] = [
  { test: 'tcp1 up', topology: 'direct' },
  { test: 'tcp1 up', topology: 'relay' },
];

export const isGated = (step: { readonly test: TestName; readonly topology: Topology }): boolean =>
  GATED.some(({ test, topology }) => test === step.test && topology === step.topology);

/** Whether there is something to compare with for each. */
export function isGate(recorded: readonly Run[]): boolean {
  return GATED.every((step) => peersOf(recorded).some((peer) => ratios(recorded, own(step), { tunnel: peer, ...step }).length > 0));
}

/** A line for each recorded ratio that has fallen so far, or that isn't measured any more. */
export function fallen(recorded: readonly Run[], now: readonly Run[]): string[] {
  return GATED.flatMap((step) =>
    peersOf(recorded).flatMap((peer) => {
      const ratio = (runs: readonly Run[]): number => median(ratios(runs, own(step), { tunnel: peer, ...step }));
      const [was, is] = [ratio(recorded), ratio(now)];
      if (Number.isNaN(was)) return [];
      // Not a number, where one side wasn't run, is no less than anything.
      return is >= was / 2 ? [] : [`${step.topology}, ${step.test}, Thicket : ${peer}: ${is.toFixed(2)}, recorded ${was.toFixed(2)}`];
    }),
  );
}

const own = (step: (typeof GATED)[number]): Which => ({ tunnel: 'thicket', ...step });

const peersOf = (runs: readonly Run[]): string[] =>
  [...new Set(runs.map(({ tunnel }) => tunnel))].filter((name) => name !== 'thicket' && name !== 'no tunnel');
