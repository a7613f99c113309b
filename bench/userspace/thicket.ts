/** Thicket's side: viewer, root and gateway without kernel interfaces, all on one backend; the viewer's programs use forwarded ports. */

import { LabError } from '../../test/lab/index.js';
import { World } from '../../test/world/index.js';
import type { DataPlane } from '../../ts/dataplane/index.js';
import { type Route, SERVED } from './route.js';

const NODES = ['root', 'gw', 'viewer'] as const;
/** Of the gateway, where the servers are. */
export const TARGET = '192.168.1.1';
const PORTS = { iperf: 5_201, web: 8_081 } as const;

export async function createWorld(): Promise<World> {
  const services = (['iperf', 'web'] as const).map((server) => ({
    port: `tcp/${PORTS[server]}`,
    target: `${TARGET}:${SERVED[server]}`,
    allow: ['group:family'],
    force: true,
  }));
  return World.create({
    nodes: NODES,
    idle: NODES,
    devices: false,
    siteDns: false,
    plan: (name, plan) => (name === 'gw' ? { ...plan, grants: ['near'], endpoints: [{ name: 'near', services }] } : plan),
    configure: (_, config) => ({ ...config, interface: { ...config.interface, mode: 'userspace' } }),
  });
}

/** Starts the world's nodes on `backend` and forwards the ports. */
export async function thicket(world: World, backend: DataPlane['backend']): Promise<Route> {
  for (const name of NODES) await world.node(name).start({ env: { THICKET_BACKEND: backend } });
  await world.settled();
  const viewer = world.node('viewer');
  for (const port of Object.values(PORTS)) {
    const forward = await viewer.host.spawnThicket(['forward', `127.0.0.1:${port}`, `near.home.thicket:${port}`]);
    await forward.waitForLine(/ leads to /);
  }
  for (const name of NODES) {
    const status = await world.node(name).status();
    if (status.backend !== backend) throw new LabError(`${name} runs on ${status.backend}, not on ${backend}`);
  }
  return {
    name: backend,
    version: (await viewer.status()).version,
    client: viewer.host,
    ports: PORTS,
    processes: NODES.map((name) => world.node(name).process.pid),
    stop: () => world.destroy(),
  };
}
