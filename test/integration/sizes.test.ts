/** Paths of every common size: all arrives, and no link between nodes sees an IP fragment. The narrow place is the router's, where no node can see it. */
import { createHash, randomFillSync } from 'node:crypto';
import { statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { SessionDocument } from '../../ts/control/documents.js';
import { type Host, repository, waitFor } from '../lab/index.js';
import { decode, fetchSha256, World, type WorldNode, watch } from '../world/index.js';

const FIXTURE = join(repository, 'test', 'fixtures', 'sizes.py');
const PORT = 5000;
const FILE_BYTES = 16_000_000;
/** Payloads: an MPEG transport stream's, RTP's of 1,428 and 1,500 bytes, the longest that a LAN takes whole, and one in three fragments there. */
const LENGTHS = [1316, 1428, 1472, 1500, 4000];
const NODES = ['root', 'mid', 'gw', 'viewer'] as const;
const FRAGMENTS = `table inet fragments {
  chain seen { type filter hook prerouting priority -450;
    iifname "wan0" ip frag-off & 0x3fff != 0 counter
    iifname "wan0" exthdr frag exists counter
  }
}`;

let world: World;
let viewer: WorldNode;
let inet: Host;
let sha256: string;

async function build(ipv6: boolean): Promise<void> {
  world = await World.create({
    ipv6,
    nodes: NODES,
    siteDns: false,
    configure: (name, config) =>
      name !== 'gw'
        ? config
        : {
            ...config,
            endpoints: (config.endpoints ?? []).map((endpoint) =>
              endpoint.name !== 'files'
                ? endpoint
                : {
                    ...endpoint,
                    services: [
                      ...(endpoint.services ?? []),
                      { port: `udp/${PORT}`, target: `192.168.1.22:${PORT}`, allow: ['group:family'] },
                    ],
                  },
            ),
          },
  });
  viewer = world.node('viewer');
  inet = world.lab.host('inet');
  const bytes = randomFillSync(Buffer.allocUnsafe(FILE_BYTES));
  writeFileSync(join(world.devices.files.dir, 'file.bin'), bytes);
  sha256 = createHash('sha256').update(bytes).digest('hex');
  const echo = await world.lab.host('files').spawn(['python3', FIXTURE, 'serve', '192.168.1.22', String(PORT)]);
  await echo.waitForLine(/^ready$/);
  for (const name of NODES) await world.lab.host(name).exec(['nft', '-f', '-'], { stdin: FRAGMENTS });
}

/** What the router's links take from now on; it says so to nobody if `silent`. */
async function narrow(mtu: number, silent: boolean): Promise<void> {
  const rule = silent ? 'ip protocol icmp drop; icmpv6 type packet-too-big drop;' : '';
  const chain = `table inet quiet\ndelete table inet quiet\ntable inet quiet { chain out { type filter hook output priority 0; ${rule} }; }`;
  await inet.exec(['nft', '-f', '-'], { stdin: chain });
  for (const name of NODES) await inet.exec(['ip', 'link', 'set', name, 'mtu', String(mtu)]);
}

async function echoed(tos: number, lengths: readonly number[]): Promise<Record<string, { came: number; classes: number[] }>> {
  const address = await viewer.lookup('files.home.thicket', 4);
  const call = ['python3', FIXTURE, 'call', address, String(PORT), String(tos), ...lengths.map(String)];
  const { stdout } = await viewer.host.exec(call, { timeoutMs: 60_000 });
  return JSON.parse(stdout) as Record<string, { came: number; classes: number[] }>;
}

async function pathMtus(name: 'viewer' | 'gw'): Promise<(number | null)[]> {
  const sessions = await world.node(name).json<SessionDocument[]>(['sessions']);
  return sessions.filter((s) => s.state === 'up' && s.flows > 0).map((s) => s.pathMtu);
}

/** IP fragments that came to any node over its uplink. */
async function fragments(): Promise<number> {
  const texts = await Promise.all(NODES.map((name) => world.lab.host(name).exec(['nft', 'list', 'table', 'inet', 'fragments'])));
  return texts.flatMap(({ stdout }) => [...stdout.matchAll(/packets (\d+)/g)]).reduce((sum, match) => sum + Number(match[1]), 0);
}

/** [bytes, whether routers drop what they should answer] */
type Narrow = readonly [number, boolean];

function testPaths(paths: readonly Narrow[]): void {
  test.each(paths)(
    'over links of %i bytes, silent routers: %p, a file and datagrams of all sizes arrive both ways',
    async (mtu, silent) => {
      await narrow(mtu, silent);
      // Another session, which knows nothing yet.
      await viewer.restart();
      await world.settled();
      const url = `http://${await viewer.lookup('files.home.thicket', 4)}/file.bin`;
      expect(await fetchSha256(viewer.host, url)).toBe(sha256);
      const whole = (tos: number) => Object.fromEntries(LENGTHS.map((length) => [length, { came: 20, classes: [tos] }]));
      // Expedited forwarding with each mark of ECN (RFC 3168).
      for (const tos of [0xb8, 0xb9, 0xba, 0xbb]) expect(await echoed(tos, LENGTHS)).toEqual(whole(tos));
      await waitFor(async () => (await pathMtus('viewer')).includes(mtu) && (await pathMtus('gw')).includes(mtu), {
        timeoutMs: 15_000,
        what: `paths of ${mtu} bytes`,
      });
      expect(await fragments()).toBe(0);
    },
    60_000,
  );
}

function testFragments(): void {
  test('a fragment would have been seen', async () => {
    await narrow(1500, false);
    await viewer.host.exec(['ping', '-c', '1', '-M', 'dont', '-s', '3000', world.lab.host('root').address]);
    expect(await fragments()).toBeGreaterThan(0);
  }, 20_000);
}

afterAll(async () => {
  await world?.destroy();
}, 30_000);

describe('over IPv4', () => {
  beforeAll(() => build(false), 120_000);

  testPaths([
    [1500, false],
    [1492, true],
    [1400, false],
    [1280, true],
  ]);

  test('RTP packets of 1,428 and of 1,500 bytes arrive over links of 1,280', async () => {
    const address = await viewer.lookup('camera.home.thicket', 4);
    for (const size of [1428, 1500]) {
      const video = await watch(viewer.host, { url: `rtsp://${address}:554/live${size}`, transport: 'udp', seconds: 2 });
      expect(video.complaints).toEqual([]);
      const decoded = await decode(viewer.host, video.file);
      expect(decoded.errors).toEqual([]);
      expect(decoded.frames).toBeGreaterThan(25);
    }
    expect(await fragments()).toBe(0);
  }, 60_000);

  test.each(['a silent router', 'the gateway itself'] as const)(
    'a transfer goes on when %s shrinks the path under it',
    async (where) => {
      await narrow(1500, true);
      await viewer.restart();
      await world.settled();
      const file = viewer.host.path('running');
      const url = `http://${await viewer.lookup('files.home.thicket', 4)}/file.bin`;
      // The LAN hands the gateway super-packets, which are cut anew.
      const seen = await world.lab.host('gw').spawn(['tcpdump', '-ni', 'lan0', '-c', '1', 'src port 80 and greater 4000']);
      await seen.waitForLine(/listening on/);
      const curl = await viewer.host.spawn(['curl', '-sSf', '--limit-rate', '4M', '-o', file, url]);
      await waitFor(async () => (await pathMtus('gw')).includes(1500) && statSync(file).size > 2_000_000, { what: 'the transfer' });
      if (where === 'a silent router') await narrow(1280, true);
      else await world.lab.host('gw').exec(['ip', 'link', 'set', 'wan0', 'mtu', '1280']);
      const { code } = await curl.exit;
      expect(code).toBe(0);
      const { stdout } = await viewer.host.exec(['sha256sum', file]);
      expect(stdout.slice(0, 64)).toBe(sha256);
      expect((await seen.exit).code).toBe(0);
      expect(await fragments()).toBe(0);
      await world.lab.host('gw').exec(['ip', 'link', 'set', 'wan0', 'mtu', '1500']);
    },
    60_000,
  );

  testFragments();
});

describe('over IPv6', () => {
  beforeAll(async () => {
    await world?.destroy();
    await build(true);
  }, 120_000);

  testPaths([
    [1500, false],
    [1400, true],
    [1280, false],
  ]);

  testFragments();
});
