/** Steps that several simulations share. */
import type { Session } from '../../ts/node/sessions.js';
import type { PublicKey } from '../../ts/trust/index.js';
import { World } from './world.js';

/** root ── mid ── viewer, gateway2 (with a lamp); root ── gateway (with a camera). */
export async function plantTree(seed: number, rekeyMs = 120_000): Promise<World> {
  const world = new World(seed);
  world.plant('root', { rekeyMs });
  world.plant('mid', { parents: ['root'], rekeyMs });
  world.plant('viewer', { parents: ['mid'], leaf: true, rekeyMs });
  world.plant('gateway2', { parents: ['mid'], leaf: true, endpoints: ['lamp'], rekeyMs });
  world.plant('gateway', { parents: ['root'], leaf: true, endpoints: ['camera'], rekeyMs });
  await world.converge();
  return world;
}

/** The key of a gateway's first endpoint. */
export function deviceOf(world: World, gateway: string): PublicKey {
  const [device] = world.identity(gateway).endpoints;
  if (device === undefined) throw new RangeError(`${gateway} has no endpoint`);
  return device.pair.publicKey;
}

/** Dials, and lets time pass until the session is up at the caller. Throws the refusal. */
export async function dialled(world: World, from: string, peer: PublicKey, most = 5_000): Promise<Session> {
  const node = world.get(from);
  let failed: unknown;
  node.sessions.dial(node.key, peer).catch((error: unknown) => {
    failed = error;
  });
  await world.clock.until(`a session from ${from}`, most, () => failed !== undefined || node.session(peer)?.state === 'up');
  if (failed !== undefined) throw failed;
  const session = node.session(peer);
  if (session === undefined) throw new RangeError('no session');
  return session;
}

/** Lets time pass until a node has its parent. */
export async function connected(world: World, name: string, most = 10_000): Promise<void> {
  await world.clock.until(`${name} to be connected`, most, () =>
    world
      .get(name)
      .links.all()
      .some((link) => link.role === 'parent'),
  );
}

/** The binding of a session's path as the data plane uses it: the pair of labels at one end. */
export function pathAt(
  world: World,
  at: string,
  peer: PublicKey,
  own: PublicKey = world.key(at),
): { ingress: number; egress: number } | undefined {
  const node = world.get(at);
  const session = node.session(peer, own);
  const path = session === undefined ? undefined : node.plane.currentPath(session.id);
  return path === undefined ? undefined : { ingress: path.ingress.label, egress: path.egress.label };
}
