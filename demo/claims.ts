/** The claims of the demo: each function does what a user would do, and returns the figures that prove the claim or throws what it saw instead. */

import type { Capture, Host } from '../test/lab/index.js';
import {
  decode,
  dig,
  fetchSha256,
  publishAndSubscribe,
  SOCKS_PORT,
  switchLight,
  type World,
  type WorldNode,
  watch,
} from '../test/world/index.js';
import type { TraceDocument } from '../ts/control/documents.js';
import { expect } from './report.js';
import type { Tap, Watched } from './taps.js';

const FRAMES_PER_SECOND = 25;
const MESSAGES = 1_000;

/** `.thicket` is Thicket's, all else the site's own DNS server's, and programs notice nothing of it. */
export async function names(viewer: WorldNode): Promise<string> {
  const name = 'camera.home.thicket';
  const [v4, v6] = [await viewer.lookup(name, 4), await viewer.lookup(name, 6)];
  const site = await viewer.lookup('site.example', 4);
  expect(site === '192.0.2.80', `site.example is ${site}`);
  return `${name} is ${v4} and ${v6} here; site.example still comes from the site's DNS`;
}

/** Without an interface programs ask the node's own server, on a port of its own. */
export async function namesOnLoopback(viewer: WorldNode): Promise<string> {
  const { dns } = await viewer.status();
  const ask = (name: string, type: string) => dig(viewer.host, dns?.addresses[0] ?? '', ['-p', String(dns?.port), name, type]);
  const name = 'camera.home.thicket';
  const [v4, v6, other] = [await ask(name, 'A'), await ask(name, 'AAAA'), await ask('site.example', 'A')];
  expect(v4.answers.length === 1 && v6.answers.length === 1, v4.text);
  expect(other.status === 'REFUSED', `site.example is ${other.status}`);
  return `${name} is ${[...v4.answers, ...v6.answers].join(' and ')} here; of all but .thicket the server knows nothing`;
}

/** Returns the recording, too. */
export async function video(
  viewer: WorldNode,
  transport: 'tcp' | 'udp',
  seconds: number,
  marker: string,
): Promise<{ readonly file: string; readonly proof: string }> {
  const { file } = await watch(viewer.host, { url: `rtsp://${viewer.at('camera', 554)}/live?${marker}`, transport, seconds });
  const { frames, errors } = await decode(viewer.host, file);
  expect(errors.length === 0, errors.join('\n'));
  expect(frames >= (seconds - 1) * FRAMES_PER_SECOND, `only ${frames} pictures in ${seconds} s`);
  return { file, proof: `${frames} pictures in ${seconds} s, all decoded, 0 errors` };
}

export async function lights(viewer: WorldNode, marker: string): Promise<string> {
  for (const light of ['light1', 'light2']) {
    const url = `http://${viewer.at(light, 80)}/light?${marker}`;
    for (const on of [true, false]) expect((await switchLight(viewer.host, url, on)) === on, `${light} did not switch`);
  }
  return 'light1 and light2 switched on and off by PUT';
}

export async function messages(subscriber: WorldNode, publisher: WorldNode): Promise<string> {
  const [from, to] = [subscriber, publisher].map((node) => new URL(`mqtt://${node.at('broker', 1_883)}`));
  const got = await publishAndSubscribe(subscriber.host, publisher.host, [from?.hostname ?? '', to?.hostname ?? ''], MESSAGES, [
    Number(from?.port),
    Number(to?.port),
  ]);
  const inOrder = got.length === MESSAGES && got.every((message, n) => message === String(n));
  expect(inOrder, `${got.length} messages of ${MESSAGES}, or in another order`);
  return `${MESSAGES} QoS 1 messages from one viewer to another: 0 lost, 0 twice`;
}

export async function file(viewer: WorldNode, sha256: string): Promise<string> {
  const before = performance.now();
  const got = await fetchSha256(viewer.host, `http://${viewer.at('files', 80)}/big.bin`);
  const seconds = (performance.now() - before) / 1000;
  expect(got === sha256, `SHA-256 is ${got}, not ${sha256}`);
  return `100 MB in ${seconds.toFixed(1)} s, SHA-256 ${got.slice(0, 12)}… at both ends`;
}

export async function relays(world: World, viewer: WorldNode): Promise<string> {
  const { hops } = await viewer.json<TraceDocument>(['trace', 'camera.home.thicket']);
  const nodes = ['mid', 'root'] as const;
  const path = hops.map(
    ({ key, role }) => nodes.find((name) => world.node(name).key === key) ?? (role === 'end' ? 'camera' : 'somebody else'),
  );
  expect(path.join() === 'mid,root,camera', `the way is ${path.join(' – ')}`);
  const times = hops.map(({ rttMs }, index) => `${path[index]} ${rttMs?.toFixed(1) ?? '?'} ms`);
  return `viewer – ${times.join(' – ')}`;
}

/** The captures were running while all of the above happened. */
export async function addresses(world: World, viewerLink: Capture, gatewayLink: Capture): Promise<string> {
  const [viewer, gw, mid, root] = (['viewer', 'gw', 'mid', 'root'] as const).map((name) => world.node(name).host);
  if (viewer === undefined || gw === undefined || mid === undefined || root === undefined) return '';
  const atViewer = peersOf(viewerLink, viewer, [world.siteDns]);
  const atGateway = peersOf(gatewayLink, gw, []);
  expect(atViewer.addresses.join() === mid.address, `on the viewer's link: ${atViewer.addresses.join(', ')}`);
  expect(atGateway.addresses.join() === root.address, `on the gateway's link: ${atGateway.addresses.join(', ')}`);
  for (const command of [
    ['status', '--json'],
    ['sessions', '--json'],
    ['trace', 'camera.home.thicket'],
  ]) {
    const { stdout } = await world.node('viewer').thicket(command);
    expect(!stdout.includes(gw.address), `thicket ${command.join(' ')} tells the gateway's address`);
  }
  return `${atViewer.packets} packets on the viewer's link, all with mid; ${atGateway.packets} on the gateway's, all with the root`;
}

/** On loopback all have one address: what is left to show is that nobody is told another. */
export async function told(world: World, viewerLink: Tap): Promise<string> {
  const texts: string[] = [];
  for (const command of [
    ['status', '--json'],
    ['sessions', '--json'],
    ['trace', 'camera.home.thicket'],
  ]) {
    const { stdout } = await world.node('viewer').thicket(command);
    texts.push(stdout);
  }
  const devices = world.node('gw').config.endpoints?.flatMap(({ services }) => services?.map(({ target }) => target) ?? []) ?? [];
  const secret = [...devices, ...devices.map((target) => target.split(':', 1)[0] ?? '')];
  const seen = secret.filter((address) => texts.some((text) => text.includes(address)) || viewerLink.contains(address));
  expect(devices.length > 0 && seen.length === 0, `the viewer is told ${seen.join(', ')}`);
  return `of ${devices.length} devices no address in ${viewerLink.count} packets of the viewer's link, nor in its status, sessions and trace`;
}

export function sealed(marker: string, links: readonly Watched[], lan: Watched): Promise<string> {
  expect(lan.contains(marker), 'the marker is not even on the LAN: the search finds nothing');
  for (const link of links) expect(!link.contains(marker), `the marker is readable on the link of ${link.host}`);
  return Promise.resolve(`a marker in URLs is readable on the LAN and in no packet of the viewer's and gateway's links`);
}

/** What nothing allows gives no answer; one command opens it, another closes it. */
export async function deny(viewer: WorldNode, gateway: WorldNode): Promise<string> {
  const lamp = 'http://lamp.home.thicket/light';
  expect(!(await answers(viewer, lamp)), 'the lamp answers without an allow');
  expect(!(await answers(viewer, 'http://light1.home.thicket:81/')), 'a port that is not listed answers');
  await gateway.thicket(['allow', 'group:family', 'lamp']);
  expect(await answers(viewer, lamp), 'the lamp does not answer after thicket allow');
  await gateway.thicket(['deny', 'group:family', 'lamp']);
  expect(!(await answers(viewer, lamp)), 'the lamp answers after thicket deny');
  return 'the lamp: silent, open after thicket allow, silent after thicket deny; an unlisted port: silent';
}

export async function strangers(world: World, known: readonly string[]): Promise<string> {
  const stranger = world.node('stranger');
  const urls = [
    'http://light1.home.thicket/light',
    'http://files.home.thicket/hello.txt',
    ...known.map((key) => `http://${key}.thicket/light`),
  ];
  const answered = await Promise.all(urls.map((url) => answers(stranger, url)));
  expect(!answered.includes(true), `the stranger got ${urls.filter((_, index) => answered[index]).join(', ')}`);
  const sessions = (await world.node('gw').status()).sessions.filter(({ network }) => network === world.owner('strange').id);
  expect(sessions.length === 0, 'the gateway keeps a session with the stranger');
  return `another network's certificate: no answer to ${urls.length} of ${urls.length} requests, by name and by key`;
}

/** By name, through the node's SOCKS5 proxy where there is no interface. */
async function answers({ host, plan }: WorldNode, url: string): Promise<boolean> {
  const proxy = plan.userspace === true ? ['-x', `socks5h://${host.loopback}:${SOCKS_PORT}`] : [];
  const { code } = await host.exec(['curl', '-sf', ...proxy, '-o', '/dev/null', '--max-time', '5', url], { check: false });
  return code === 0;
}

/** Whom a host exchanged packets with on a link, sorted. */
function peersOf(capture: Capture, host: Host, except: readonly string[]): { readonly addresses: string[]; readonly packets: number } {
  const found = new Set<string>();
  let packets = 0;
  for (const { source, destination } of capture.packets()) {
    const peer = source === host.address ? destination : source;
    if (except.includes(peer)) continue;
    found.add(peer);
    packets += 1;
  }
  return { addresses: [...found].sort(), packets };
}
