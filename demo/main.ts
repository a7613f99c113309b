/**
 * `npm run demo`: a camera, a broker, a file server and two lights behind a gateway, used from afar through two relays, in network namespaces of
 * this machine, or on its loopback for who may make none. Prints what it proved; exits 0 only when all of it held.
 */
import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { DEVICES, type Device, Lab, Loopback, repository } from '../test/lab/index.js';
import { type NodeConfig, type NodeName, picture, World, type WorldNode } from '../test/world/index.js';
import type { HostPort } from '../ts/config/index.js';
import type { ServiceDocument } from '../ts/control/documents.js';
import * as claims from './claims.js';
import { elapsed, type Outcome, printTable, prove, say } from './report.js';
import { Tap } from './taps.js';

type Endpoint = NonNullable<NodeConfig['endpoints']>[number];

const WATCH_SECONDS = 8;
const PICTURE = join('demo-output', 'camera.png');

/** Takes away what allows something. The lamp is there to show what happens without an allow. */
function closed(endpoint: Endpoint): Endpoint {
  return { ...endpoint, services: (endpoint.services ?? []).map((service) => ({ ...service, allow: [] })) };
}

const configure = (name: NodeName, config: NodeConfig): NodeConfig =>
  name === 'gw2' ? { ...config, endpoints: (config.endpoints ?? []).map(closed) } : config;

type Claim = (text: string, proof: () => Promise<string>) => Promise<void>;

/** What the two kinds of world prove in ways of their own. */
interface Ways {
  readonly names: (viewer: WorldNode) => Promise<string>;
  /** How the second viewer watches the camera. */
  readonly second: { readonly claim: string; readonly transport: 'tcp' | 'udp' };
  /** Stops the watching, and proves what it saw. */
  readonly watched: (claim: Claim, marker: string) => Promise<void>;
}

async function inNamespaces(): Promise<Outcome[]> {
  say('making a world of network namespaces: two networks, seven nodes, six devices');
  const world = await World.create({ configure });
  try {
    const viewerLink = await world.lab.capture('viewer', 'wan0');
    const gatewayLink = await world.lab.capture('gw', 'wan0');
    const lan = await world.lab.capture('gw', 'lan0');
    return await scenario(world, {
      names: claims.names,
      second: { claim: 'and over RTSP with UDP media', transport: 'udp' },
      watched: async (claim, marker) => {
        for (const capture of [viewerLink, gatewayLink, lan]) await capture.stop();
        await claim('nobody learns the other end’s address', () => claims.addresses(world, viewerLink, gatewayLink));
        await claim('everything is sealed on the way', () => claims.sealed(marker, [viewerLink, gatewayLink], lan));
      },
    });
  } finally {
    say('cleaning up');
    await world.destroy();
  }
}

/** The same with every node in user-space mode and everybody on this machine's loopback: no privilege is used. */
async function onLoopback(why: string): Promise<Outcome[]> {
  say(`${why}: the scenario runs in user-space mode on loopback, without an interface, a firewall rule or a privilege`);
  const stage = new Loopback();
  const relay = (name: 'mid' | 'root'): HostPort => ({ host: stage.host(name).address, port: 7_117 });
  const light = stage.host('light1');
  const taps = {
    viewer: await Tap.udp('viewer', stage.host('viewer').address, relay('mid')),
    gw: await Tap.udp('gw', stage.host('gw').address, relay('root')),
    lan: await Tap.tcp('light1', light.address, { host: light.address, port: light.port(80) }),
  };
  /** Where a device is here. */
  const moved = (target: string): string => {
    const device = Object.entries(DEVICES).find(([, { address }]) => target.startsWith(`${address}:`))?.[0] as Device;
    if (device === 'light1') return `${light.address}:${taps.lan.port}`;
    const host = stage.host(device);
    return `${host.address}:${host.port(Number(target.split(':')[1]))}`;
  };
  const world = await World.create({
    stage,
    configure,
    parentUrl: (name, parent) =>
      name === 'viewer' || name === 'gw' ? `udp://${stage.host(name).address}:${taps[name].port}` : parent.url(),
    plan: (_, plan) => ({
      ...plan,
      userspace: !plan.listens,
      endpoints: plan.endpoints.map((endpoint) => ({
        ...endpoint,
        services: (endpoint.services ?? []).map((service) => ({ ...service, target: moved(service.target), force: true })),
      })),
    }),
  });
  try {
    return await scenario(world, {
      names: claims.namesOnLoopback,
      second: { claim: 'and for a second viewer', transport: 'tcp' },
      watched: async (claim, marker) => {
        for (const tap of Object.values(taps)) tap.stop();
        await claim('nobody is told a device’s address', () => claims.told(world, taps.viewer));
        await claim('everything is sealed on the way', () => claims.sealed(marker, [taps.viewer, taps.gw], taps.lan));
      },
    });
  } finally {
    say('cleaning up');
    await world.destroy();
    for (const tap of Object.values(taps)) tap.close();
  }
}

async function scenario(world: World, ways: Ways): Promise<Outcome[]> {
  const [viewer, viewer2, gw, gw2] = [world.node('viewer'), world.node('viewer2'), world.node('gw'), world.node('gw2')];
  const marker = randomBytes(8).toString('hex');
  const outcomes: Outcome[] = [];
  const claim: Claim = async (text, proof) => {
    outcomes.push(await prove(text, proof));
  };
  await claim('devices have names, for .thicket only', () => ways.names(viewer));
  const first = prove('the camera plays over RTSP/TCP', async () => {
    const { file, proof } = await claims.video(viewer, 'tcp', WATCH_SECONDS, marker);
    mkdirSync(join(repository, 'demo-output'), { recursive: true });
    await picture(viewer.host, file, 75, join(repository, PICTURE));
    say(`a picture out of the received video is in ${PICTURE}, ${elapsed()} after the demo began`);
    return proof;
  });
  const { claim: text, transport } = ways.second;
  const second = prove(text, async () => (await claims.video(viewer2, transport, WATCH_SECONDS, marker)).proof);
  outcomes.push(await first, await second);
  await claim('lights switch by HTTP', () => claims.lights(viewer, marker));
  await claim('MQTT messages arrive', () => claims.messages(viewer, viewer2));
  await claim('relays stand between', () => claims.relays(world, viewer));
  await ways.watched(claim, marker);
  await claim('big files arrive whole', () => claims.file(viewer, world.devices.files.bigSha256));
  await claim('without an allow, nothing answers', () => claims.deny(viewer, gw2));
  await claim('strangers get nothing', async () => {
    const services = await gw.json<readonly ServiceDocument[]>(['services']);
    return claims.strangers(
      world,
      services.filter(({ port }) => port === 'tcp/80').map(({ key }) => key),
    );
  });
  return outcomes;
}

/** Why there can be no namespaces and interfaces here; undefined where there can. */
function hindrance(): string | undefined {
  if (process.getuid?.() !== 0) return 'this is not root';
  const held = BigInt(`0x${/^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? '0'}`);
  if (NEEDED.some((capability) => ((held >> capability) & 1n) === 0n)) return 'this is root without CAP_NET_ADMIN and CAP_SYS_ADMIN';
  return existsSync('/dev/net/tun') ? undefined : '/dev/net/tun is missing';
}

/** CAP_NET_ADMIN and CAP_SYS_ADMIN (linux/capability.h). */
const NEEDED = [12n, 21n];

let stopping = false;
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => {
    stopping = true;
    say(`${signal}: cleaning up`);
    void Promise.all([Lab.destroyAll(), Loopback.destroyAll()]).finally(() => process.exit(signal === 'SIGINT' ? 130 : 143));
  });
}

try {
  const why = hindrance();
  const outcomes = await (why === undefined ? inNamespaces() : onLoopback(why));
  printTable(outcomes);
  const held = outcomes.filter(({ holds }) => holds).length;
  console.log(`${held} of ${outcomes.length} claims held after ${elapsed()}; the picture is ${PICTURE}`);
  process.exitCode = held === outcomes.length ? 0 : 1;
} catch (error) {
  // What fails because everything is being torn down is no news.
  if (!stopping) console.error(`demo: ${error instanceof Error ? error.message : String(error)}`);
  process.exitCode = 1;
}
