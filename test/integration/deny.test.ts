/** Default deny, with the real programs: what nobody allowed doesn't answer and doesn't arrive; what was allowed is exactly what it says, and ends when it is taken back. */
import { statSync } from 'node:fs';
import type { SessionDocument, StatusDocument } from '../../ts/control/documents.js';
import { type Capture, type Process, waitFor } from '../lab/index.js';
import { echo, echoRequests, from, knock, listenOn, startWatching, World, type WorldNode } from '../world/index.js';

const LAN = '192.168.1.0/24';
/** What listens on 0.0.0.0 at the gateway, and on devices beside what they are for. */
const SIDE_DOORS = ['tcp/22', 'tcp/8080', 'udp/5000'];

let world: World;
let gw: WorldNode;
let viewer: WorldNode;
let viewer2: WorldNode;
let stranger: WorldNode;
let lan: Capture;
let gatewayDoors: Process;
let cameraDoors: Process;

/** Source ports, one for each attempt, so that each is told apart on the LAN. */
let attempts = 20_000;
const port = (): number => {
  attempts += 1;
  return attempts;
};

beforeAll(async () => {
  world = await World.create({
    nodes: ['root', 'mid', 'gw', 'viewer', 'viewer2', 'stranger'],
    plan: (name, plan) => {
      if (name === 'viewer2') return { ...plan, groups: [] };
      if (name !== 'gw') return plan;
      const unlisted = plan.endpoints.map((e) =>
        e.name === 'light2' ? { ...e, services: (e.services ?? []).map((service) => ({ ...service, allow: [] })) } : e,
      );
      return { ...plan, endpoints: unlisted.filter(({ name: endpoint }) => endpoint !== 'broker') };
    },
  });
  gw = world.node('gw');
  viewer = world.node('viewer');
  viewer2 = world.node('viewer2');
  stranger = world.node('stranger');
  lan = await world.lab.capture('gw', 'lan0');
  gatewayDoors = await listenOn(gw.host, SIDE_DOORS);
  cameraDoors = await listenOn(world.lab.host('camera'), SIDE_DOORS);
  await listenOn(world.lab.host('broker'), SIDE_DOORS);
}, 120_000);

afterAll(async () => {
  await world?.destroy();
}, 30_000);

/** Something allowed goes the same way: all that was sent before it and could arrive on the LAN has arrived when this resolves. */
async function allowedArrives(node: WorldNode, at = 'light1.home.thicket'): Promise<void> {
  const source = port();
  expect(await knock(node.host, { at, ports: ['tcp/80'], from: source, seconds: 5 })).toEqual(['tcp/80']);
  await waitFor(() => from(lan, source) > 0, { what: 'the allowed connection on the LAN' });
}

/** None of these ports answers at the viewer's side, no echo does, and on the LAN nothing of it is seen. */
async function expectNothing(node: WorldNode, at: string, ports: readonly string[], witness = viewer): Promise<void> {
  const source = port();
  const echoes = echoRequests(lan);
  const [answered, echoed] = await Promise.all([knock(node.host, { at, ports, from: source }), echo(node.host, at)]);
  expect([at, answered, echoed]).toEqual([at, [], 0]);
  await allowedArrives(witness);
  expect([at, from(lan, source), echoRequests(lan) - echoes]).toEqual([at, 0, 0]);
}

describe('without an allow', () => {
  test('the doors that are to stay shut are open to whoever is let near them', async () => {
    for (const at of ['192.168.1.20', '192.168.1.21', '127.0.0.1']) {
      expect(await knock(gw.host, { at, ports: SIDE_DOORS, from: port() })).toEqual(SIDE_DOORS);
    }
    await gatewayDoors.waitForLine(/^udp\/5000 by 127\.0\.0\.1/);
    await cameraDoors.waitForLine(/^udp\/5000 by 192\.168\.1\.1/);
  }, 30_000);

  test('an endpoint that nobody may reach answers nobody, ICMP included', async () => {
    for (const node of [viewer, viewer2]) {
      for (const family of [4, 6] as const) {
        await expectNothing(node, await node.lookup('light2.home.thicket', family), ['tcp/80', 'udp/80', ...SIDE_DOORS]);
      }
    }
  }, 60_000);

  test('somebody outside the group reaches no service', async () => {
    await expectNothing(viewer2, 'light1.home.thicket', ['tcp/80']);
    await expectNothing(viewer2, 'camera.home.thicket', ['tcp/554', ...SIDE_DOORS]);
  }, 60_000);

  test("a service that isn't listed doesn't answer, though the device would", async () => {
    const source = port();
    const ports = [...SIDE_DOORS, 'tcp/53', 'tcp/80', 'tcp/555', 'udp/554', 'udp/53', 'udp/1'];
    expect(await knock(viewer.host, { at: 'camera.home.thicket', ports, from: source })).toEqual([]);
    await allowedArrives(viewer);
    expect(from(lan, source)).toBe(0);
    expect(cameraDoors.stdout.filter((line) => line.endsWith(` ${source}`))).toEqual([]);
    // What the viewer was told, its own node shows.
    const session = (await viewer.json<readonly SessionDocument[]>(['sessions'])).find(({ name }) => name.startsWith('camera'));
    expect(session?.denied).toEqual(expect.arrayContaining(['tcp/22', 'udp/5000']));
    expect(session?.offered).toEqual(['tcp/554']);
  }, 60_000);

  test("the gateway's own ports and its DNS server answer nobody", async () => {
    const doors = gatewayDoors.stdout.length;
    for (const at of ['gw.home.thicket', 'light1.home.thicket']) {
      const dig = ['dig', `@${await viewer.lookup(at, 4)}`, '+time=1', '+tries=1', 'camera.home.thicket'];
      const [answered, { stdout }] = await Promise.all([
        knock(viewer.host, { at, ports: [...SIDE_DOORS, 'tcp/53', 'udp/53'], from: port() }),
        viewer.host.exec(dig, { check: false }),
      ]);
      expect(answered).toEqual([]);
      expect(stdout).toContain('no servers could be reached');
    }
    expect(await echo(viewer.host, 'gw.home.thicket')).toBe(0);
    await allowedArrives(viewer);
    expect(gatewayDoors.stdout.slice(doors)).toEqual([]);
  }, 60_000);

  test('LAN neighbours of the camera and the gateway on its LAN are out of reach, even for who routes the LAN into the overlay', async () => {
    const doors = gatewayDoors.stdout.length;
    await viewer.host.exec(['ip', 'route', 'add', LAN, 'dev', 'thicket0']);
    try {
      for (const at of ['192.168.1.21', '192.168.1.20', '192.168.1.1'])
        await expectNothing(viewer, at, ['tcp/1883', 'tcp/554', ...SIDE_DOORS]);
    } finally {
      await viewer.host.exec(['ip', 'route', 'del', LAN, 'dev', 'thicket0']);
    }
    expect(gatewayDoors.stdout.slice(doors)).toEqual([]);
  }, 60_000);

  test('devices open nothing into the overlay, nor to the name server', async () => {
    const camera = world.lab.host('camera');
    const viewerDoors = await listenOn(viewer.host, SIDE_DOORS);
    await allowedArrives(viewer);
    const sessions = await gw.json<readonly SessionDocument[]>(['sessions']);
    const local = sessions.filter(({ key }) => key === viewer.key).flatMap(({ addresses }) => addresses)[0] ?? '';
    expect(local).toMatch(/^198\.1[89]\./);
    await camera.exec(['ip', 'route', 'add', '198.18.0.0/15', 'via', '192.168.1.1']);
    const dig = camera.exec(['dig', `@${world.dnsAddress}`, '+time=1', '+tries=1', 'camera.home.thicket'], { check: false });
    const tries = [local, world.dnsAddress].flatMap((at) => [
      knock(camera, { at, ports: [...SIDE_DOORS, 'tcp/53'], from: port() }),
      echo(camera, at),
    ]);
    expect(await Promise.all(tries)).toEqual([[], 0, [], 0]);
    expect((await dig).stdout).toContain('no servers could be reached');
    await allowedArrives(viewer);
    expect(viewerDoors.stdout).toEqual(['ready']);
    await viewerDoors.kill();
  }, 60_000);

  test('allow opens exactly what it names, to whom it names, and deny shuts it again', async () => {
    const ports = ['tcp/80', ...SIDE_DOORS];
    await gw.thicket(['allow', 'name:viewer2', 'light2:80']);
    expect(await knock(viewer2.host, { at: 'light2.home.thicket', ports, from: port() })).toEqual(['tcp/80']);
    expect(await echo(viewer2.host, 'light2.home.thicket')).toBe(2);
    await expectNothing(viewer2, 'light1.home.thicket', ports);
    await expectNothing(viewer, 'light2.home.thicket', ports);
    await gw.thicket(['deny', 'name:viewer2', 'light2:80']);
    await expectNothing(viewer2, 'light2.home.thicket', ports);
  }, 60_000);
});

describe('a stranger, whose own node trusts us', () => {
  test('finds nothing: no name resolves, no ping is answered, and the gateway says nothing at all', async () => {
    const commands = [
      ['resolve', 'files.home.thicket'],
      ['ping', gw.key, '-c', '1'],
    ];
    const looked = expect(stranger.lookup('files.home.thicket', 4)).rejects.toThrow();
    for (const { code, stderr } of await Promise.all(commands.map((command) => stranger.thicket(command, { check: false })))) {
      expect([code, stderr]).toEqual([1, expect.stringContaining('thicket: ')]);
    }
    await looked;
    expect(await sessionsWith(gw, stranger.key)).toEqual([]);
  }, 60_000);

  describe.each(['network', 'node'] as const)('once its %s is trusted', (kind) => {
    const trusted = (): string => (kind === 'network' ? world.owner('strange').id : stranger.key);
    const who = (): string => `${kind}:${trusted()}`;

    test('is talked to, and still reaches no service: trust opens nothing', async () => {
      await gw.thicket(['trust', 'add', trusted()]);
      await stranger.thicket(['ping', 'files.home.thicket', '-c', '1']);
      await expectNothing(stranger, 'files.home.thicket', ['tcp/80', ...SIDE_DOORS]);
      // Of a group called family, too: of its own network's.
      await expectNothing(stranger, 'light1.home.thicket', ['tcp/80', ...SIDE_DOORS]);
    }, 60_000);

    test('reaches exactly what is allowed to it', async () => {
      await gw.thicket(['allow', who(), 'files:80']);
      expect(await knock(stranger.host, { at: 'files.home.thicket', ports: ['tcp/80', ...SIDE_DOORS], from: port() })).toEqual(['tcp/80']);
      await expectNothing(stranger, 'light1.home.thicket', ['tcp/80', ...SIDE_DOORS]);
      await expectNothing(stranger, 'camera.home.thicket', ['tcp/554', ...SIDE_DOORS]);
      await expectNothing(stranger, 'gw.home.thicket', SIDE_DOORS);
    }, 60_000);

    test('loses the live session within 2 s of trust remove, with what the kernel kept of it', async () => {
      const overlay = await world.lab.capture('stranger', 'thicket0');
      const source = port();
      const file = stranger.host.path(`part-${kind}`);
      const url = 'http://files.home.thicket/big.bin';
      // With room for megabytes curl would take them in one gulp, and then nothing for long.
      await stranger.host.exec(['sysctl', '-qw', 'net.ipv4.tcp_rmem=4096 65536 131072']);
      await stranger.host.spawn(['curl', '-s', '--limit-rate', '1M', '--local-port', String(source), '-o', file, url]);
      await gw.thicket(['allow', who(), 'camera:554']);
      const video = { url: 'rtsp://camera.home.thicket:554/live', transport: 'udp', seconds: 60 } as const;
      const player = await startWatching(stranger.host, video);
      await waitFor(() => statSync(file).size > 1_000_000 && statSync(player.file).size > 0, { what: 'a download and a video that run' });
      const [session] = await sessionsWith(gw, stranger.key, 'files');
      expect(await flows(source)).toHaveLength(1);
      expect(await mediaSockets()).not.toEqual([]);

      const began = Date.now();
      await gw.thicket(['trust', 'remove', trusted()]);
      const isOver = async (): Promise<boolean> => {
        const left = await Promise.all([flows(source), sessionsWith(gw, stranger.key), mediaSockets()]);
        return left.every(({ length }) => length === 0);
      };
      await waitFor(isOver, {
        timeoutMs: 2_000 - (Date.now() - began),
        what: `the end of the session with ${session?.addresses.join(', ') ?? 'nobody'}`,
      });
      const ended = Date.now();
      await player.process.kill('SIGKILL');
      // The way is good, as the next one who is trusted shows; of the old connection nothing comes over it.
      await gw.thicket(['trust', 'add', trusted()]);
      await allowedArrives(stranger, 'files.home.thicket');
      await overlay.stop();
      const got = [...overlay.packets()].filter((p) => /^198\.18\.0\.1$|^fd.*::1$/.test(p.destination) && p.payload.length > 0);
      const [ofFile, ofVideo] = [got.filter((p) => p.destinationPort === source), got.filter((p) => p.protocol === 17)];
      expect([ofFile.length > 10, ofVideo.length > 10]).toEqual([true, true]);
      expect([...ofFile, ...ofVideo].filter((p) => p.at * 1_000 > ended)).toEqual([]);
      for (const service of ['files:80', 'camera:554']) await gw.thicket(['deny', who(), service]);
      await gw.thicket(['trust', 'remove', trusted()]);
    }, 60_000);
  });

  test('must itself trust us: what it does not admit it neither calls nor answers', async () => {
    const [home, strange] = [world.owner('home').id, world.owner('strange').id];
    const pings = async (node: WorldNode, key: string): Promise<boolean> =>
      (await node.thicket(['ping', key, '-c', '1'], { check: false })).code === 0;
    await gw.thicket(['trust', 'add', strange]);
    expect(await pings(stranger, gw.key)).toBe(true);
    expect(await pings(gw, stranger.key)).toBe(true);
    await stranger.thicket(['trust', 'remove', home]);
    await waitFor(async () => (await sessionsWith(stranger, gw.key)).length === 0, { timeoutMs: 2_000, what: 'the end of its sessions' });
    expect(await Promise.all([pings(stranger, gw.key), pings(gw, stranger.key)])).toEqual([false, false]);
    await stranger.thicket(['trust', 'add', home]);
    expect(await pings(gw, stranger.key)).toBe(true);
    await gw.thicket(['trust', 'remove', strange]);
    // Nor did one member's trust open another's door.
    expect(await Promise.all([pings(stranger, gw.key), pings(viewer, stranger.key)])).toEqual([false, false]);
  }, 60_000);
});

/** A node's sessions with a key, of the endpoint called `name` where one is named. */
async function sessionsWith(node: WorldNode, key: string, name?: string): Promise<SessionDocument[]> {
  const { sessions, services }: StatusDocument = await node.status();
  const own = services.find((service) => service.name.split('.', 1)[0] === name)?.key;
  return sessions.filter((session) => session.key === key && (name === undefined || session.own === own));
}

/** The gateway's UDP sockets on the camera's LAN: what the video comes in by. */
async function mediaSockets(): Promise<string[]> {
  const { stdout } = await gw.host.exec(['ss', '-Huanp']);
  return stdout.split('\n').filter((line) => line.includes('192.168.1.1:'));
}

/** What the gateway's connection tracking holds of flows from this source port. */
async function flows(source: number): Promise<string[]> {
  const { stdout } = await gw.host.exec(['conntrack', '-L', '-p', 'tcp', '--orig-port-src', String(source)]);
  return stdout.split('\n').filter((line) => line.includes('src='));
}
