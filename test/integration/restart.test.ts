/** Nodes that are killed, restored, started in 1970 or ended: streams go on, nothing leaks, others aren't touched, the host is left as it was. */
import { cpSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { repository, waitFor } from '../lab/index.js';
import { type NodeName, Player, Pulse, switchLight, World, type WorldNode } from '../world/index.js';

/** From the start of a killed node on. */
const GOES_ON_WITHIN = 10_000;
/** Pictures that can't have been under way any more when the node died: two seconds' worth. */
const PICTURES = 50;
/** A flow that has nothing to do with the killed node has no longer pause than a busy machine explains. */
const PAUSE = 1_500;

let world: World;
let player: Player;
/** viewer2 ─ mid ─ gw2: numbers, ten a second, and their echo. */
let bystander: Pulse;
let untouched: Map<NodeName, string>;

beforeAll(async () => {
  world = await World.create({
    idle: ['viewer2', 'gw2'],
    configure: (name, config) =>
      name === 'gw2'
        ? {
            ...config,
            endpoints: [
              ...(config.endpoints ?? []),
              { name: 'lines', services: [{ port: 'tcp/7', target: '192.168.2.31:7', allow: ['group:family'] }] },
            ],
          }
        : config,
  });
  untouched = new Map();
  for (const name of ['viewer2', 'gw2'] as const) {
    untouched.set(name, await world.lab.host(name).snapshot());
    await world.node(name).start();
  }
  const lines = join(repository, 'test', 'fixtures', 'lines.py');
  const server = await world.lab.host('lamp').spawn(['python3', lines, 'serve', '192.168.2.31', '7', 'tcp']);
  await server.waitForLine(/^ready$/);
  const viewer2 = world.node('viewer2');
  const address = await viewer2.lookup('lines.gw2.home.thicket', 4);
  bystander = new Pulse(await viewer2.host.spawn(['python3', '-u', lines, 'send', address, '7', 'tcp']));
  await bystander.process.waitForLine(/^echo 3$/);
  const viewer = world.node('viewer');
  player = await Player.start(viewer.host, await viewer.lookup('camera.home.thicket', 4));
}, 120_000);

afterAll(async () => {
  bystander?.end();
  await world?.destroy();
}, 30_000);

describe('after kill -9 and start the same player on the same connection goes on, and nobody else notices', () => {
  test.each([
    // `apart`: nodes that have no link to the killed one.
    { name: 'gw', apart: ['mid', 'viewer', 'viewer2', 'gw2', 'stranger'], bystander: true },
    { name: 'mid', apart: ['gw'], bystander: false },
    { name: 'root', apart: ['viewer', 'viewer2', 'gw2', 'stranger'], bystander: true },
    { name: 'viewer', apart: ['root', 'gw', 'viewer2', 'gw2', 'stranger'], bystander: true },
  ] as const)(
    '$name',
    async ({ name, apart, bystander: unharmed }) => {
      const node = world.node(name);
      const connections = await player.connections();
      const before = await stateOf(apart);
      bystander.forget();
      await node.killHard();
      const frames = player.frames;
      const started = performance.now();
      await node.start();
      await waitFor(() => player.frames > frames + PICTURES, {
        timeoutMs: GOES_ON_WITHIN - (performance.now() - started),
        what: `the stream after ${name}'s return`,
      });
      // It doesn't end there.
      const again = player.frames;
      await waitFor(() => player.frames > again + PICTURES, { timeoutMs: 5_000, what: `more of the stream after ${name}'s return` });
      expect(player.process.running).toBe(true);
      expect(await player.connections()).toEqual(connections);
      expect(connections).toHaveLength(1);
      for (const [who, then] of before) {
        const now = (await stateOf([who as NodeName])).get(who);
        expect({ who, ...now }).toEqual({ who, ...then, sessions: expect.anything() });
        for (const [session, age] of Object.entries(then.sessions)) expect(now?.sessions[session]).toBeGreaterThanOrEqual(age);
      }
      if (unharmed) expect(bystander.longestPause()).toBeLessThan(PAUSE);
      // The next test starts from a whole tree. A node without traffic learns of its parent's death with its next keep-alive only, or now.
      await world.node('stranger').thicket(['resolve', 'camera.home.thicket'], { check: false });
      await world.settled();
    },
    40_000,
  );
});

test('while a node is dead, no packet for its pool leaves by another interface', async () => {
  const viewer = world.node('viewer');
  const { sessions, interface: tun } = await viewer.status();
  const addresses = sessions.flatMap((session) => session.addresses);
  expect(addresses.length).toBeGreaterThan(0);
  const capture = await world.lab.capture('viewer', 'wan0');
  await viewer.killHard();
  await Promise.all(
    [...addresses, '198.19.255.254'].flatMap((address) => [
      viewer.host.exec(['ping', '-c', '2', '-W', '1', address], { check: false }),
      viewer.host.exec(['curl', '-s', '-m', '1', `http://${address.includes(':') ? `[${address}]` : address}/`], { check: false }),
      viewer.host.exec(['sh', '-c', `echo x | timeout 1 nc -u -w 1 ${address} 9`], { check: false }),
    ]),
  );
  // That the capture sees what leaves: towards an address outside of the pool it does.
  await viewer.host.exec(['ping', '-c', '1', '-W', '1', '198.20.0.1'], { check: false });
  const frames = player.frames;
  await viewer.start();
  await waitFor(() => player.frames > frames + PICTURES, { timeoutMs: GOES_ON_WITHIN, what: "the stream after the viewer's return" });
  await capture.stop();
  const prefix = tun?.ipv6?.replace(/::\/64$/, ':');
  expect(prefix).toMatch(/^fd/);
  const ofPool = (address: string): boolean => /^198\.1[89]\./.test(address) || address.startsWith(prefix ?? 'fd');
  const packets = [...capture.packets()];
  expect(packets.some((packet) => packet.destination === '198.20.0.1')).toBe(true);
  expect(
    packets.filter(({ source, destination }) => ofPool(source) || ofPool(destination)).map((p) => `${p.source} ${p.destination}`),
  ).toEqual([]);
}, 60_000);

test('nodes whose state directories were restored from an hour ago join, and so do nodes that boot in 1970', async () => {
  const pair = [world.node('gw2'), world.node('viewer2')];
  const saved = (node: WorldNode): string => world.lab.host(node.name).path('saved');
  for (const node of pair) {
    cpSync(node.host.state, saved(node), { recursive: true, filter: (file) => !file.endsWith('.sock') });
    // The hour: boots that others have seen and the copy has not.
    for (let boot = 0; boot < 3; boot += 1) {
      await node.killHard();
      await node.start();
    }
    await node.killHard();
    rmSync(node.host.state, { recursive: true });
    cpSync(saved(node), node.host.state, { recursive: true });
  }
  await Promise.all(pair.map((node) => node.start()));
  await expectLamp(true);
  for (const node of pair) expect(node.log).toMatch(/the boot epoch was behind/);

  const preload = '/usr/$LIB/faketime/libfaketime.so.1';
  const env = { LD_PRELOAD: preload, FAKETIME: '@1970-01-01 00:00:05', FAKETIME_DONT_FAKE_MONOTONIC: '1' };
  await Promise.all(pair.map((node) => node.stop()));
  await Promise.all(pair.map((node) => node.start({ env })));
  for (const node of pair) expect(node.process.stderr.concat(node.process.stdout).join('\n')).toMatch(/"time":\d{1,5},/);
  await expectLamp(false);
}, 90_000);

test('after SIGTERM the host shows what it showed before the first start, kills in between or not', async () => {
  for (const [name, before] of untouched) {
    const node = world.node(name);
    await node.killHard();
    await node.start();
    const { code, signal } = await node.stop();
    expect({ code, signal }).toEqual({ code: 0, signal: null });
    expect(await node.host.snapshot()).toBe(before);
  }
}, 60_000);

async function expectLamp(on: boolean): Promise<void> {
  const { host } = world.node('viewer2');
  expect(
    await waitFor(() => switchLight(host, 'http://lamp.home.thicket/light', on).then(String), { timeoutMs: 15_000, what: 'the lamp' }),
  ).toBe(String(on));
}

interface State {
  readonly pid: number;
  /** Links that came and went, as logged, but for those of the killed node, whom these don't know. */
  readonly links: readonly string[];
  readonly sessions: Readonly<Record<string, number>>;
}

async function stateOf(names: readonly NodeName[]): Promise<Map<string, State>> {
  const states = new Map<string, State>();
  for (const name of names) {
    const node = world.node(name);
    const { links, sessions } = await node.status();
    // mid keeps its other neighbours when one of them is killed; who is apart from the killed node has its own log as the witness.
    const logged = node.log.split('\n').filter((line) => /link (up|down)/.test(line));
    states.set(name, {
      pid: node.process.pid,
      links: [...logged, ...links.map(({ key, state }) => `${key} ${state}`).sort()],
      sessions: Object.fromEntries(sessions.map((session) => [`${session.own} ${session.key}`, session.ageSeconds])),
    });
  }
  return states;
}
