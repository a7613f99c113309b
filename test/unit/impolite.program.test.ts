import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { decodeRequest, encodeBundle, KeyPair, NetworkFolder, NodeStore } from '../../ts/trust/index.js';
import { ImpoliteClient, inner, kind, udpBody } from '../impolite/index.js';
import { RawNode } from '../impolite/raw-node.js';
import { waitFor } from '../lab/index.js';

const NOW = 1_795_100_000;
const folder = mkdtempSync(join(tmpdir(), 'thicket-impolite-'));
const hex = (value: Uint8Array): string => Buffer.from(value).toString('hex');

let relay: RawNode;
let gateway: RawNode;
let client: ImpoliteClient;
let session: number;

beforeAll(async () => {
  const network = NetworkFolder.create(join(folder, 'network'), 'home');
  const pair = KeyPair.generate();
  relay = await RawNode.start({ pair, chain: [], listen: [{ host: '127.0.0.1', port: 0 }], polite: true });
  const at = { host: '127.0.0.1', port: relay.plane.sockets[0]?.port ?? 0 };
  const gatewayPair = KeyPair.generate();
  const bundle = network.sign(gatewayPair.publicKey, { name: 'gw', expiresInSeconds: 86_400 * 365, now: NOW });
  const service = { protocol: 'udp', port: 554, family: 4, target: { host: '192.0.2.7', port: 554 }, account: 1 } as const;
  gateway = await RawNode.start({
    pair: gatewayPair,
    chain: [bundle.certificate],
    parents: [{ ...at, key: relay.key }],
    policy: { inbound: [service], outbound: false, echo: false, rtspPorts: [] },
    polite: true,
  });
  const state = join(folder, 'state');
  const store = NodeStore.init(state);
  store.join(encodeBundle(network.sign(decodeRequest(store.request()), { name: 'client', expiresInSeconds: 86_400 * 365, now: NOW })), NOW);
  await waitFor(() => relay.router.table.get(gateway.key), { what: 'the gateway' });
  client = await ImpoliteClient.start({ state, parent: `udp://${at.host}:${at.port}#${relay.key}` });
  ({ session } = await client.order({ do: 'dial', peer: gateway.key }));
});

afterAll(async () => {
  await client?.stop();
  await gateway?.stop();
  await relay?.stop();
  rmSync(folder, { recursive: true, force: true });
});

const count = (node: RawNode, reason: string): number => Number(node.plane.stats().drops[reason] ?? 0n);

/** The counter has risen by exactly so many once a listed packet, sent behind them, has arrived. */
async function drops(node: () => RawNode, reason: string, packets: number, act: () => Promise<unknown>): Promise<void> {
  const before = { dropped: count(node(), reason), delivered: gateway.plane.delivered.length };
  await act();
  await client.order({ do: 'knock', session, protocol: 'udp', ports: [554] });
  await waitFor(() => gateway.plane.delivered.length > before.delivered, { what: 'the packet behind', intervalMs: 5 });
  expect([reason, count(node(), reason) - before.dropped]).toEqual([reason, packets]);
  expect(gateway.plane.delivered.length).toBe(before.delivered + 1);
}

describe('the impolite client as a program', () => {
  test('connects and dials as an enrolled node, and tells its labels', async () => {
    const status = await waitFor(
      async () => {
        const now = await client.order({ do: 'status' });
        return now.sessions[0]?.offered.length === 1 ? now : undefined;
      },
      { what: 'the hello' },
    );
    expect(status.key).toBe(client.key);
    expect(status.links.map(({ key, role }) => [key, role])).toEqual([[relay.key, 'parent']]);
    const [report] = status.sessions;
    expect(report).toMatchObject({ id: session, peer: gateway.key, state: 'up', offered: [{ protocol: 'udp', port: 554 }] });
    expect(report?.egress).toBeGreaterThanOrEqual(256);
  });

  test('knocks at ports past its own policy, and says what it sent', async () => {
    await drops(
      () => gateway,
      'portNotAllowed',
      7,
      async () => {
        const { sent } = await client.order({ do: 'knock', session, protocol: 'tcp', ports: [22, 80, 443], payload: 'GET /' });
        expect(sent.length).toBe(6);
        await client.order({ do: 'knock', session, protocol: 'udp', ports: [53], from: 554 });
      },
    );
    await drops(
      () => gateway,
      'echoNotAllowed',
      1,
      () => client.order({ do: 'echo', session }),
    );
    await drops(
      () => gateway,
      'badInner',
      3,
      () => client.order({ do: 'inner', session, bytes: '450000', times: 3 }),
    );
  });

  test.each([
    ['key', 'badTag', () => gateway],
    ['slot', 'noKey', () => gateway],
    ['hopTag', 'badHopTag', () => relay],
    ['counter', 'replayed', () => relay],
  ] as const)('spoils the %s of a packet that would be welcome', async (what, reason, node) => {
    await drops(node, reason, 1, () => client.order({ do: 'spoil', session, port: 554, what }));
  });

  test('uses labels that are not its own', async () => {
    const foreign = gateway.plane.pathKeys(gateway.sessions.all()[0]?.id ?? (0 as never)).at(-1)?.egress.label ?? 0;
    await drops(
      () => relay,
      'unknownLabel',
      10,
      () => client.order({ do: 'labels', random: 10 }),
    );
    await drops(
      () => relay,
      'badHopTag',
      1,
      () => client.order({ do: 'labels', labels: [foreign] }),
    );
  });

  test('replays what it sent from its own and from another source', async () => {
    const packet = inner(kind.udp, udpBody({ from: 1, to: 554 }));
    const { sent } = await client.order({ do: 'inner', session, bytes: hex(packet) });
    const to = { host: '127.0.0.1', port: relay.plane.sockets[0]?.port ?? 0 };
    await drops(
      () => relay,
      'replayed',
      2,
      async () => {
        await client.order({ do: 'datagrams', to, datagrams: sent, from: 'same' });
        await client.order({ do: 'datagrams', to, datagrams: sent, from: 'other' });
      },
    );
    const links = relay.links.all().map(({ id, remote }) => [id, remote.port]);
    const { sent: everything } = await client.order({ do: 'replay', what: 'sent', from: 'other' });
    expect(everything.length).toBeGreaterThan(20);
    await drops(
      () => gateway,
      'badTag',
      0,
      () => client.order({ do: 'replay', what: 'received', from: 'same' }),
    );
    expect(relay.links.all().map(({ id, remote }) => [id, remote.port])).toEqual(links);
  });

  test("announces somebody else's key and withdraws it, in vain", async () => {
    const refused = (reason: string): number => relay.router.counters[reason] ?? 0;
    const before = [refused('badStatement'), refused('notBelow')] as const;
    await client.order({ do: 'impersonate', key: gateway.key });
    await client.order({ do: 'withdraw', keys: [gateway.key] });
    await waitFor(() => refused('notBelow') > before[1], { what: 'the last refusal' });
    expect(refused('badStatement') - before[0]).toBe(5);
    expect(relay.router.table.via(gateway.key)).toBe(gateway.key);
  });

  test('says so when an order makes no sense', async () => {
    await expect(client.order({ do: 'echo', session: 999 })).rejects.toThrow(/999 has no path/);
    await expect(client.order({ do: 'dial', peer: KeyPair.generate().publicKey })).rejects.toThrow(/nobody in the tree/);
  });
});
