import { randomBytes } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { ms } from '../../ts/node/clock.js';
import type { Session } from '../../ts/node/sessions.js';
import { encodeFrame } from '../../ts/routing/frames.js';
import { signEdge, signEndpointEdge } from '../../ts/routing/statements.js';
import { encodeCertificate, KeyPair, type PublicKey } from '../../ts/trust/index.js';
import { echoBody, inner, kind, partBody, tcpBody, tcpFlag, udpBody } from '../impolite/inner.js';
import { RawNode } from '../impolite/raw-node.js';
import { waitFor } from '../lab/index.js';

const SERVICE = 5_000;
const network = KeyPair.generate();
const text = (value: string): Uint8Array => new TextEncoder().encode(value);

function certificate(key: PublicKey, name: string): Uint8Array {
  const dates = { issuedAt: 1_795_000_000, notAfter: 4_000_000_000 };
  return encodeCertificate({ network: network.publicKey, key, name, groups: [], rights: [], delegable: [], serial: 1, ...dates }, network);
}

/** A client, another one, and a gateway, all under one relay. */
interface World {
  readonly relay: RawNode;
  readonly client: RawNode;
  readonly other: RawNode;
  readonly gateway: RawNode;
  readonly session: Session;
  readonly otherSession: Session;
}

let world: World;
const started: RawNode[] = [];

beforeAll(async () => {
  const node = async (name: string, options: Partial<Parameters<typeof RawNode.start>[0]>): Promise<RawNode> => {
    const pair = KeyPair.generate();
    const made = await RawNode.start({ pair, chain: [certificate(pair.publicKey, name)], ...options });
    started.unshift(made);
    return made;
  };
  const relay = await node('relay', { listen: [{ host: '127.0.0.1', port: 0 }], polite: true });
  const parents = [{ host: '127.0.0.1', port: relay.plane.sockets[0]?.port ?? 0, key: relay.key }];
  const target = { host: '192.0.2.7', port: 5_000 };
  const [client, other, gateway] = await Promise.all([
    node('client', { parents }),
    node('other', { parents }),
    node('gateway', {
      parents,
      polite: true,
      policy: { inbound: [{ protocol: 'udp', port: SERVICE, family: 4, target, account: 1 }], outbound: false, echo: false, rtspPorts: [] },
    }),
  ]);
  await waitFor(() => relay.router.table.size === 3, { what: 'three children' });
  const [session, otherSession] = await Promise.all([client.dial(gateway.key), other.dial(gateway.key)]);
  world = { relay, client, other, gateway, session, otherSession };
});

afterAll(async () => {
  for (const node of started) await node.stop();
});

const dropsOf = (node: RawNode): Readonly<Record<string, bigint>> => node.plane.stats().drops;

function risen(before: Readonly<Record<string, bigint>>, after: Readonly<Record<string, bigint>>): Record<string, number> {
  const changes = Object.entries(after).map(([reason, count]) => [reason, Number(count - (before[reason] ?? 0n))] as const);
  return Object.fromEntries(changes.filter(([, change]) => change !== 0));
}

let marks = 0;

/** A packet that policy lists goes through, behind all that was sent before it. */
async function passes(): Promise<void> {
  const { client, gateway, session } = world;
  marks += 1;
  const mark = `mark ${marks}.`;
  client.plane.sendInner(session.id, inner(kind.udp, udpBody({ from: 40_000, to: SERVICE }, text(mark))));
  await waitFor(() => gateway.plane.delivered.some((packet) => Buffer.from(packet).includes(mark)), { what: mark, intervalMs: 5 });
}

/** What `act` sends is dropped for exactly these reasons, delivers nothing, and spoils nothing: the next honest packet passes. */
async function expectDrops(expected: { relay?: Record<string, number>; gateway?: Record<string, number> }, act: () => void): Promise<void> {
  const { relay, gateway } = world;
  await passes();
  const before = { relay: dropsOf(relay), gateway: dropsOf(gateway), delivered: gateway.plane.delivered.length };
  act();
  await passes();
  expect({ relay: risen(before.relay, dropsOf(relay)), gateway: risen(before.gateway, dropsOf(gateway)) }).toEqual({
    relay: expected.relay ?? {},
    gateway: expected.gateway ?? {},
  });
  expect(gateway.plane.delivered.length).toBe(before.delivered + 1);
}

/** Seals one inner packet in the client's session. */
function say(number: number, body: Uint8Array, options: Parameters<typeof inner>[2] = {}): void {
  world.client.plane.sendInner(world.session.id, inner(number, body, options));
}

describe('two ends under a relay, on raw planes', () => {
  test('a datagram to the listed service arrives as an IPv4 packet with its ports, payload and a fresh checksum', async () => {
    const { gateway } = world;
    const before = gateway.plane.delivered.length;
    say(kind.udp, udpBody({ from: 41_000, to: SERVICE }, text('hello')));
    await waitFor(() => gateway.plane.delivered.length > before, { what: 'the packet' });
    const packet = Buffer.from(gateway.plane.delivered.at(-1) ?? []);
    expect([packet[0], packet[9], packet.readUInt16BE(20), packet.readUInt16BE(22)]).toEqual([0x45, 17, 41_000, SERVICE]);
    expect(packet.subarray(28).toString()).toBe('hello');
    expect(packet.readUInt16BE(26)).not.toBe(0);
  });

  test('the session answers a ping, and its packets crossed the relay', async () => {
    const { client, relay, session } = world;
    const before = relay.plane.stats().relay.packets;
    expect(await client.sessions.ping(session.id, ms(2_000))).toBeGreaterThan(0);
    expect(relay.plane.stats().relay.packets - before).toBeGreaterThanOrEqual(2n);
  });
});

describe('rekeys', () => {
  test('change the key slot in both directions and lose nothing', async () => {
    const pair = KeyPair.generate();
    const parents = world.client.links.parents().map(({ address }) => address);
    const node = await RawNode.start({ pair, chain: [certificate(pair.publicKey, 'busy')], parents, rekeyMs: 100 });
    started.unshift(node);
    await waitFor(() => node.parentLink(), { what: 'the link' });
    const session = await node.dial(world.gateway.key);
    const before = world.gateway.plane.delivered.length;
    const dropped = dropsOf(world.gateway);
    let sent = 0;
    await waitFor(
      () => {
        sent += 1;
        node.plane.sendInner(session.id, inner(kind.udp, udpBody({ from: 42_000, to: SERVICE }, text(`number ${sent}.`))));
        return session.rekeys >= 5;
      },
      { what: 'five rekeys', intervalMs: 5 },
    );
    await waitFor(() => world.gateway.plane.delivered.length === before + sent, { what: `${sent} packets` });
    expect(risen(dropped, dropsOf(world.gateway))).toEqual({});
    expect(await node.sessions.ping(session.id, ms(2_000))).toBeGreaterThan(0);
  });
});

describe("what the far end's policy doesn't list", () => {
  test('TCP and UDP to other ports are dropped as portNotAllowed, whatever their source port', async () => {
    await expectDrops({ gateway: { portNotAllowed: 5 } }, () => {
      say(kind.tcp, tcpBody({ from: 40_000, to: 22 }, tcpFlag.syn));
      say(kind.tcp, tcpBody({ from: 40_000, to: SERVICE }, tcpFlag.syn));
      say(kind.udp, udpBody({ from: SERVICE, to: 53 }, text('query')));
      // The ports of a live flow of the other client's, and of our own the other way round.
      say(kind.udp, udpBody({ from: 40_000, to: 40_000 }));
      say(kind.tcp, tcpBody({ from: 443, to: 40_000 }, tcpFlag.ack));
    });
  });

  test('echo requests and replies are dropped', async () => {
    await expectDrops({ gateway: { echoNotAllowed: 1, notAFlow: 1 } }, () => {
      say(kind.echo, echoBody('request', 7, 1, text('anybody?')));
      say(kind.echo, echoBody('reply', 7, 1));
    });
  });

  test('inner packets that are none are dropped as badInner: unknown kinds, raw IP, cut headers, TCP in parts', async () => {
    const ip = Buffer.concat([Buffer.of(0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 192, 168, 1, 1, 192, 168, 1, 20), Buffer.alloc(8)]);
    const tcp = inner(kind.tcp, tcpBody({ from: 1, to: SERVICE }, tcpFlag.syn));
    await expectDrops({ gateway: { badInner: 6 } }, () => {
      say(0, udpBody({ from: 1, to: SERVICE }));
      say(9, udpBody({ from: 1, to: SERVICE }));
      world.client.plane.sendInner(world.session.id, ip);
      world.client.plane.sendInner(world.session.id, Uint8Array.of(kind.udp));
      say(kind.tcp, new Uint8Array(10));
      say(kind.part, partBody(1, 0, 2, tcp.subarray(0, 12)));
      say(kind.part, partBody(1, 1, 2, tcp.subarray(12)));
    });
  });

  test('a hop limit used up is dropped', async () => {
    await expectDrops({ gateway: { hopLimit: 1 } }, () => say(kind.udp, udpBody({ from: 40_000, to: SERVICE }), { hopLimit: 1 }));
  });

  test('errors about flows that are none are dropped', async () => {
    await expectDrops({ gateway: { badInner: 1, notAFlow: 1 } }, () => {
      say(kind.error, Uint8Array.of(4, 17, 0, 1, 0x13, 0x88, 0x9c, 0x41));
      say(kind.error, Uint8Array.of(9, 17, 0, 1, 0x13, 0x88, 0x9c, 0x40));
    });
  });
});

describe('what the seals hold', () => {
  test('a packet under another key is dropped as badTag, one in an empty slot as noKey', async () => {
    const { client, session } = world;
    const packet = inner(kind.udp, udpBody({ from: 40_000, to: SERVICE }));
    await expectDrops({ gateway: { badTag: 1, noKey: 1 } }, () => {
      client.plane.sendInner(session.id, packet, { sendKey: randomBytes(32) });
      client.plane.sendInner(session.id, packet, { slot: 3 });
    });
  });

  test('a wrong hop tag ends at the relay', async () => {
    await expectDrops({ relay: { badHopTag: 1 } }, () => {
      world.client.plane.sendInner(world.session.id, inner(kind.udp, udpBody({ from: 40_000, to: SERVICE })), { hopTag: randomBytes(8) });
    });
  });

  test('replays end at the relay, from whatever source they come', async () => {
    const { client, other, relay, session } = world;
    const to = { host: '127.0.0.1', port: relay.plane.sockets[0]?.port ?? 0 };
    const sent = client.plane.sendInner(session.id, inner(kind.udp, udpBody({ from: 40_000, to: SERVICE })));
    await expectDrops({ relay: { replayed: 3 } }, () => {
      client.plane.sendDatagram(0, to, sent);
      other.plane.sendDatagram(0, to, sent);
      // A used counter under other content.
      client.plane.sendInner(session.id, inner(kind.udp, udpBody({ from: 1, to: SERVICE })), { counter: 0n });
    });
  });

  test("labels that aren't ours end at the relay: random ones as unknownLabel, the other client's as badHopTag", async () => {
    const { client, other, gateway, otherSession } = world;
    const link = client.parentLink();
    const forth = other.plane.pathKeys(otherSession.id).at(-1);
    const back = gateway.plane.pathKeys(gateway.sessions.get(gateway.key, other.key)?.id ?? otherSession.id).at(-1);
    if (link === undefined || forth === undefined || back === undefined) throw new Error('no link or path');
    const packet = inner(kind.udp, udpBody({ from: 40_000, to: SERVICE }));
    await expectDrops({ relay: { unknownLabel: 20, badHopTag: 2 } }, () => {
      for (let i = 0; i < 20; i += 1) client.plane.sendOnLabel(link.id, 256 + Math.floor(Math.random() * 0xffff_ff00), packet);
      client.plane.sendOnLabel(link.id, forth.egress.label, packet);
      client.plane.sendOnLabel(link.id, back.egress.label, packet, { sendKey: forth.sendKey });
    });
  });

  test('link frames: a forged one is badTag, one for nobody unknownIndex, a repeated one replayed', async () => {
    const { client, relay } = world;
    const link = client.parentLink();
    if (link === undefined) throw new Error('no link');
    const goodbye = Uint8Array.of(17);
    const to = { host: '127.0.0.1', port: relay.plane.sockets[0]?.port ?? 0 };
    const frame = client.plane.sent.find(({ bytes }) => bytes.length < 100 && bytes[3] === 4 && bytes[0] === 0)?.bytes;
    if (frame === undefined) throw new Error('no frame was sent');
    await expectDrops({ relay: { badTag: 1, unknownIndex: 1, replayed: 1 } }, () => {
      client.plane.sendRawLinkFrame(link.id, goodbye, { counter: 1n << 40n, sendKey: randomBytes(32) });
      client.plane.sendRawLinkFrame(link.id, goodbye, { counter: 1n << 40n, index: 1 });
      client.plane.sendDatagram(0, to, frame);
    });
    expect(relay.links.byKey(client.key)).toBeDefined();
  });
});

describe("a child that speaks for somebody else's key", () => {
  test('announces nothing, withdraws nothing, and is counted', async () => {
    const { client, relay, gateway } = world;
    const link = client.parentLink();
    if (link === undefined) throw new Error('no link');
    const accomplice = KeyPair.generate();
    const stamp = { nonce: randomBytes(16), epoch: 99n, seq: 99n };
    // The victim's half is missing: we have only our own keys to sign with.
    const stolen = signEdge({ child: gateway.key, parent: client.key, ...stamp }, accomplice);
    const endpoint = signEndpointEdge({ child: gateway.key, parent: client.key, ...stamp }, accomplice, accomplice);
    // Properly signed by both, but by a child that may announce no endpoints.
    const hosted = signEndpointEdge({ child: accomplice.publicKey, parent: accomplice.publicKey, ...stamp }, accomplice, accomplice);
    const before = { ...relay.router.counters };
    const rise = (reason: string): number => (relay.router.counters[reason] ?? 0) - (before[reason] ?? 0);
    const items = [
      { type: 'edge', bytes: stolen },
      { type: 'endpointEdge', bytes: endpoint },
      { type: 'endpointEdge', bytes: hosted },
    ] as const;
    client.slipIn(encodeFrame({ kind: 'announce', items }));
    client.slipIn(encodeFrame({ kind: 'withdraw', keys: [gateway.key, world.other.key] }));
    client.slipIn(encodeFrame({ kind: 'edgeHalf', statement: stolen }));
    client.links.send(link.id, encodeFrame({ kind: 'withdraw', keys: [gateway.key] }));
    client.slipIn(Uint8Array.of(200, 1, 2, 3));
    await waitFor(() => rise('malformedFrame') === 1, { what: 'the last frame' });
    // Two announcements and a half edge that the victim didn't sign; a foreign endpoint and two foreign keys taken back; one frame out of turn.
    expect([rise('badStatement'), rise('notBelow'), rise('unnumbered')]).toEqual([3, 3, 1]);
    expect(relay.router.table.via(world.other.key)).toBe(world.other.key);
    expect(relay.router.table.via(gateway.key)).toBe(gateway.key);
    expect(relay.router.table.get(accomplice.publicKey)).toBeUndefined();
    await passes();
  });
});
