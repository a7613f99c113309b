/** Rekeys lose nothing: two numbered flows of 20 Mbit/s, one of them reordered on its way, through sessions that change keys every 2 s. */
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { type Process, repository } from '../lab/index.js';
import { World, type WorldNode } from '../world/index.js';

const SECONDS = 32;
const MBIT = 20;
/** Of a datagram, with its number. */
const SIZE = 1200;
const REKEYS = 14;
const PORT = 5000;
/** Nothing may be missing this close to a rekey, seconds. */
const NEAR = 0.1;
const POLL_MS = 50;
const FIXTURE = join(repository, 'test', 'fixtures', 'numbered.py');

let world: World;
let addresses: Map<WorldNode, string>;

beforeAll(async () => {
  world = await World.create({
    nodes: ['root', 'mid', 'gw', 'viewer', 'viewer2'],
    devices: false,
    rekey: '2s',
    configure: (name, config) =>
      name === 'gw'
        ? {
            ...config,
            endpoints: [{ name: 'files', services: [{ port: `udp/${PORT}`, target: `192.168.1.22:${PORT}`, allow: ['group:family'] }] }],
          }
        : config,
  });
  const server = await world.lab.host('files').spawn(['python3', FIXTURE, 'serve', '192.168.1.22', String(PORT)]);
  await server.waitForLine(/^ready$/);
  addresses = new Map();
  for (const name of ['viewer', 'viewer2'] as const)
    addresses.set(world.node(name), await world.node(name).lookup('files.home.thicket', 4));
  await world.lab.shim('viewer2', 'mid', { reorderPercent: 1 });
}, 120_000);

afterAll(async () => {
  await world?.destroy();
}, 30_000);

test.each([1, 2, 3])(
  'run %i of 3: 14 rekeys and more, and no number is missing within 100 ms of one, reordered or not',
  async (run) => {
    const flows = await Promise.all([flow(world.node('viewer'), 2 * run), flow(world.node('viewer2'), 2 * run + 1)]);
    for (const { sent, ends, missing } of flows) {
      expect(sent).toBeGreaterThan(0.9 * ((MBIT * 1e6 * SECONDS) / (8 * SIZE)));
      for (const rekeys of ends) {
        expect(rekeys.length).toBeGreaterThanOrEqual(REKEYS);
        for (const { after, before } of rekeys) expect(missing.filter((at) => at > after - NEAR && at < before + NEAR)).toEqual([]);
      }
    }
  },
  90_000,
);

/** A rekey: the counter rose between these moments, seconds of the machine's monotonic clock. */
interface Rekey {
  readonly after: number;
  readonly before: number;
}

interface Flow {
  readonly sent: number;
  /** At the viewer and at the gateway: each takes the new keys into use at a moment of its own. */
  readonly ends: readonly (readonly Rekey[])[];
  /** When the numbers were sent that did not arrive, or were not answered. */
  readonly missing: readonly number[];
}

async function flow(node: WorldNode, number: number): Promise<Flow> {
  const address = addresses.get(node) ?? '';
  const sender = await node.host.spawn(['python3', FIXTURE, 'send', address, ...[PORT, number, MBIT, SECONDS].map(String)]);
  const gw = world.node('gw');
  const ends = await Promise.all([rekeysOf(node, gw.name, sender), rekeysOf(gw, node.name, sender)]);
  const { code } = await sender.exit;
  expect({ code, complaints: sender.stderr }).toEqual({ code: 0, complaints: [] });
  const [sent, missing, unanswered] = sender.stdout;
  const times = (line = ''): number[] =>
    line
      .split(' ')
      .slice(1)
      .map((word) => Number(word.split('@')[1]));
  return { sent: Number(sent?.split(' ')[1]), ends, missing: [...times(missing), ...times(unanswered)].filter((at) => !Number.isNaN(at)) };
}

/** Watches the rekey counter of the session with the far end (a node, or its one endpoint) as long as the sender runs. */
async function rekeysOf(end: WorldNode, far: string, sender: Process): Promise<Rekey[]> {
  const rekeys: Rekey[] = [];
  let [count, after] = [await counter(end, far), monotonic()];
  while (sender.running) {
    const [next, before] = [await counter(end, far), monotonic()];
    for (; count < next; count += 1) rekeys.push({ after, before });
    // A session begun anew would count from nothing.
    expect(next).toBe(count);
    after = before;
    await delay(POLL_MS);
  }
  return rekeys;
}

async function counter(end: WorldNode, far: string): Promise<number> {
  const { sessions } = await end.status();
  const name = far === 'gw' ? 'files' : far;
  return sessions.find((session) => session.name === name)?.rekeys ?? Number.NaN;
}

const monotonic = (): number => Number(process.hrtime.bigint()) / 1e9;
