/**
 * `npm run demo`: a camera, a broker, a file server and two lights behind a gateway, used from afar through two relays, in network namespaces of
 * this machine. Prints what it proved; exits 0 only when all of it held.
 */
import { randomBytes } from 'node:crypto';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { Lab, repository } from '../test/lab/index.js';
import { type NodeConfig, picture, World } from '../test/world/index.js';
import type { ServiceDocument } from '../ts/control/documents.js';
import * as claims from './claims.js';
import { elapsed, type Outcome, printTable, prove, say } from './report.js';

type Endpoint = NonNullable<NodeConfig['endpoints']>[number];

const WATCH_SECONDS = 8;
const PICTURE = join('demo-output', 'camera.png');

async function run(): Promise<Outcome[]> {
  say('making a world of network namespaces: two networks, seven nodes, six devices');
  const world = await World.create({
    // The lamp is there to show what happens without an allow.
    configure: (name, config) => (name === 'gw2' ? { ...config, endpoints: (config.endpoints ?? []).map(closed) } : config),
  });
  try {
    return await scenario(world);
  } finally {
    say('cleaning up');
    await world.destroy();
  }
}

function closed(endpoint: Endpoint): Endpoint {
  return { ...endpoint, services: (endpoint.services ?? []).map((service) => ({ ...service, allow: [] })) };
}

async function scenario(world: World): Promise<Outcome[]> {
  const [viewer, viewer2, gw, gw2] = [world.node('viewer'), world.node('viewer2'), world.node('gw'), world.node('gw2')];
  const marker = randomBytes(8).toString('hex');
  const viewerLink = await world.lab.capture('viewer', 'wan0');
  const gatewayLink = await world.lab.capture('gw', 'wan0');
  const lan = await world.lab.capture('gw', 'lan0');

  const outcomes: Outcome[] = [];
  const claim = async (text: string, proof: () => Promise<string>): Promise<void> => {
    outcomes.push(await prove(text, proof));
  };
  await claim('devices have names, for .thicket only', () => claims.names(viewer));
  const tcp = prove('the camera plays over RTSP/TCP', async () => {
    const { file, proof } = await claims.video(viewer, 'tcp', WATCH_SECONDS, marker);
    mkdirSync(join(repository, 'demo-output'), { recursive: true });
    await picture(viewer.host, file, 75, join(repository, PICTURE));
    say(`a picture out of the received video is in ${PICTURE}, ${elapsed()} after the demo began`);
    return proof;
  });
  const udp = prove('and over RTSP with UDP media', async () => (await claims.video(viewer2, 'udp', WATCH_SECONDS, marker)).proof);
  outcomes.push(await tcp, await udp);
  await claim('lights switch by HTTP', () => claims.lights(viewer, marker));
  await claim('MQTT messages arrive', () => claims.messages(viewer, viewer2));
  await claim('relays stand between', () => claims.relays(world, viewer));
  for (const capture of [viewerLink, gatewayLink, lan]) await capture.stop();
  await claim('nobody learns the other end’s address', () => claims.addresses(world, viewerLink, gatewayLink));
  await claim('everything is sealed on the way', () => claims.sealed(marker, [viewerLink, gatewayLink], lan));
  await claim('big files arrive whole', () => claims.file(viewer, world.devices.files.bigSha256));
  await claim('without an allow, nothing answers', () => claims.deny(viewer, gw2));
  await claim('strangers get nothing', async () => {
    const services = await gw.json<readonly ServiceDocument[]>(['services']);
    return claims.stranger(
      world,
      services.filter(({ port }) => port === 'tcp/80').map(({ key }) => key),
    );
  });
  return outcomes;
}

let stopping = false;
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => {
    stopping = true;
    say(`${signal}: cleaning up`);
    void Lab.destroyAll().finally(() => process.exit(signal === 'SIGINT' ? 130 : 143));
  });
}

try {
  const outcomes = await run();
  printTable(outcomes);
  const held = outcomes.filter(({ holds }) => holds).length;
  console.log(`${held} of ${outcomes.length} claims held after ${elapsed()}; the picture is ${PICTURE}`);
  process.exitCode = held === outcomes.length ? 0 : 1;
} catch (error) {
  // What fails because everything is being torn down is no news.
  if (!stopping) console.error(`demo: ${error instanceof Error ? error.message : String(error)}`);
  process.exitCode = 1;
}
