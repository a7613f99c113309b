/**
 * Throughput through a relay: viewer – root – gateway by Thicket, beside wireguard-go between the same three namespaces. The two take turns, so that
 * whatever else the machine does hits both. Prints a table and writes bench/results/tunnel.json.
 *
 * `npm run bench -- tunnel`, or `node build/programs/bench/tunnel/main.js [SECONDS A RUN [ROUNDS]]`
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Host, Lab, LabError, repository } from '../../test/lab/index.js';
import { World } from '../../test/world/index.js';
import { machine } from '../micro/machine.js';
import { type Direction, serve, throughput } from './iperf.js';
import { startWireGuard } from './wireguard.js';

const DIRECTIONS: readonly Direction[] = ['up', 'down'];
const PORT = 5201;
/** The gateway's own LAN address: what is measured ends at the gateway, as it does for the peer. */
const SERVER = '192.168.1.1';

interface Tunnel {
  readonly name: string;
  readonly address: string;
  /** Bytes that went through the relay so far. */
  relayedBytes(): Promise<number>;
}

interface Row {
  readonly direction: Direction;
  /** Bits per second, round by round. */
  readonly thicket: number[];
  readonly wireguard: number[];
}

async function main(): Promise<void> {
  const seconds = Number(process.argv[2] ?? 5);
  const rounds = Number(process.argv[3] ?? 3);
  const service = (port: string) => ({ port, target: `${SERVER}:${PORT}`, allow: ['group:family'], force: true });
  const world = await World.create({
    nodes: ['root', 'gw', 'viewer'],
    devices: false,
    siteDns: false,
    configure: (name, config) =>
      name === 'gw' ? { ...config, endpoints: [{ name: 'files', services: [service(`tcp/${PORT}`)] }] } : config,
  });
  try {
    await measure(world, seconds, rounds);
  } finally {
    await world.destroy();
  }
}

async function measure(world: World, seconds: number, rounds: number): Promise<void> {
  const [viewer, root, gw] = (['viewer', 'root', 'gw'] as const).map((name) => world.node(name));
  if (viewer === undefined || root === undefined || gw === undefined) return;
  await serve(gw.host);
  const peer = await startWireGuard(viewer.host, root.host, gw.host);
  const thicket: Tunnel = {
    name: 'thicket',
    address: await viewer.lookup('files.home.thicket', 4),
    relayedBytes: async () => (await root.status()).relay.bytes,
  };
  try {
    const rows = await compare(
      viewer.host,
      thicket,
      { name: 'wireguard-go', address: peer.server, relayedBytes: peer.relayedBytes },
      seconds,
      rounds,
    );
    report(rows, peer.version, seconds, (await viewer.status()).interface?.offload ?? 'none');
  } finally {
    await peer.stop();
  }
}

async function compare(client: Host, thicket: Tunnel, wireguard: Tunnel, seconds: number, rounds: number): Promise<Row[]> {
  const rows: Row[] = DIRECTIONS.map((direction) => ({ direction, thicket: [], wireguard: [] }));
  const run = async (tunnel: Tunnel, direction: Direction, duration: number): Promise<number> => {
    const before = await tunnel.relayedBytes();
    const rate = await throughput(client, tunnel.address, direction, duration);
    const relayed = (await tunnel.relayedBytes()) - before;
    if (relayed < (rate * duration) / 8)
      throw new LabError(`${tunnel.name}: only ${relayed} bytes crossed the relay: that was another path`);
    return rate;
  };
  for (const tunnel of [thicket, wireguard]) await run(tunnel, 'up', 1);
  for (let round = 0; round < rounds; round += 1) {
    for (const row of rows) {
      // Who goes first changes, too.
      const order = round % 2 === 0 ? [thicket, wireguard] : [wireguard, thicket];
      for (const tunnel of order) {
        const rate = await run(tunnel, row.direction, seconds);
        (tunnel === thicket ? row.thicket : row.wireguard).push(rate);
        console.error(`▸ round ${round + 1}, ${row.direction}, ${tunnel.name}: ${gbit(rate)} Gbit/s`);
      }
    }
  }
  return rows;
}

function report(rows: readonly Row[], version: string, seconds: number, offload: string): void {
  const host = machine();
  console.log(`${host.cpu}, ${host.cores} cores; Linux ${host.kernel}, Node.js ${host.node}; TUN offload ${offload}`);
  console.log(`viewer – relay – gateway, one TCP stream, runs of ${seconds} s by turns; wireguard-go ${version}\n`);
  console.log('direction   Thicket, Gbit/s        wireguard-go, Gbit/s   Thicket : wireguard-go');
  const results = rows.map(({ direction, thicket, wireguard }) => {
    const ratios = thicket.map((rate, index) => rate / (wireguard[index] ?? Number.NaN));
    const cells = [spread(thicket, gbit), spread(wireguard, gbit), spread(ratios, (ratio) => ratio.toFixed(2))];
    console.log(
      `${direction.padEnd(12)}${cells
        .map((cell) => cell.padEnd(23))
        .join('')
        .trimEnd()}`,
    );
    return { direction, thicket, wireguard, ratios, medianRatio: median(ratios) };
  });
  const folder = join(repository, 'bench/results');
  mkdirSync(folder, { recursive: true });
  writeFileSync(
    join(folder, 'tunnel.json'),
    `${JSON.stringify({ machine: host, wireguard: version, seconds, offload, results }, null, 2)}\n`,
  );
  console.log('\nmedian (least – most); written to bench/results/tunnel.json');
}

const gbit = (bits: number): string => (bits / 1e9).toFixed(2);

function spread(values: readonly number[], text: (value: number) => string): string {
  return `${text(median(values))} (${text(Math.min(...values))} – ${text(Math.max(...values))})`;
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 === 1
    ? (sorted[middle] ?? Number.NaN)
    : ((sorted[middle - 1] ?? Number.NaN) + (sorted[middle] ?? Number.NaN)) / 2;
}

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => void Lab.destroyAll().finally(() => process.exit(1)));
}

try {
  await main();
} catch (error) {
  console.error(`bench/tunnel: ${error instanceof Error ? error.message : String(error)}`);
  process.exitCode = 1;
}
