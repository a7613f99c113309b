/** Figures of one round against each other: whatever the machine did in that round hit both. */
import type { Run, TestName, Topology } from './results.js';

export interface Which {
  readonly tunnel: string;
  readonly topology: Topology;
  readonly test: TestName;
}

export function runsOf(runs: readonly Run[], { tunnel, topology, test }: Which): Run[] {
  return runs.filter((run) => run.tunnel === tunnel && run.topology === topology && run.test === test);
}

/** `a : b`, round by round; empty when either wasn't run. */
export function ratios(runs: readonly Run[], a: Which, b: Which, figure: (run: Run) => number | undefined = (run) => run.value): number[] {
  const others = new Map(runsOf(runs, b).map((run) => [run.round, figure(run)]));
  return runsOf(runs, a).flatMap((run) => {
    const [own, other] = [figure(run), others.get(run.round)];
    return own === undefined || other === undefined || other === 0 ? [] : [own / other];
  });
}
