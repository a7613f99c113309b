/** What bench/userspace found, as Markdown. */
import { spread } from '../shared/statistics.js';
import type { UserSpace, UserSpaceTunnel } from '../userspace/results.js';
import { full, markdown } from './markdown.js';

const NAMES: Readonly<Record<UserSpaceTunnel, string>> = {
  native: 'Thicket, addon',
  wasm: 'Thicket, WASM',
  hypertele: 'hypertele (two ends, no relay)',
};

export function userSpaceParts({ runs, slow, seconds, rounds, versions }: UserSpace): string[] {
  const tunnels = (Object.keys(NAMES) as UserSpaceTunnel[]).filter((tunnel) => runs.some((run) => run.tunnel === tunnel));
  const rows = tunnels.map((tunnel) => {
    const own = runs.filter((run) => run.tunnel === tunnel);
    const speed = (direction: string): string => full(spread(own.filter((run) => run.direction === direction).map(({ value }) => value)));
    const slowly = slow.find((run) => run.tunnel === tunnel);
    const name = tunnel === 'hypertele' ? `${NAMES[tunnel]} ${versions.hypertele}` : NAMES[tunnel];
    return [
      name,
      speed('up'),
      speed('down'),
      full(spread(own.map(({ cpuPerGB }) => cpuPerGB))),
      Math.max(...own.flatMap(({ residentMiB }) => residentMiB)).toFixed(0),
      slowly === undefined ? '' : Math.max(...slowly.mostMiB).toFixed(0),
    ];
  });
  const what = `TCP through viewer, relay and gateway, forwarded at the viewer: ${rounds} runs of ${seconds} s by turns. Memory is that of the largest process.`;
  const head = ['', 'up, Mbit/s', 'down, Mbit/s', 'CPU s/GB', 'resident, MiB', 'beside a slow reader, at most, MiB'];
  return [what, markdown(head, rows)];
}
