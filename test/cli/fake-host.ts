/** What the control server asks, in place of a node: documents with something in every field, and every call kept. */
import type { ControlHost } from '../../ts/control/index.js';
import { SCHEMA } from '../../ts/control/index.js';

export const keyOf = (letter: string): string => letter.repeat(51).concat('a');

const [NODE, PARENT, CHILD, CAMERA, NETWORK] = ['n', 'p', 'c', 'q', 'w'].map(keyOf) as [string, string, string, string, string];

export interface FakeHost extends ControlHost {
  readonly calls: (readonly unknown[])[];
  /** What `ping` does for each question in turn; 12.5 ms when there is none left. */
  readonly pings: (number | Error)[];
  /** Thrown by everything that changes something. */
  refusal: Error | undefined;
  /** Of forwards and proxies. */
  readonly held: AbortSignal[];
}

export function fakeHost(): FakeHost {
  const calls: (readonly unknown[])[] = [];
  const change = (...call: readonly unknown[]): Promise<void> => {
    calls.push(call);
    return host.refusal === undefined ? Promise.resolve() : Promise.reject(host.refusal);
  };
  const session = {
    key: CAMERA,
    own: NODE,
    name: 'camera.gw',
    network: NETWORK,
    state: 'up' as const,
    hops: 3,
    rxBytes: 1_234_567,
    txBytes: 89_012,
    rekeys: 7,
    pathMtu: 1492,
    flows: 2,
    ageSeconds: 3_725,
    addresses: ['198.18.0.7', 'fd00::7'],
    offered: ['tcp/554'],
    allowed: [],
    denied: ['tcp/22'],
  };
  const service = {
    name: 'light',
    port: 'tcp/80',
    state: 'off' as const,
    reason: 'no route to it',
    device: '192.168.1.31:80',
    rtsp: false,
    allow: ['group:family'],
    key: CAMERA,
    payloadBytes: 1_000,
    overheadBytes: 24,
  };
  const host: FakeHost = {
    calls,
    pings: [],
    refusal: undefined,
    held: [],
    status: () => ({
      schema: SCHEMA,
      version: '0.1.0',
      backend: 'wasm',
      backendShortfall: '@thicket/linux-x64-gnu is missing',
      node: { key: NODE, name: 'gw', network: NETWORK },
      state: 'up',
      listen: ['udp://0.0.0.0:7117'],
      allowUnrelayed: true,
      links: [{ key: PARENT, role: 'parent', state: 'up', rttMs: 12.34, rxBytes: 999, txBytes: 1_000 }],
      sessions: [session],
      services: [service],
      routes: 2,
      interface: { name: 'thicket0', offload: 'gso', ipv4: '198.18.0.1/15', ipv6: 'fd00::1/64' },
      mode: 'tun',
      modeReason: null,
      userspace: null,
      dns: { domain: 'thicket', addresses: ['198.18.0.1'], port: 53 },
      relay: { packets: 5, bytes: 6_000, labels: 4 },
      ledger: { payload: 10_000_000, overhead: 2_000, control: 300, keepAlive: 40 },
      trains: { sealed: [5, 0, 0, 0, 0, 2, 0], opened: [4, 0, 1, 0, 0, 0, 0] },
      drops: { replay: 3, policy: 0 },
      refused: { 'bad signature': 1 },
      warnings: ['the clock is behind'],
    }),
    tree: () => ({
      schema: SCHEMA,
      parents: [{ key: PARENT, state: 'up' }],
      node: {
        key: NODE,
        endpoint: false,
        children: [
          { key: CHILD, endpoint: false, children: [{ key: CAMERA, endpoint: true, children: [] }] },
          { key: keyOf('z'), endpoint: false, children: [] },
        ],
      },
    }),
    routes: () => [{ key: CAMERA, parent: CHILD, via: CHILD, endpoint: true }],
    sessions: () => [session],
    services: () => [service],
    trust: () => [NETWORK],
    async ping(name) {
      calls.push(['ping', name]);
      const next = host.pings.shift() ?? 12.5;
      if (next instanceof Error) throw next;
      return { name, key: CAMERA, rttMs: next };
    },
    trace: async (name) => ({
      schema: SCHEMA,
      name,
      hops: [
        { hop: 1, key: PARENT, role: 'relay', rttMs: 1.25 },
        { hop: 2, key: CAMERA, role: 'end', rttMs: null },
      ],
    }),
    resolve: async (name) => ({
      schema: SCHEMA,
      name,
      key: CAMERA,
      certifiedAs: 'camera.gw',
      network: NETWORK,
      ipv4: '198.18.0.7',
      ipv6: null,
    }),
    expose: (...args) => change('expose', ...args),
    unexpose: (...args) => change('unexpose', ...args),
    allow: (...args) => change('allow', ...args),
    deny: (...args) => change('deny', ...args),
    setTrust: (...args) => change('setTrust', ...args),
    async reload() {
      await change('reload');
      return { schema: SCHEMA, restart: ['listen', 'dns'] };
    },
    async forward(listen, to, signal) {
      await change('forward', listen, to);
      host.held.push(signal);
      return listen;
    },
    async outlet(listen, to, as, from, signal) {
      await change('outlet', listen, to, as, from);
      host.held.push(signal);
      return listen;
    },
    async proxy(listen, open, signal) {
      await change('proxy', listen, open);
      host.held.push(signal);
      return listen;
    },
  };
  return host;
}
