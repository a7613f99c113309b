/** Endpoints change without a moment in which somebody reaches what neither the old nor the new rules let him reach. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { pino } from 'pino';
import type { EndpointConfig } from '../../ts/config/index.js';
import { Endpoints } from '../../ts/gateway/endpoints.js';
import type { Lan, Translation } from '../../ts/gateway/lan.js';
import type { NatService } from '../../ts/gateway/nat/index.js';
import { AddressPool } from '../../ts/naming/index.js';
import { BUILD_TIME } from '../../ts/trust/build-time.js';
import { encodeBundle, NetworkFolder, NodeStore, parseWho } from '../../ts/trust/index.js';

const NOW = BUILD_TIME + 1_000;
let folder: string;
let pool: AddressPool;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'thicket-endpoints-'));
});

afterEach(async () => {
  await pool.close();
  rmSync(folder, { recursive: true });
});

/** A gateway whose kernel is this object: it knows a route to everywhere but 192.168.9.9, and refuses rules when told to. */
function gateway(): { endpoints: Endpoints; nat: { refuse: boolean; services: readonly NatService[] } } {
  const log = pino({ level: 'silent' });
  const network = NetworkFolder.create(join(folder, 'network'), 'home');
  const store = NodeStore.init(join(folder, 'state'));
  const bundle = network.sign(store.pair.publicKey, { name: 'gw', endpoints: ['camera'], expiresInSeconds: 1_000, now: NOW });
  const membership = store.join(encodeBundle(bundle), NOW);
  pool = AddressPool.open({
    folder: store.folder,
    ipv4: '198.18.0.0/24',
    ipv6: undefined,
    ttlMs: 1_000,
    now: () => performance.now(),
    inUse: async () => () => false,
    log,
  });
  const nat = { refuse: false, services: [] as readonly NatService[] };
  const lan: Lan = {
    routeTo: (host) => (host === '192.168.9.9' ? Promise.reject(new Error('no route')) : Promise.resolve({ source: '192.168.1.1' })),
    addresses: () => Promise.resolve([]),
  };
  const rules: Translation = {
    apply: (services) => {
      if (nat.refuse) return Promise.reject(new Error('no'));
      nat.services = services;
      return Promise.resolve();
    },
    cut: () => Promise.resolve(),
  };
  const endpoints = new Endpoints({
    store,
    membership: () => membership,
    pool,
    lan,
    nat: rules,
    answers: false,
    log,
    pools: ['198.18.0.0/24'],
    wallSeconds: () => NOW,
  });
  return { endpoints, nat };
}

function camera(host: string, ...allow: string[]): EndpointConfig {
  const service = { protocol: 'tcp' as const, port: 80, rtsp: false, target: { host, port: 80 }, force: false };
  return { name: 'camera', groups: [], services: [{ ...service, allow: allow.map((who) => parseWho(who)) }] };
}

async function apply(endpoints: Endpoints, config: EndpointConfig, narrowed: () => void = () => {}): Promise<void> {
  await endpoints.commit(await endpoints.prepare([config]), async () => narrowed());
}

const allowed = (endpoints: Endpoints): string[] =>
  endpoints.all().flatMap((e) => e.services.filter((s) => s.off === undefined).flatMap((s) => s.allow.map((who) => JSON.stringify(who))));

describe('a change of endpoints', () => {
  test('of device and permission at once lets nobody through in between', async () => {
    const { endpoints, nat } = gateway();
    await apply(endpoints, camera('192.168.1.20', 'group:old'));
    let between: string[] | undefined;
    await apply(endpoints, camera('192.168.1.21', 'group:new'), () => {
      between = allowed(endpoints);
    });
    expect(between).toEqual([]);
    expect(nat.services.map((s) => s.target.host)).toEqual(['192.168.1.21']);
    expect(allowed(endpoints)).toEqual([JSON.stringify({ kind: 'group', group: 'new' })]);
  });

  test('of permission alone keeps those who stay', async () => {
    const { endpoints } = gateway();
    await apply(endpoints, camera('192.168.1.20', 'group:a', 'group:b'));
    let between: string[] | undefined;
    await apply(endpoints, camera('192.168.1.20', 'group:b', 'group:c'), () => {
      between = allowed(endpoints);
    });
    expect(between).toEqual([JSON.stringify({ kind: 'group', group: 'b' })]);
  });

  test('whose rules the kernel refuses leaves the services off, and asks to be applied again', async () => {
    const { endpoints, nat } = gateway();
    nat.refuse = true;
    await apply(endpoints, camera('192.168.1.20', 'group:a'));
    expect(allowed(endpoints)).toEqual([]);
    expect(await endpoints.moved()).toBe(true);
    nat.refuse = false;
    await apply(endpoints, camera('192.168.1.20', 'group:a'));
    expect(await endpoints.moved()).toBe(false);
  });

  test('to a device without a route is off with its reason, and a target of the overlay is refused', async () => {
    const { endpoints } = gateway();
    await apply(endpoints, camera('192.168.9.9', 'group:a'));
    expect(endpoints.all()[0]?.services[0]?.off).toContain('no route to 192.168.9.9');
    await expect(endpoints.prepare([camera('198.18.0.7', 'group:a')])).rejects.toMatchObject({ code: 'BAD_CONFIG' });
    await expect(endpoints.prepare([camera('127.0.0.1', 'group:a')])).rejects.toMatchObject({ code: 'BAD_CONFIG' });
  });
});
