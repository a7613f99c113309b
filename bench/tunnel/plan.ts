/** What is run, how long and how often. */
import type { TestName, Topology } from './results.js';
import { TOPOLOGIES } from './results.js';

export interface Plan {
  readonly seconds: number;
  readonly rounds: number;
  readonly steps: readonly Step[];
}

export interface Step {
  readonly test: TestName;
  readonly topology: Topology;
  /** Only Thicket itself: its own figures are compared. */
  readonly alone: boolean;
}

const ALL: readonly TestName[] = [
  'tcp1 up',
  'tcp1 down',
  'tcp4 up',
  'tcp4 down',
  'udp200 up',
  'udp1316 up',
  'udp1316 down',
  'ping idle',
  'ping loaded',
];

/** Topologies of one test follow each other, so that what the machine does meanwhile hits them alike. */
const FULL: Plan = {
  seconds: 4,
  rounds: 5,
  steps: ALL.flatMap((test) => TOPOLOGIES.map((topology) => ({ test, topology, alone: topology === 'three' || topology === 'dnat' }))),
};

const QUICK: Plan = {
  seconds: 1,
  rounds: 3,
  steps: [
    { test: 'tcp1 up', topology: 'direct', alone: false },
    { test: 'tcp1 up', topology: 'relay', alone: false },
    { test: 'tcp1 up', topology: 'three', alone: true },
    { test: 'tcp1 up', topology: 'dnat', alone: true },
    { test: 'tcp1 down', topology: 'relay', alone: false },
    { test: 'tcp4 up', topology: 'relay', alone: true },
    { test: 'udp200 up', topology: 'direct', alone: false },
    { test: 'udp200 up', topology: 'relay', alone: false },
    { test: 'ping idle', topology: 'relay', alone: false },
  ],
};

/** What the targets compare, as long and as often as they want it: some minutes. */
const ABOUT_TARGETS: Plan = { seconds: 3, rounds: 5, steps: QUICK.steps };

export const plan = ({ quick, targets }: { readonly quick: boolean; readonly targets: boolean }): Plan =>
  targets ? ABOUT_TARGETS : quick ? QUICK : FULL;
