/**
 * Thicket's own side: one tree in which all topologies lie. The host called stranger is a viewer of our own network here.
 *
 *     stranger ─ root ─ mid ─ viewer          direct: stranger – root        relay: viewer – mid – gw
 *                 │      └── gw ─ files       dnat: viewer – mid – gw – files
 *                gw2 ─ viewer2                three: viewer2 – gw2 – root – mid – gw
 */
import { type HostName, underlay } from '../../test/lab/index.js';
import { type NodeName, type NodePlan, World, type WorldNode } from '../../test/world/index.js';
import type { Contender, Route } from './route.js';

export const PORT = 5_201;
/**
 * Where Thicket's services lead: addresses and port of iperf3's servers, each bound to its address. One that is not answers datagrams from whichever address
 * the route says, and conntrack doesn't know them.
 */
const TARGETS = { root: underlay('root').ip4, gw: '192.168.1.1', files: '192.168.1.22' } as const;
const TARGET_PORT = 5_202;

export async function createWorld(): Promise<World> {
  return World.create({
    nodes: ['root', 'mid', 'gw', 'gw2', 'viewer', 'viewer2', 'stranger'],
    devices: false,
    siteDns: false,
    plan: (name, plan) => ({ ...plan, ...changes(name) }),
    configure: (name, config) => (name === 'root' ? { ...config, allow_unrelayed: true } : config),
  });
}

function changes(name: NodeName): Partial<NodePlan> {
  switch (name) {
    case 'root':
      return { rights: ['relay', 'gateway'], grants: ['far'], endpoints: [endpoint('far', TARGETS.root)] };
    case 'gw':
      return { parent: 'mid', grants: ['near', 'lan'], endpoints: [endpoint('near', TARGETS.gw), endpoint('lan', TARGETS.files)] };
    case 'gw2':
      return { parent: 'root', listens: true, rights: ['relay'], grants: [], endpoints: [] };
    case 'viewer2':
      return { parent: 'gw2' };
    case 'stranger':
      return { network: 'home', parent: 'root' };
    default:
      return {};
  }
}

function endpoint(name: string, host: string): NodePlan['endpoints'][number] {
  const target = `${host}:${TARGET_PORT}`;
  const services = [`tcp/${PORT}`, `udp/${PORT}`].map((port) => ({ port, target, allow: ['group:family'], force: true }));
  return { name, services };
}

/** iperf3's servers behind Thicket's services. */
export async function serveTargets(world: World): Promise<void> {
  for (const [name, address] of Object.entries(TARGETS)) await serve(world, name as keyof typeof TARGETS, TARGET_PORT, address);
}

export async function serve(world: World, name: HostName, port: number, address?: string): Promise<void> {
  const bound = address === undefined ? [] : ['-B', address];
  const server = await world.lab.host(name).spawn(['iperf3', '-s', '-p', String(port), '--forceflush', ...bound]);
  await server.waitForLine(/Server listening/);
}

export async function thicket(world: World): Promise<Contender> {
  const route = async (client: NodeName, name: string, relays: readonly NodeName[], far: NodeName): Promise<Route> => {
    const viewer = world.node(client);
    const pid = (node: WorldNode): number => node.process.pid;
    const between = relays.map((relay) => world.node(relay));
    const [first] = between;
    return {
      client: viewer.host,
      address: await viewer.lookup(name, 4),
      relays: between.map(({ host }) => host),
      processes: [viewer, ...between, world.node(far)].map(pid),
      trains: async () => [(await viewer.status()).trains, (await world.node(far).status()).trains],
      ...(first === undefined ? {} : { relayProcess: pid(first) }),
    };
  };
  const { version } = await world.node('viewer').status();
  // By its key: a root isn't asked for the names of its own endpoints.
  const far = (await world.node('root').status()).services[0]?.key;
  return {
    name: 'thicket',
    version,
    routes: {
      direct: await route('stranger', `${far}.thicket`, [], 'root'),
      relay: await route('viewer', 'near.home.thicket', ['mid'], 'gw'),
      three: await route('viewer2', 'near.home.thicket', ['gw2', 'root', 'mid'], 'gw'),
      dnat: await route('viewer', 'lan.home.thicket', ['mid'], 'gw'),
    },
    stop: async () => undefined,
  };
}
