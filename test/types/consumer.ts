/** What a program that uses the package may write, and what the compiler must refuse: compiled by test/unit/api.types.test.ts against what ships, and never run. */
import type { Duplex } from 'node:stream';
import { isThicketError, type Listener, Network, Node, type NodeConfig, OverlayError, type Resolved, ThicketError } from 'thicket';

const config: NodeConfig = {
  parents: ['udp://203.0.113.5:7117#2awhwlq7kn33nz6cbzlikqsxxwuf6lnlapattmee44jlbfskkj4q'],
  networks: { home: 'key' },
  interface: { mode: 'userspace', threads: 1 },
  endpoints: [{ name: 'camera', services: [{ port: 'tcp/554', target: '192.168.1.20:554', allow: ['group:family'] }] }],
  proxies: [{ listen: '127.0.0.1:1080' }],
  log: { level: 'warn' },
};

export async function own(): Promise<string> {
  const network: Network = await Network.create({ folder: '/tmp/home', name: 'home' });
  const { key, request } = await Node.init({ state: '/tmp/state' });
  const certificate: string = await network.certify(request, { name: 'gw', rights: ['gateway'], endpoints: ['camera'], expires: '30d' });
  const { name, notAfter }: { name: string; notAfter: Date } = await Node.join({ state: '/tmp/state', certificate });
  return `${key} ${name} ${notAfter.toISOString()} ${network.id} ${network.withNamingSecret}`;
}

export async function use(signal: AbortSignal): Promise<void> {
  const node = await Node.open({ state: '/tmp/state', config, onLog: ({ level, message }) => process.stderr.write(`${level} ${message}`) });
  const stream: Duplex = node.dial('camera.home.thicket:554', { signal });
  const other: Duplex = node.dial({ name: 'camera.home.thicket', port: 554 });
  const found: Resolved = await node.resolve('camera.home');
  const address: string | undefined = found.ipv6;
  const listener: Listener = await node.listen({ endpoint: 'door', port: 7000, allow: ['anyone-trusted'] }, (incoming, caller) => {
    incoming.end(`hello ${caller.name} of ${caller.groups.join()}`);
  });
  stream.on('error', (error: Error) => {
    if (error instanceof OverlayError && error.code === 'ECONNREFUSED') return;
    if (error instanceof ThicketError || isThicketError(error)) process.exitCode = error.code === 'NO_PARENT' ? 1 : 2;
  });
  const restart: readonly string[] = await node.configure({ ...config, log: { level: 'info' } });
  await Promise.all([listener.close(), node.close(), node.closed]);
  other.destroy();
  process.stdout.write(`${address} ${restart.join()}`);
}

export async function wrong(node: Node, network: Network): Promise<void> {
  // @ts-expect-error A node is opened, not made.
  new Node();
  // @ts-expect-error A configuration is an object.
  await Node.open({ state: '/tmp/state', config: 'thicket.yaml' });
  // @ts-expect-error Unknown keys are errors.
  await Node.open({ state: '/tmp/state', config: { parent: [] } });
  // @ts-expect-error A port is a number.
  node.dial({ name: 'camera.home', port: '554' });
  // @ts-expect-error Who answers must be said.
  await node.listen({ endpoint: 'door', port: 7000 });
  // @ts-expect-error There is no such right.
  await network.certify('', { name: 'gw', rights: ['root'] });
  // @ts-expect-error Nobody changes a key.
  node.key = '';
}
