/** What Thicket is for, with the real programs: video, files, lights and messages from anywhere, over A and over AAAA, and the tree's ways. */
import type { RouteDocument, ServiceDocument, TraceDocument } from '../../ts/control/documents.js';
import { type Capture, type Host, waitFor } from '../lab/index.js';
import {
  decode,
  fetchSha256,
  publishAndSubscribe,
  startWatching,
  switchLight,
  urlHost,
  type Video,
  World,
  type WorldNode,
  watch,
  watched,
} from '../world/index.js';

const FAMILIES = [
  ['A', 4],
  ['AAAA', 6],
] as const;
const SECONDS = 20;
const FRAMES_PER_SECOND = 25;
/** A second may pass until the first picture that stands alone. */
const FRAMES = (SECONDS - 1) * FRAMES_PER_SECOND;
const PORTS = [6100, 6101] as const;

let world: World;
let viewer: WorldNode;
let viewer2: WorldNode;

beforeAll(async () => {
  world = await World.create();
  viewer = world.node('viewer');
  viewer2 = world.node('viewer2');
}, 120_000);

afterAll(async () => {
  await world?.destroy();
}, 30_000);

// Before anything talks through the root: its counters stand still then.
describe('the tree', () => {
  test('viewer and second gateway, both under mid, talk without one data packet at the root', async () => {
    const [rootBefore, midBefore] = await relayed('root', 'mid');
    for (let n = 0; n < 20; n += 1) expect(await switchLight(viewer.host, 'http://lamp.home.thicket/light', n % 2 === 0)).toBe(n % 2 === 0);
    const [rootAfter, midAfter] = await relayed('root', 'mid');
    expect(rootAfter).toBe(rootBefore);
    // 20 times two connections, each with a handshake, a request, an answer and an end.
    expect(midAfter - midBefore).toBeGreaterThan(200);
  }, 60_000);

  test('every ancestor lists its whole subtree, with who is reached through whom', async () => {
    const endpoints = new Map<string, string>();
    for (const gateway of ['gw', 'gw2'] as const) {
      const services = await world.node(gateway).json<readonly ServiceDocument[]>(['services']);
      for (const { name, key } of services) endpoints.set(name.split('.', 1)[0] ?? '', key);
    }
    const key = (name: string): string => endpoints.get(name) ?? world.node(name as 'gw').key;
    const table = async (relay: 'root' | 'mid'): Promise<string[]> => {
      const routes = await world.node(relay).json<readonly RouteDocument[]>(['routes']);
      return routes.map((r) => `${r.key} under ${r.parent} via ${r.via}${r.endpoint ? ', endpoint' : ''}`).sort();
    };
    const lines = (via: string, parent: string, names: readonly string[], endpoint = false): string[] =>
      names.map((name) => `${key(name)} under ${key(parent)} via ${key(via === '' ? name : via)}${endpoint ? ', endpoint' : ''}`);
    expect(await table('root')).toEqual(
      [
        ...lines('', 'root', ['gw', 'mid']),
        ...lines('gw', 'gw', ['camera', 'broker', 'files', 'light1', 'light2'], true),
        ...lines('mid', 'mid', ['gw2', 'viewer', 'viewer2', 'stranger']),
        ...lines('mid', 'gw2', ['lamp'], true),
      ].sort(),
    );
    expect(await table('mid')).toEqual(
      [...lines('', 'mid', ['gw2', 'viewer', 'viewer2', 'stranger']), ...lines('gw2', 'gw2', ['lamp'], true)].sort(),
    );
  }, 30_000);

  test('a trace shows viewer, mid, root and the gateway that holds the endpoint', async () => {
    const { hops } = await viewer.json<TraceDocument>(['trace', 'camera.home.thicket']);
    const services = await world.node('gw').json<readonly ServiceDocument[]>(['services']);
    const camera = services.find(({ port }) => port === 'tcp/554')?.key;
    expect(hops.map(({ hop, key, role }) => ({ hop, key, role }))).toEqual([
      { hop: 1, key: world.node('mid').key, role: 'relay' },
      { hop: 2, key: world.node('root').key, role: 'relay' },
      { hop: 3, key: camera, role: 'end' },
    ]);
    for (const { rttMs } of hops) expect(rttMs).toBeGreaterThan(0);
  }, 30_000);

  test.each([
    ['viewer', 'mid', [20, 20, 20]],
    ['mid', 'root', [0, 20, 20]],
    ['root', 'gw', [0, 0, 20]],
  ] as const)(
    '20 ms more between %s and %s show in exactly the figures beyond',
    async (a, b, added) => {
      const before = await roundTrips();
      const undo = await world.lab.shim(a, b, { rttMs: 20 });
      try {
        const after = await roundTrips();
        for (const [hop, wanted] of added.entries()) expect(Math.abs((after[hop] ?? 0) - (before[hop] ?? 0) - wanted)).toBeLessThan(5);
      } finally {
        await undo();
      }
    },
    60_000,
  );
});

describe('the devices from afar', () => {
  test('two viewers watch the camera for 20 s over RTSP/TCP, one over A and one over AAAA', async () => {
    const videos = await Promise.all(
      [viewer, viewer2].map(async (node, index) => {
        const url = await cameraUrl(node, index === 0 ? 4 : 6);
        return watch(node.host, { url, transport: 'tcp', seconds: SECONDS });
      }),
    );
    await expectWhole(viewer.host, videos[0]);
    await expectWhole(viewer2.host, videos[1]);
  }, 120_000);

  describe.each(FAMILIES)('over RTSP/UDP, over %s', (_, family) => {
    let captures: { camera: Capture; viewer: Capture; viewer2: Capture };
    let videos: Video[];
    let probes: { readonly marker: string; readonly ports: readonly number[] };
    let socketsDuring = 0;
    let socketsLeft: string[] = [];
    let dropped = 0;

    beforeAll(async () => {
      captures = {
        camera: await world.lab.capture('camera', 'eth0'),
        viewer: await world.lab.capture('viewer', 'thicket0'),
        viewer2: await world.lab.capture('viewer2', 'thicket0'),
      };
      const readDropped = await dropFirstPackets(viewer2.host);
      const players = [];
      for (const node of [viewer, viewer2]) {
        const url = await cameraUrl(node, family);
        players.push(await startWatching(node.host, { url, transport: 'udp', seconds: SECONDS, ports: PORTS }));
      }
      const camera = await viewer.lookup('camera.home.thicket', family);
      const serverPort = await waitFor(() => mediaPort(captures.viewer, camera), { what: 'media from the camera' });
      probes = await probePorts(viewer.host, camera, serverPort);
      socketsDuring = (await mediaSockets()).length;
      videos = await Promise.all(players.map(watched));
      socketsLeft = await waitFor(async () => ((await mediaSockets()).length === 0 ? ['none'] : ''), { timeoutMs: 2_000 }).catch(
        mediaSockets,
      );
      dropped = await readDropped();
      for (const capture of Object.values(captures)) await capture.stop();
    }, 120_000);

    test('two viewers that both ask for client_port 6100-6101 get every picture, one with its own first packets dropped', async () => {
      expect(dropped).toBeGreaterThanOrEqual(2);
      await expectWhole(viewer.host, videos[0]);
      await expectWhole(viewer2.host, videos[1]);
    }, 60_000);

    test('not one RTP packet is missing or doubled, and all came to the ports asked for', () => {
      const sent = [...rtp(captures.camera, '192.168.1.20').values()];
      expect(sent).toHaveLength(2);
      for (const capture of [captures.viewer, captures.viewer2]) {
        const streams = rtp(capture);
        expect([...streams.keys()]).toEqual([PORTS[0]]);
        const got = streams.get(PORTS[0]) ?? [];
        // What the camera still sends until it has read TEARDOWN has nowhere to go.
        const whole = sent.filter(
          (sequences) => sequences.length - got.length <= 20 && sequences.slice(0, got.length).join() === got.join(),
        );
        expect(whole).not.toEqual([]);
      }
    });

    test('every other UDP port of the camera is closed', () => {
      expect(probes.ports.length).toBeGreaterThan(5);
      expect(captures.viewer.contains(probes.marker)).toBe(true);
      expect(captures.camera.contains(probes.marker)).toBe(false);
    });

    test('no LAN address occurs in what a viewer receives', () => {
      expect(captures.camera.contains('192.168.1.20')).toBe(true);
      for (const capture of [captures.viewer, captures.viewer2]) {
        expect(capture.contains('192.168.')).toBe(false);
        const addresses = new Set([...capture.packets()].flatMap(({ source, destination }) => [source, destination]));
        expect([...addresses].filter((address) => address.startsWith('192.168.'))).toEqual([]);
      }
    });

    test('nothing of it is left at the gateway 2 s after TEARDOWN', () => {
      expect(socketsDuring).toBeGreaterThanOrEqual(4);
      expect(socketsLeft).toEqual(['none']);
    });
  });

  test.each(FAMILIES)(
    'curl fetches 100 MB with equal SHA-256 over %s, through the root',
    async (_, family) => {
      const [before = 0] = await relayed('root');
      const address = await viewer.lookup('files.home.thicket', family);
      expect(await fetchSha256(viewer.host, `http://${urlHost(address)}/big.bin`)).toBe(world.devices.files.bigSha256);
      const [after = 0] = await relayed('root');
      // Neither MTU nor train lets more than 64 KiB into one datagram's worth.
      expect(after - before).toBeGreaterThan(100_000_000 / 65_536);
    },
    180_000,
  );

  test.each(FAMILIES)(
    'both lights switch over %s',
    async (_, family) => {
      for (const light of ['light1', 'light2'] as const) {
        const url = `http://${urlHost(await viewer.lookup(`${light}.home.thicket`, family))}/light`;
        expect(await switchLight(viewer.host, url, true)).toBe(true);
        expect(await switchLight(viewer.host, url, false)).toBe(false);
        // The light sees its gateway's LAN address, as with any NAT.
        await world.devices[light].process.waitForLine(/^light off by 192\.168\.1\.1$/);
      }
    },
    60_000,
  );

  test.each(FAMILIES)(
    '10,000 QoS 1 messages arrive over %s, none lost, none twice',
    async (_, family) => {
      const name = 'broker.home.thicket';
      const at = [await viewer.lookup(name, family), await viewer2.lookup(name, family)] as const;
      const got = await publishAndSubscribe(viewer.host, viewer2.host, at, 10_000);
      expect(got).toEqual(Array.from({ length: 10_000 }, (_value, n) => String(n)));
    },
    180_000,
  );
});

/** Data packets that these nodes forwarded for others so far. */
function relayed<N extends readonly ('root' | 'mid')[]>(...names: N): Promise<{ [K in keyof N]: number }> {
  return Promise.all(names.map(async (name) => (await world.node(name).status()).relay.packets)) as Promise<{ [K in keyof N]: number }>;
}

/** The quickest of some traces, hop by hop: waiting for a busy core only adds. */
async function roundTrips(): Promise<number[]> {
  const traces: TraceDocument[] = [];
  for (let n = 0; n < 7; n += 1) traces.push(await viewer.json<TraceDocument>(['trace', 'camera.home.thicket']));
  return [0, 1, 2].map((hop) => Math.min(...traces.map(({ hops }) => hops[hop]?.rttMs ?? Number.POSITIVE_INFINITY)));
}

async function cameraUrl(node: WorldNode, family: 4 | 6): Promise<string> {
  return `rtsp://${urlHost(await node.lookup('camera.home.thicket', family))}:554/live`;
}

async function expectWhole(host: Host, video: Video | undefined): Promise<void> {
  const { frames, errors } = await decode(host, video?.file ?? '');
  expect(errors).toEqual([]);
  expect(frames).toBeGreaterThanOrEqual(FRAMES);
}

/** Loses a player's first UDP packets before its node sees them; returns how to ask how many. */
async function dropFirstPackets(host: Host): Promise<() => Promise<number>> {
  const chain = 'chain output { type filter hook output priority 0; udp sport 6100-6101 quota until 130 bytes counter drop; }';
  await host.exec(['nft', '-f', '-'], { stdin: `table inet impair { ${chain}; }` });
  return async () => {
    const { stdout } = await host.exec(['nft', 'list', 'table', 'inet', 'impair']);
    await host.exec(['nft', 'delete', 'table', 'inet', 'impair']);
    return Number(/counter packets (\d+)/.exec(stdout)?.[1] ?? 0);
  };
}

/** The gateway's UDP sockets on the camera's LAN. */
async function mediaSockets(): Promise<string[]> {
  const { stdout } = await world.node('gw').host.exec(['ss', '-Huapn']);
  return stdout.split('\n').filter((line) => line.includes('192.168.1.1:'));
}

/** The UDP port of the camera that media come from, as this viewer sees it. */
function mediaPort(capture: Capture, camera: string): number | undefined {
  for (const packet of capture.packets()) {
    if (packet.protocol === 17 && packet.source === camera && packet.destinationPort === PORTS[0]) return packet.sourcePort;
  }
  return undefined;
}

/** Knocks at UDP ports of the camera, at its media ports too, but from a port that asked for nothing. */
async function probePorts(
  host: Host,
  camera: string,
  media: number,
): Promise<{ readonly marker: string; readonly ports: readonly number[] }> {
  const marker = `knock-${media}-${camera}`;
  const ports = [media, media + 1, media - 1, media + 2, 53, 554, 5000, 6970, 8554, 65_535];
  const script =
    'import socket,sys\nfor p in sys.argv[3:]:\n s=socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET,socket.SOCK_DGRAM)\n s.sendto(sys.argv[2].encode(),(sys.argv[1],int(p)))';
  await host.exec(['/usr/bin/python3', '-c', script, camera, marker, ...ports.map(String)]);
  return { marker, ports };
}

/** RTP sequence numbers of video packets, in the order in which they passed, by the port that they go to. */
function rtp(capture: Capture, from?: string): Map<number, number[]> {
  const streams = new Map<number, number[]>();
  for (const { protocol, source, destinationPort, payload } of capture.packets()) {
    if (protocol !== 17 || (from !== undefined && source !== from)) continue;
    if (!isVideo(payload, 0)) continue;
    const sequences = streams.get(destinationPort) ?? [];
    // Several datagrams may have been given to the interface as one super-packet, which the kernel cuts again behind the capture.
    for (let at = 0; at >= 0; at = following(payload, at)) sequences.push(payload.readUInt16BE(at + 2));
    streams.set(destinationPort, sequences);
  }
  return streams;
}

/** Version 2, payload type 96. */
const isVideo = (payload: Buffer, at: number): boolean =>
  payload.length >= at + 12 && (payload[at] ?? 0) >> 6 === 2 && ((payload[at + 1] ?? 0) & 0x7f) === 96;

/** Where behind an RTP packet the next of its stream begins: same SSRC, next sequence number. −1: it was the last. */
function following(payload: Buffer, at: number): number {
  const sequence = Buffer.alloc(2);
  sequence.writeUInt16BE((payload.readUInt16BE(at + 2) + 1) & 0xffff);
  const ssrc = payload.subarray(at + 8, at + 12);
  for (let found = payload.indexOf(sequence, at + 14); found >= 0; found = payload.indexOf(sequence, found + 1)) {
    if (isVideo(payload, found - 2) && payload.subarray(found + 6, found + 10).equals(ssrc)) return found - 2;
  }
  return -1;
}
