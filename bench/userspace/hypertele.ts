/** The peer: hypertele, the nearest tool in JavaScript, between two ports of one host; its DHT is three nodes on the same loopback. */
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import { type Host, LabError, type Process, waitFor } from '../../test/lab/index.js';
import { CACHE } from '../tunnel/peers/program.js';
import { type Route, SERVED } from './route.js';

const VERSION = '1.1.4';
const PORTS = { iperf: 15_201, web: 18_080 } as const;
const TESTNET = `
import createTestnet from 'hyperdht/testnet.js';
const { bootstrap } = await createTestnet(3, { host: '127.0.0.1' });
console.log('port', bootstrap[0].port);
`;

/** `host` must have servers at SERVED's ports. It is left with loopback alone: hypertele tries every address that a peer has. */
export async function startHypertele(host: Host): Promise<Route> {
  const folder = installed();
  await host.exec(['ip', 'link', 'set', 'wan0', 'down']);
  const running: Process[] = [];
  const node = async (script: string, ...args: readonly string[]): Promise<Process> => {
    const process_ = await host.spawn([process.execPath, script, ...args]);
    running.push(process_);
    return process_;
  };
  const bin = join(folder, 'node_modules', 'hypertele');
  const testnet = await host.spawn([process.execPath, '--input-type=module', '--eval', TESTNET], { cwd: folder });
  running.push(testnet);
  const port = (await testnet.waitForLine(/^port (\d+)$/))[1] ?? '';
  const counted: Process[] = [];
  for (const service of ['iperf', 'web'] as const) {
    const seed = randomBytes(32).toString('hex');
    const server = await node(join(bin, 'server.js'), '-l', String(SERVED[service]), '--seed', seed, '--bootstrap', port);
    const key = (await server.waitForLine(/^hypertele: ([0-9a-f]{64})$/))[1] ?? '';
    const client = await node(join(bin, 'client.js'), '-p', String(PORTS[service]), '-s', key, '--bootstrap', port);
    await client.waitForLine(/^Server ready/);
    counted.push(client, server);
  }
  const once = ['curl', '-sSf', '--max-time', '5', '-o', '/dev/null', `http://127.0.0.1:${PORTS.web}/`];
  await waitFor(() => host.exec(once), { what: 'hypertele', timeoutMs: 30_000 });
  return {
    name: 'hypertele',
    version: VERSION,
    client: host,
    ports: PORTS,
    processes: counted.map(({ pid }) => pid),
    stop: async () => {
      for (const one of running.reverse()) await one.kill();
    },
  };
}

/** Where it lies. Installed from the registry what isn't there yet, outside of the repository. */
function installed(): string {
  const folder = join(CACHE, `hypertele-${VERSION}`);
  if (existsSync(folder)) return folder;
  console.error('▸ installing hypertele by npm install');
  const fresh = `${folder}.${process.pid}`;
  mkdirSync(fresh, { recursive: true });
  try {
    const args = ['install', '--prefix', fresh, '--no-audit', '--no-fund', '--ignore-scripts', `hypertele@${VERSION}`];
    execFileSync('npm', args, { stdio: ['ignore', 'ignore', 'inherit'] });
  } catch (cause) {
    throw new LabError('hypertele, which Thicket is measured beside, does not install: see what npm says', { cause });
  }
  renameSync(fresh, folder);
  return folder;
}
