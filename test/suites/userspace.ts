/**
 * Nodes without an interface and without any privilege: they do what those with one do, whoever is at the other end. A suite that test files run with the
 * backends that they are for.
 */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { SessionDocument } from '../../ts/control/documents.js';
import { type Host, type Process, repository, waitFor } from '../lab/index.js';
import {
  decode,
  fetchSha256,
  type NodeName,
  type NodePlan,
  publishAndSubscribe,
  SOCKS_PORT,
  switchLight,
  World,
  type WorldNode,
  watch,
} from '../world/index.js';

type Endpoint = NodePlan['endpoints'][number];

const PARROT = join(repository, 'test', 'fixtures', 'parrot.py');
const CROWD = join(repository, 'test', 'fixtures', 'crowd.py');
const FAMILY = ['group:family'];
/** The gateway without an interface, and the one with one; what stands behind each. */
const GATEWAYS = [
  ['user space', 'gw', 'light1', '192.168.1.31'],
  ['a TUN', 'gw2', 'lamp', '192.168.2.31'],
] as const;
const VIEWERS = [
  ['user space', 'viewer2'],
  ['a TUN', 'viewer'],
] as const;

/** Beside what it has: a parrot, a port where nobody listens, and a device that isn't there. */
function withParrot(endpoint: Endpoint, address: string): Endpoint {
  const more = [
    { port: 'tcp/7000', target: `${address}:7000` },
    { port: 'udp/7000', target: `${address}:7000` },
    { port: 'tcp/5201', target: `${address}:5201` },
    { port: 'tcp/7001', target: `${address}:7001` },
    { port: 'tcp/7003', target: `${address}:7003` },
    { port: 'tcp/7002', target: `${address.replace(/\d+$/, '99')}:80` },
  ].map((service) => ({ ...service, allow: FAMILY }));
  return { ...endpoint, services: [...(endpoint.services ?? []), ...more] };
}

/** Megabytes of memory that a node takes. */
function resident({ process: { pid } }: WorldNode): number {
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) / 1_024;
}

/** Talks until it is stopped. */
const TALK = `
import socket, sys, time
s = socket.create_connection((sys.argv[1], int(sys.argv[2])))
print("open")
try:
    while True:
        s.sendall(b"x")
        time.sleep(0.1)
except OSError as e:
    print(e)
`;

const parrot = async (host: Host, ...args: readonly string[]): Promise<string> => {
  const { stdout } = await host.exec(['/usr/bin/python3', PARROT, ...args], { timeoutMs: 60_000 });
  return stdout.trim();
};

/** `wasm`: those of its nodes that move packets in WebAssembly. Viewer and gw2 have interfaces, viewer2 and gw have none. */
export function userspaceSuite(wasm: readonly NodeName[]): void {
  let world: World;
  let viewer: WorldNode;
  let viewer2: WorldNode;
  let gw: WorldNode;
  const before = new Map<string, string>();

  beforeAll(async () => {
    world = await World.create({
      nodes: ['root', 'mid', 'gw', 'gw2', 'viewer', 'viewer2'],
      idle: ['gw', 'viewer2'],
      plan: (name, plan) => {
        const more = GATEWAYS.find(([, gateway]) => gateway === name);
        const endpoints =
          more === undefined ? plan.endpoints : plan.endpoints.map((e) => (e.name === more[2] ? withParrot(e, more[3]) : e));
        return {
          ...plan,
          endpoints,
          userspace: name === 'gw' || name === 'viewer2',
          ...(wasm.includes(name) ? { backend: 'wasm' as const } : {}),
        };
      },
    });
    [viewer, viewer2, gw] = [world.node('viewer'), world.node('viewer2'), world.node('gw')];
    for (const [, , device, address] of GATEWAYS) {
      const parrot = await world.lab.host(device).spawn(['/usr/bin/python3', PARROT, 'serve', address, '7000']);
      await parrot.waitForLine(/^ready$/);
    }
    for (const node of [gw, viewer2]) {
      before.set(node.name, await node.host.snapshot());
      await node.start();
    }
    await world.settled();
  }, 120_000);

  afterAll(async () => {
    await world?.destroy();
  }, 30_000);

  describe('a node without privileges', () => {
    test('says why it has no interface, and changes nothing of its host', async () => {
      for (const node of [gw, viewer2]) {
        const reason = wasm.includes(node.name) ? /wasm backend makes no interface/ : /CAP_NET_ADMIN/;
        expect(await node.status()).toMatchObject({
          mode: 'userspace',
          modeReason: expect.stringMatching(reason),
          interface: null,
        });
        expect(node.log).toMatch(/user-space mode: /);
        expect(node.log).toMatch(reason);
        expect(await node.host.snapshot()).toBe(before.get(node.name));
      }
      expect(await viewer.status()).toMatchObject({ mode: 'tun', modeReason: null });
    });

    test('resolves names by a DNS server on loopback', async () => {
      const { dns } = await viewer2.status();
      const { stdout } = await viewer2.host.exec([
        'dig',
        `@${dns?.addresses[0]}`,
        '-p',
        String(dns?.port),
        '+short',
        'light1.home.thicket',
        'A',
      ]);
      expect(stdout.trim()).toBe((await viewer2.json<{ readonly ipv4: string }>(['resolve', 'light1.home'])).ipv4);
    });
  });

  describe.each(VIEWERS)('a viewer in %s', (_, viewerName) => {
    describe.each(GATEWAYS)('with a gateway in %s', (__, gateway, device) => {
      // Neither end is what is to be tested here; the native suite has it.
      if (wasm.length > 0 && viewerName === 'viewer' && gateway === 'gw2') return;
      const from = (): WorldNode => world.node(viewerName);

      test('uploads 20 MB, half-closes, and is answered', async () => {
        const [host = '', port = ''] = from().at(device, 7_000).split(':');
        expect(await parrot(from().host, 'tcp', host, port, '20000000')).toBe('whole');
      }, 60_000);

      test('switches a light', async () => {
        const url = `http://${from().at(device, 80)}/light`;
        expect(await switchLight(from().host, url, true)).toBe(true);
        expect(await switchLight(from().host, url, false)).toBe(false);
      });

      test('gets every datagram echoed', async () => {
        const proxy = from().plan.userspace === true ? [String(SOCKS_PORT)] : [];
        expect(await parrot(from().host, 'udp', `${device}.home.thicket`, '7000', '100', ...proxy)).toBe('100 echoed');
      }, 60_000);

      test('is refused where nobody listens and where nothing is allowed, and told where there is no device', async () => {
        // A forward has accepted by then, and can only reset.
        const refused = from().plan.userspace === true ? /reset|not connected|broken pipe/i : /refused/i;
        const get = async (port: number): Promise<string> => {
          const at = from().at(device, port).split(':');
          const { stderr } = await from().host.exec(['/usr/bin/python3', PARROT, 'tcp', at[0] ?? '', at[1] ?? '', '1'], { check: false });
          return stderr.trim().split('\n').at(-1) ?? '';
        };
        expect(await get(7_001)).toMatch(refused);
        if (from() === viewer) expect(await get(7_002)).toMatch(/no route|unreachable/i);
        await world.node(gateway).thicket(['deny', 'group:family', `${device}:80`]);
        expect(await get(80)).toMatch(refused);
        await world.node(gateway).thicket(['allow', 'group:family', `${device}:80`]);
        expect(await get(80)).not.toMatch(refused);
      }, 60_000);

      test('loses a live connection when its service is denied', async () => {
        const [host = '', port = ''] = from().at(device, 7_000).split(':');
        const open = await from().host.spawn(['/usr/bin/python3', '-u', '-c', TALK, host, port]);
        await open.waitForLine(/^open$/);
        await reaches(world.node(gateway), device);
        await world.node(gateway).thicket(['deny', 'group:family', `${device}:tcp/7000`]);
        await ends(open);
        await world.node(gateway).thicket(['allow', 'group:family', `${device}:tcp/7000`]);
      }, 60_000);
    });
  });

  /** A flow to this endpoint has come up at its gateway. */
  const reaches = (gateway: WorldNode, device: string): Promise<unknown> =>
    waitFor(
      async () => {
        const own = (await gateway.status()).services.find(({ name }) => name === device)?.key;
        return (await gateway.json<readonly SessionDocument[]>(['sessions'])).some((session) => session.own === own && session.flows > 0);
      },
      { what: 'the flow' },
    );

  /** A connection whose service is denied is cut, and who talks on hears of it. */
  async function ends(open: Process): Promise<void> {
    await waitFor(() => !open.running, { what: 'the end of the connection', timeoutMs: 10_000 });
    expect(open.stdout.join()).toMatch(/reset|broken pipe/i);
  }

  describe('real programs', () => {
    test('a player with an interface watches a camera behind a gateway without one, and with UDP media of a native one', async () => {
      for (const transport of wasm.includes('gw') ? (['tcp'] as const) : (['tcp', 'udp'] as const)) {
        const { file } = await watch(viewer.host, { url: 'rtsp://camera.home.thicket:554/live', transport, seconds: 4 });
        const { frames, errors } = await decode(viewer.host, file);
        expect([transport, errors]).toEqual([transport, []]);
        expect(frames).toBeGreaterThanOrEqual(3 * 25);
      }
    }, 60_000);

    test('a player without one does, too, by a forward', async () => {
      const { file } = await watch(viewer2.host, { url: `rtsp://${viewer2.at('camera', 554)}/live`, transport: 'tcp', seconds: 4 });
      const { frames, errors } = await decode(viewer2.host, file);
      expect(errors).toEqual([]);
      expect(frames).toBeGreaterThanOrEqual(3 * 25);
    }, 60_000);

    test('iperf3 moves 20 MB each way by forwards', async () => {
      const server = await world.lab.host('light1').spawn(['iperf3', '-s', '-p', '5201', '--forceflush']);
      await server.waitForLine(/listening on 5201/);
      const [host = '', port = ''] = viewer2.at('light1', 5_201).split(':');
      for (const direction of [[], ['-R']]) {
        const { stdout } = await viewer2.host.exec(['iperf3', '-c', host, '-p', port, '-n', '20M', '-J', ...direction], {
          timeoutMs: 60_000,
        });
        const { end } = JSON.parse(stdout) as { readonly end: { readonly sum_received: { readonly bytes: number } } };
        // It says so when all is sent: some is on its way then.
        expect(end.sum_received.bytes).toBeGreaterThan(10 * 1_048_576);
      }
      await server.kill();
    }, 90_000);

    test('of 500 connections through one gateway half read nothing: the others get all, memory is bounded, and then they get all, too', async () => {
      const server = await world.lab.host('light1').spawn(['/usr/bin/python3', CROWD, 'serve', '192.168.1.31', '7003']);
      await server.waitForLine(/^ready$/);
      const crowd = await viewer.host.spawn(['/usr/bin/python3', CROWD, 'call', 'light1.home.thicket', '7003', '500']);
      expect((await crowd.waitForLine(/^quick (\d+)$/, 60_000))[1]).toBe('250');
      const { userspace } = await gw.status();
      expect(userspace?.streams).toBeGreaterThanOrEqual(250);
      // The default budget.
      expect(userspace?.buffered).toBeLessThanOrEqual(64 * 1_048_576);
      expect(resident(gw)).toBeLessThanOrEqual(200);
      crowd.signal('SIGUSR1');
      expect((await crowd.waitForLine(/^slow (\d+)$/, 60_000))[1]).toBe('250');
      await server.kill();
    }, 150_000);

    test('100 MB come whole, and nothing of them is left', async () => {
      expect(await fetchSha256(viewer2.host, `http://${viewer2.at('files', 80)}/big.bin`)).toBe(world.devices.files.bigSha256);
      for (const node of [gw, viewer2]) {
        const left = async (): Promise<unknown> => (await node.status()).userspace;
        await waitFor(async () => (await node.status()).userspace?.buffered === 0, { what: `empty buffers at ${node.name}` });
        expect(await left()).toMatchObject({ buffered: 0, refused: 0 });
      }
    }, 180_000);

    test('1,000 QoS 1 messages go from one viewer to the other', async () => {
      const got = await publishAndSubscribe(viewer.host, viewer2.host, ['broker.home.thicket', '127.0.0.1'], 1_000, [
        1_883,
        Number(viewer2.at('broker', 1_883).split(':')[1]),
      ]);
      expect(got).toEqual(Array.from({ length: 1_000 }, (_value, n) => String(n)));
    }, 60_000);
  });
}
