/** Outlets, of a gateway without an interface and of one with: a device behind one calls a service behind the other, with the key of the endpoint that stands for it. */
import { join } from 'node:path';
import type { SessionDocument } from '../../ts/control/documents.js';
import { type Device, type Process, repository, waitFor } from '../lab/index.js';
import { World } from '../world/index.js';

const PARROT = join(repository, 'test', 'fixtures', 'parrot.py');
/** Each gateway calls what is behind the other: its own address on its LAN, a device and its address, and a neighbour of that. */
const GATEWAYS = [
  ['gw', '192.168.1.1', 'light1', '192.168.1.31', 'light2'],
  ['gw2', '192.168.2.1', 'lamp', '192.168.2.31', undefined],
] as const;

let world: World;

beforeAll(async () => {
  world = await World.create({
    nodes: ['root', 'mid', 'gw', 'gw2'],
    siteDns: false,
    plan: (name, plan) => {
      const [, , device, address] = GATEWAYS.find(([gateway]) => gateway === name) ?? [];
      if (device === undefined) return plan;
      const services = [{ port: 'tcp/7000', target: `${address}:7000`, allow: [] }];
      return {
        ...plan,
        userspace: name === 'gw',
        endpoints: plan.endpoints.map((e) => (e.name === device ? { ...e, services: [...(e.services ?? []), ...services] } : e)),
      };
    },
  });
  for (const [, , device, address] of GATEWAYS) {
    const parrot = await world.lab.host(device).spawn(['/usr/bin/python3', PARROT, 'serve', address, '7000']);
    await parrot.waitForLine(/^ready$/);
  }
}, 120_000);

afterAll(async () => {
  await world?.destroy();
}, 30_000);

test('one of the gateways has no interface', async () => {
  expect([(await world.node('gw').status()).mode, (await world.node('gw2').status()).mode]).toEqual(['userspace', 'tun']);
});

describe.each(GATEWAYS)('an outlet of %s', (gateway, lan, device, address, neighbour) => {
  const [farGateway, , farDevice] = GATEWAYS[gateway === 'gw' ? 1 : 0];
  let as: string;

  /** What a device gets at the outlet. */
  const call = async (host: Device, port: number): Promise<string> => {
    const { stdout, stderr } = await world.lab
      .host(host)
      .exec(['/usr/bin/python3', PARROT, 'tcp', lan, String(port), '1000000'], { check: false });
    return `${stdout}${stderr}`.trim();
  };

  const command = async (port: number, from: string): Promise<Process> => {
    const to = `${farDevice}.home:7000`;
    const held = await world.node(gateway).host.spawnThicket(['outlet', `${lan}:${port}`, to, '--as', device, '--from', from]);
    await held.waitForLine(/ leads /);
    return held;
  };

  beforeAll(async () => {
    const services = (await world.node(gateway).status()).services;
    as = services.find(({ name }) => name === device)?.key ?? '';
  });

  test('calls with the key of the endpoint that stands for the device, and nothing is allowed to it before its key is', async () => {
    const outlet = await command(9_000, address);
    expect(await call(device, 9_000)).toMatch(/reset/i);
    await world.node(farGateway).thicket(['allow', `node:${as}`, `${farDevice}:tcp/7000`]);
    expect(await call(device, 9_000)).toBe('whole');
    const sessions = await world.node(farGateway).json<readonly SessionDocument[]>(['sessions']);
    expect(sessions.filter(({ key }) => key === as).map(({ allowed }) => allowed)).toEqual([['tcp/7000']]);
    await outlet.kill('SIGTERM');
    await waitFor(async () => /refused/i.test(await call(device, 9_000)), { what: 'the end of the outlet' });
  }, 60_000);

  test('serves the one device alone, by its MAC address where that is asked for', async () => {
    const { stdout } = await world.lab.host(device).exec(['cat', '/sys/class/net/eth0/address']);
    const mac = stdout.trim();
    const wrong = mac.replace(/.$/, (digit) => (digit === '0' ? '1' : '0'));
    const outlets = await Promise.all([
      command(9_001, `${address},${mac}`),
      command(9_002, `${address},${wrong}`),
      command(9_003, address.replace(/\d+$/, '77')),
    ]);
    expect(await call(device, 9_001)).toBe('whole');
    expect(await call(device, 9_002)).toMatch(/reset/i);
    expect(await call(device, 9_003)).toMatch(/reset/i);
    if (neighbour !== undefined) expect(await call(neighbour, 9_001)).toMatch(/reset/i);
    for (const outlet of outlets) await outlet.kill('SIGTERM');
  }, 60_000);

  test('stands in the configuration, and goes with it', async () => {
    const node = world.node(gateway);
    const before = node.config;
    const outlet = { listen: `${lan}:9004`, to: `${farDevice}.home.thicket:7000`, as: device, from: { ip: address } };
    node.setConfig({ ...before, outlets: [outlet] });
    await node.thicket(['reload']);
    expect(await call(device, 9_004)).toBe('whole');
    node.setConfig({ ...before, outlets: [{ ...outlet, as: 'nobody' }] });
    expect((await node.thicket(['reload'], { check: false })).stderr).toMatch(/there is no endpoint nobody here: expose it first/);
    node.setConfig(before);
    await node.thicket(['reload']);
    expect(await call(device, 9_004)).toMatch(/refused/i);
  }, 60_000);
});
