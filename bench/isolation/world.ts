/**
 * The tree that isolation is measured in: all below one relay, mid. The host called stranger is of our own network here, and comes late.
 *
 *     root ─ mid ─ viewer, viewer2, gw, gw2, (stranger)
 */
import type { HostName } from '../../test/lab/index.js';
import { type NodeName, type NodePlan, World } from '../../test/world/index.js';
import { startWithHook } from './delays.js';

/** Ports of the flow that is watched, and of what it is disturbed with. */
export const FLOW_PORT = 5_201;
export const LOAD_PORT = 5_203;
const TARGETS = { gw: '192.168.1.1', gw2: '192.168.2.1' } as const;
const PORTS = [FLOW_PORT, LOAD_PORT] as const;
const NAMES = { gw: 'near', gw2: 'far' } as const;

export interface Place {
  readonly world: World;
  /** Both gateways' services, as viewer and viewer2 see them. */
  readonly addresses: { readonly viewer: Addresses; readonly viewer2: Addresses };
}

interface Addresses {
  readonly gw: string;
  readonly gw2: string;
}

export async function createPlace(): Promise<Place> {
  const below: readonly NodeName[] = ['mid', 'gw', 'gw2', 'viewer', 'viewer2', 'stranger'];
  const world = await World.create({ nodes: ['root', ...below], idle: below, devices: false, siteDns: false, plan });
  try {
    for (const name of ['mid', 'gw'] as const) await startWithHook(world.node(name));
    for (const name of ['gw2', 'viewer', 'viewer2'] as const) await world.node(name).start();
    await world.settled();
    const seen = async (name: 'viewer' | 'viewer2'): Promise<Addresses> => ({
      gw: await world.node(name).lookup(`${NAMES.gw}.home.thicket`, 4),
      gw2: await world.node(name).lookup(`${NAMES.gw2}.home.thicket`, 4),
    });
    return { world, addresses: { viewer: await seen('viewer'), viewer2: await seen('viewer2') } };
  } catch (error) {
    await world.destroy();
    throw error;
  }
}

/** The servers behind both gateways' services; the first is the watched flow's. */
export async function serve(world: World): Promise<readonly string[]> {
  const start = async (name: HostName, address: string, port: number): Promise<readonly string[]> => {
    const argv = ['iperf3', '-s', '-p', String(port + 1_000), '-B', address, '-i', '0.5', '-f', 'k', '--forceflush'];
    const server = await world.lab.host(name).spawn(argv);
    await server.waitForLine(/Server listening/);
    return server.stdout;
  };
  const lines = await start('gw', TARGETS.gw, FLOW_PORT);
  await start('gw', TARGETS.gw, LOAD_PORT);
  await start('gw2', TARGETS.gw2, LOAD_PORT);
  return lines;
}

function plan(name: NodeName, own: NodePlan): NodePlan {
  switch (name) {
    case 'gw':
    case 'gw2':
      return { ...own, parent: 'mid', grants: [NAMES[name]], endpoints: [endpoint(name)] };
    case 'stranger':
      return { ...own, network: 'home' };
    default:
      return own;
  }
}

function endpoint(gateway: 'gw' | 'gw2'): NodePlan['endpoints'][number] {
  const services = PORTS.flatMap((port) =>
    [`tcp/${port}`, `udp/${port}`].map((from) => ({
      port: from,
      target: `${TARGETS[gateway]}:${port + 1_000}`,
      allow: ['group:family'],
      force: true,
    })),
  );
  return { name: NAMES[gateway], services };
}
