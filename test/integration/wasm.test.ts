/** Every node on WebAssembly and without privileges: what Thicket is for works all the same, and a slow reader costs no memory. */
import { readFileSync } from 'node:fs';
import { waitFor } from '../lab/index.js';
import { fetchSha256, switchLight, World, type WorldNode } from '../world/index.js';

let world: World;
let viewer: WorldNode;

beforeAll(async () => {
  world = await World.create({
    nodes: ['root', 'mid', 'gw', 'viewer'],
    plan: (_name, plan) => ({ ...plan, backend: 'wasm', ...(plan.listens ? {} : { userspace: true }) }),
  });
  viewer = world.node('viewer');
}, 120_000);

afterAll(async () => {
  await world?.destroy();
}, 30_000);

/** Bytes of memory that a node takes. */
function resident(node: WorldNode): number {
  const status = readFileSync(`/proc/${node.process.pid}/status`, 'utf8');
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1]) * 1_024;
}

test('every node says what moves its packets, and why nothing better', async () => {
  for (const node of world.nodes()) {
    expect(await node.status()).toMatchObject({ backend: 'wasm', backendShortfall: 'THICKET_BACKEND=wasm asks for it' });
  }
});

test('a reader that does not read stops the server, and no node takes more than 120 MB', async () => {
  const reader = await viewer.host.spawn([
    'curl',
    '-sS',
    '-f',
    '--limit-rate',
    '1k',
    '-o',
    '/dev/null',
    `http://${viewer.at('files', 80)}/big.bin`,
  ]);
  const sent = async (): Promise<bigint> => BigInt((await world.node('gw').status()).sessions[0]?.txBytes ?? 0);
  const seen: bigint[] = [];
  // All buffers on the way are full when nothing more leaves the gateway.
  await waitFor(
    async () => {
      seen.push(await sent());
      return seen.length > 5 && (seen.at(-1) ?? 0n) - (seen.at(-6) ?? 0n) < 20_000n;
    },
    { intervalMs: 200, timeoutMs: 30_000, what: 'it stands still' },
  );
  for (const node of world.nodes())
    expect([node.name, Math.round(resident(node) / 1e6) <= 120 || resident(node)]).toEqual([node.name, true]);
  await reader.kill('SIGKILL');
}, 60_000);

test('a file of a hundred megabytes comes through, whole', async () => {
  expect(await fetchSha256(viewer.host, `http://${viewer.at('files', 80)}/big.bin`)).toBe(world.devices.files.bigSha256);
}, 120_000);

test('a light is switched', async () => {
  for (const on of [true, false, true]) expect(await switchLight(viewer.host, `http://${viewer.at('light1', 80)}/light`, on)).toBe(on);
});
