/** The only gate on time: the ratio to a peer below half of what was recorded. */
import { median } from '../shared/statistics.js';
import { ratios } from './ratios.js';
import type { Run, TestName, Topology } from './results.js';

const GATED: readonly { readonly test: TestName; readonly topology: Topology }[] = [
  { test: 'tcp1 up', topology: 'direct' },
  { test: 'tcp1 up', topology: 'relay' },
];

export const isGated = (step: { readonly test: TestName; readonly topology: Topology }): boolean =>
  GATED.some(({ test, topology }) => test === step.test && topology === step.topology);

/** A line for each ratio that has fallen so far; none for what only one side ran. */
export function fallen(recorded: readonly Run[], now: readonly Run[]): string[] {
  const peers = [...new Set(recorded.map(({ tunnel }) => tunnel))].filter((name) => name !== 'thicket' && name !== 'no tunnel');
  return GATED.flatMap((step) =>
    peers.flatMap((peer) => {
      const ratio = (runs: readonly Run[]): number => median(ratios(runs, { tunnel: 'thicket', ...step }, { tunnel: peer, ...step }));
      const [was, is] = [ratio(recorded), ratio(now)];
      return is < was / 2 ? [`${step.topology}, ${step.test}, Thicket : ${peer}: ${is.toFixed(2)}, recorded ${was.toFixed(2)}`] : [];
    }),
  );
}
