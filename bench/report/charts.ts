/** Results as pictures: medians as bars, and from the least to the most of the runs a line. */
import * as echarts from 'echarts';
import type { Results } from '../shared/results.js';
import type { Spread } from '../shared/statistics.js';
import type { Run, TestName, Topology } from '../tunnel/results.js';
import { figure } from './targets.js';

interface Bars {
  readonly title: string;
  readonly unit: string;
  readonly categories: readonly string[];
  readonly series: readonly { readonly name: string; readonly values: readonly (Spread | undefined)[] }[];
}

const SIZE = { width: 760, height: 360 };
const COLOURS = ['#2a7a4b', '#88498f', '#c8743a', '#8a8f98'];
const TOPOLOGIES: readonly (readonly [Topology, string])[] = [
  ['direct', 'no relay'],
  ['relay', 'one relay'],
  ['three', 'three relays'],
  ['dnat', 'one relay, DNAT'],
];

/** SVG documents by file name. */
export function charts(results: Results): Record<string, string> {
  const { tunnel, micro } = results.suites;
  const drawn: Record<string, string> = {};
  if (tunnel !== undefined) {
    const names = Object.keys(tunnel.tunnels);
    const bars = (title: string, unit: string, test: TestName, of?: (run: Run) => number | undefined): string =>
      draw({
        title,
        unit,
        categories: TOPOLOGIES.map(([, name]) => name),
        series: names.map((name) => ({
          name,
          values: TOPOLOGIES.map(([topology]) => figure(tunnel.runs, { tunnel: name, topology, test }, of)),
        })),
      });
    drawn['throughput.svg'] = bars('TCP, one stream, to the gateway', 'Gbit/s', 'tcp1 up');
    drawn['cpu.svg'] = bars('Processor time of all the tunnel’s processes', 's per GB', 'tcp1 up', (run) => run.cpuPerGB);
    drawn['datagrams.svg'] = bars('Datagrams of 200 bytes', 'thousands a second', 'udp200 up');
  }
  if (micro !== undefined) {
    const rows = micro.seal.filter(({ size }) => size === 1_400);
    const one = (nanoseconds: number): Spread => {
      const speed = 1_400 / nanoseconds;
      return { median: speed, least: speed, most: speed, runs: 1 };
    };
    drawn['seal.svg'] = draw({
      title: 'Packets of 1,400 bytes, one core',
      unit: 'GB/s',
      categories: rows.map(({ implementation }) => implementation),
      series: [
        { name: 'seal', values: rows.map(({ seal }) => one(seal)) },
        { name: 'open', values: rows.map(({ open }) => one(open)) },
      ],
    });
  }
  return drawn;
}

function draw({ title, unit, categories, series }: Bars): string {
  // Who has no bar needs no room beside the others.
  const used = series.filter(({ values }) => values.some((value) => value !== undefined));
  const rotated = categories.length > 6;
  const chart = echarts.init(null, null, { renderer: 'svg', ssr: true, ...SIZE });
  try {
    chart.setOption({
      animation: false,
      backgroundColor: '#ffffff',
      color: COLOURS,
      title: { text: title, left: 'center', textStyle: { fontSize: 15 } },
      legend: { bottom: 0, itemGap: 28, data: used.map(({ name }) => name) },
      grid: { left: rotated ? 140 : 60, right: 20, top: 50, bottom: rotated ? 130 : 60 },
      xAxis: { type: 'category', data: [...categories], axisLabel: { interval: 0, ...(rotated ? { rotate: 35 } : {}) } },
      yAxis: { type: 'value', name: unit },
      series: used.flatMap(({ name, values }, index) => [
        { name, type: 'bar' as const, data: values.map((value) => value?.median ?? null) },
        { name, type: 'custom' as const, z: 10, data: whiskers(values), renderItem: whisker(index, used.length) },
      ]),
    });
    return chart.renderToSVGString();
  } finally {
    chart.dispose();
  }
}

/** Category, least, most. */
function whiskers(values: readonly (Spread | undefined)[]): number[][] {
  return values.flatMap((value, at) => (value === undefined || value.runs < 2 ? [] : [[at, value.least, value.most]]));
}

function whisker(index: number, count: number): echarts.CustomSeriesOption['renderItem'] {
  return (_, api) => {
    const layout = api.barLayout?.({ count, barGap: '30%', barCategoryGap: '20%' })?.[index];
    const at = (value: number): number[] => api.coord?.([api.value(0), api.value(value)]) ?? [];
    const [low, high] = [at(1), at(2)];
    const x = (low[0] ?? 0) + (layout?.offsetCenter ?? 0);
    return { type: 'line', shape: { x1: x, y1: low[1] ?? 0, x2: x, y2: high[1] ?? 0 }, style: { stroke: '#222222', lineWidth: 1.5 } };
  };
}
