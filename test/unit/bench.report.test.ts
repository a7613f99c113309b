import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Isolation, Load, ShareRun } from '../../bench/isolation/results.js';
import { largest, readStacks, writeStacks } from '../../bench/profile/stacks.js';
import { charts } from '../../bench/report/charts.js';
import { historyLine } from '../../bench/report/history.js';
import { FIGURES, readReadme, readRecordedResults, withFigures } from '../../bench/report/readme.js';
import { document, summary } from '../../bench/report/table.js';
import { targets } from '../../bench/report/targets.js';
import type { Results } from '../../bench/shared/results.js';
import { digits, quantile, spread } from '../../bench/shared/statistics.js';
import { fallen, isGate } from '../../bench/tunnel/gate.js';
import { between } from '../../bench/tunnel/measure.js';
import { ratios } from '../../bench/tunnel/ratios.js';
import type { Run, TestName, Topology } from '../../bench/tunnel/results.js';

const circumstances = (avx512: boolean) => ({
  begun: '2026-11-24T12:00:00.000Z',
  quick: false,
  machine: { cpu: 'a processor', cores: 2, memoryMiB: 1_000, kernel: '6.1', avx2: true, avx512 },
  versions: { thicket: '0.1.0', commit: 'abc', node: 'v20', rustc: '1.90' },
  loadBefore: 0.1,
});

function runs(tunnel: string, topology: Topology, test: TestName, values: readonly number[], more: Partial<Run> = {}): Run[] {
  return values.map((value, round) => ({ round, topology, tunnel, test, value, unit: 'Gbit/s', load: 1, ...more }));
}

function results(all: readonly Run[], avx512 = false): Results {
  const tunnels = { thicket: '0.1.0', 'wireguard-go': 'v1', nebula: 'v2', 'no tunnel': '' };
  const tunnel = { tunnels, seconds: 4, rounds: 3, offload: 'csum', bareNodeMiB: 40, runs: all };
  return { schema: 1, suites: { tunnel: { ...tunnel, run: circumstances(avx512) } } };
}

const verdictOf = (all: Results, what: RegExp) => targets(all).find((row) => what.test(row.what));

describe('the figures that the repository keeps', () => {
  test("the README's table is what the recorded figures make of it", () => {
    expect(withFigures(readReadme(), readRecordedResults())).toBe(readReadme());
  });

  test('so are the whole table and the pictures', () => {
    const recorded = readRecordedResults();
    for (const [name, content] of Object.entries({ 'table.md': document(recorded), ...charts(recorded) })) {
      expect(readFileSync(join(FIGURES, name), 'utf8')).toBe(content);
    }
  });
});

describe('statistics', () => {
  test('quantiles lie between neighbours', () => {
    expect(spread([3, 1, 2])).toEqual({ median: 2, least: 1, most: 3, runs: 3 });
    expect(quantile([1, 2, 3, 4], 0.5)).toBe(2.5);
    expect(quantile([], 0.5)).toBeNaN();
  });

  test('figures are rounded to what says enough', () => {
    expect([1.234, 12.34, 1_234.5, 0, Number.NaN].map(digits)).toEqual(['1.23', '12.3', '1,235', '0.00', '–']);
  });
});

describe('ratios', () => {
  const all = [...runs('thicket', 'relay', 'tcp1 up', [4, 6]), ...runs('wireguard-go', 'relay', 'tcp1 up', [2, 2, 5])];
  const own = { tunnel: 'thicket', topology: 'relay', test: 'tcp1 up' } as const;

  test('compare figures of the same round, and no others', () => {
    expect(ratios(all, own, { ...own, tunnel: 'wireguard-go' })).toEqual([2, 3]);
    expect(ratios(all, own, { ...own, tunnel: 'nebula' })).toEqual([]);
  });

  test('that fall below half of what was recorded are told, a half is not', () => {
    const recorded = [...runs('thicket', 'relay', 'tcp1 up', [4]), ...runs('wireguard-go', 'relay', 'tcp1 up', [1])];
    const now = (value: number) => [...runs('thicket', 'relay', 'tcp1 up', [value]), ...runs('wireguard-go', 'relay', 'tcp1 up', [1])];
    expect(fallen(recorded, now(2))).toEqual([]);
    expect(fallen(recorded, now(1.9))).toEqual(['relay, tcp1 up, Thicket : wireguard-go: 1.90, recorded 4.00']);
    expect(fallen([], now(1))).toEqual([]);
  });

  test('that are recorded must be measured, and some must be recorded', () => {
    const recorded = [...runs('thicket', 'relay', 'tcp1 up', [4]), ...runs('wireguard-go', 'relay', 'tcp1 up', [1])];
    expect(fallen(recorded, runs('thicket', 'relay', 'tcp1 up', [4]))).toEqual([
      'relay, tcp1 up, Thicket : wireguard-go: NaN, recorded 4.00',
    ]);
    expect(isGate(recorded)).toBe(false);
    expect(isGate(recorded.flatMap((run) => [run, { ...run, topology: 'direct' as const }]))).toBe(true);
    expect(isGate(readRecordedResults().suites.tunnel?.runs ?? [])).toBe(true);
  });
});

describe('targets', () => {
  const relay = (up: number, down: number) => [
    ...runs('thicket', 'relay', 'tcp1 up', [up]),
    ...runs('wireguard-go', 'relay', 'tcp1 up', [1]),
    ...runs('thicket', 'relay', 'tcp1 down', [down]),
    ...runs('wireguard-go', 'relay', 'tcp1 down', [1]),
  ];
  const what = /^one relay, TCP.*wireguard/;

  test('are reached when the worse direction reaches them', () => {
    expect(verdictOf(results(relay(4, 3.5)), what)?.verdict).toBe('reached');
    expect(verdictOf(results(relay(4, 3.4)), what)?.verdict).toBe('not reached');
  });

  test('are the stretch ones on a processor with AVX-512', () => {
    expect(verdictOf(results(relay(4, 4), true), what)?.verdict).toBe('not reached');
    expect(verdictOf(results(relay(5, 5), true), what)?.verdict).toBe('reached');
  });

  test('may be upper bounds, and the relay counts with the most memory that it had', () => {
    const memory = (mib: number) =>
      results([
        ...runs('thicket', 'relay', 'tcp1 up', [1], { relayMiB: 45 }),
        ...runs('thicket', 'relay', 'tcp1 down', [1], { relayMiB: mib }),
      ]);
    expect(verdictOf(memory(60), /resident/)?.verdict).toBe('reached');
    expect(verdictOf(memory(64), /resident/)?.verdict).toBe('not reached');
  });

  test('of what was not run are not measured', () => {
    const rows = targets({ schema: 1, suites: {} });
    expect(new Set(rows.map(({ verdict }) => verdict))).toEqual(new Set(['not measured']));
  });
});

describe('isolation', () => {
  const share = (load: Load, far: ShareRun['far'], loaded: number): ShareRun => ({
    ...{ round: 0, load, far, alone: 20, loaded, strength: 50, unit: 'kpps' },
  });
  const all = (shares: readonly ShareRun[], more: Partial<Isolation> = {}): Results => {
    const none = { seconds: 2, rounds: 1, bitsPerSecond: 20e6, packetBytes: 1_316, joins: [], pings: [], delays: [] };
    return { schema: 1, suites: { isolation: { ...none, ...more, shares, run: circumstances(true) } } };
  };

  test("the worst load counts, but not what the flow's own gateway has to do with it", () => {
    const shares = [share('tcp', 'other', 20), share('udp200', 'other', 18), share('udp1316', 'same', 2)];
    expect(verdictOf(all(shares), /^a flow beside another child/)).toMatchObject({ measured: { median: 0.9 }, verdict: 'reached' });
    expect(verdictOf(all([...shares, share('udp1316', 'other', 17)]), /^a flow beside another/)?.verdict).toBe('not reached');
    expect(verdictOf(all(shares), /made-up handshakes a second/)?.verdict).toBe('not measured');
  });

  test('the slowest join counts, and the slower of two pings', () => {
    const joins = [1, 11].map((seconds, round) => ({ round, flooded: true, seconds }));
    expect(verdictOf(all([], { joins }), /^a new child/)).toMatchObject({ measured: { median: 11 }, verdict: 'not reached' });
    const ping = { round: 0, p99: 30, stream: 90 };
    const pings = [
      { ...ping, median: 3 },
      { ...ping, median: 21, limit: 100 },
    ];
    expect(verdictOf(all([], { pings }), /^ping beside/)).toMatchObject({ measured: { median: 21 }, verdict: 'not reached' });
  });

  test('has a table of its own, also beside the tunnels in the README', () => {
    const { suites } = all([share('udp200', 'other', 18)]);
    const text = summary({ schema: 1, suites: { ...results(runs('thicket', 'direct', 'tcp1 up', [3])).suites, ...suites } });
    expect(text).toContain("| beside another child's flood of small datagrams | 90 % |");
    expect(document({ schema: 1, suites })).toContain('| 50.0 kpps | 20.0 | 18.0 | 0.90 |');
  });
});

describe('trains', () => {
  const none = [0, 0, 0, 0, 0, 0, 0];

  test('are counted where the payload is sealed and where it is opened', () => {
    const before = { sealed: [5, ...none.slice(1)], opened: none };
    const client = { sealed: [6, 0, 0, 0, 0, 0, 9], opened: [7, ...none.slice(1)] };
    const far = { sealed: [8, ...none.slice(1)], opened: [0, 0, 0, 0, 0, 3, 0] };
    expect(between([before, before], [client, far], 'tcp1 up')).toEqual({ sealed: [1, 0, 0, 0, 0, 0, 9], opened: far.opened });
    expect(between([before, before], [client, far], 'tcp1 down')).toEqual({ sealed: [3, ...none.slice(1)], opened: client.opened });
  });

  test('are told in percent of the calls', () => {
    const trains = { sealed: [1, 0, 0, 0, 0, 0, 3], opened: none };
    expect(document(results(runs('thicket', 'relay', 'tcp1 up', [3, 4], { trains })))).toContain(
      '| one relay: TCP, one stream, up | 25 / – | 0 / – | 0 / – | 0 / – | 0 / – | 0 / – | 75 / – |',
    );
    expect(document(results(runs('thicket', 'relay', 'tcp1 up', [3])))).not.toContain('trains are');
  });
});

describe('the history', () => {
  test('holds in one line what was measured, of which commit, on what machine', () => {
    const line = historyLine(results(relayRuns(4)), new Date('2026-11-25T00:00:00Z'));
    expect(line.endsWith('}\n')).toBe(true);
    expect(JSON.parse(line)).toMatchObject({
      at: '2026-11-25T00:00:00.000Z',
      commit: 'abc',
      machine: { cores: 2 },
      figures: { "one relay, TCP, one stream : wireguard-go's": { value: 4, unit: '×', reached: true } },
    });
    expect(line).not.toContain('cameras');
  });

  const relayRuns = (value: number) => [...runs('thicket', 'relay', 'tcp1 up', [value]), ...runs('wireguard-go', 'relay', 'tcp1 up', [1])];
});

describe('profiles', () => {
  const folded = 'node-12;read;copy 3\nswapper-0;idle 900\niperf3-99;write 1\nnode-12;write 4\n';

  test('name processes by their place, and leave idle processors out', () => {
    const stacks = readStacks(folded, new Map([[12, 'mid']]));
    expect(writeStacks(stacks)).toBe('mid (node);read;copy 3\niperf3;write 1\nmid (node);write 4\n');
  });

  test('sum what is the same, the largest first', () => {
    const parts = largest(readStacks(folded, new Map()), 1, ({ frames }) => frames.at(-1) ?? '');
    expect(parts).toEqual([{ name: 'write', percent: 62.5 }]);
  });
});

describe('tables', () => {
  test('leave out rows that nobody ran, and say how busy the machine was', () => {
    const text = summary(results(runs('thicket', 'direct', 'tcp1 up', [3, 4, 5], { cpuPerGB: 2 })));
    expect(text).toContain('| no relay: TCP, one stream, Gbit/s | 4.00 | | | |');
    expect(text).toContain('| no relay: processor seconds per GB, all its processes | 2.00 | | | |');
    expect(text).toContain('load before: 0.1');
    expect(text).not.toContain('ping');
  });

  test('the README must have a place for them', () => {
    expect(() => withFigures('# Nothing', results([]))).toThrow('no place for figures');
  });
});
