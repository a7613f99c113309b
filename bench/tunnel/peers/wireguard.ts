/** The peer: wireguard-go between the same three hosts, with the one in the middle as a relay (which opens and seals every packet anew). */
import { generateKeyPairSync, type KeyObject } from 'node:crypto';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { type Host, LabError, type Process, waitFor } from '../../../test/lab/index.js';
import type { Contender } from '../route.js';
import { goProgram } from './program.js';

/** What wireguard-go and wg-quick choose for an uplink of 1500. */
const MTU = 1420;
const PORT = 51_820;
const SOCKETS = '/var/run/wireguard';

interface Peer {
  readonly host: Host;
  readonly address: string;
  readonly iface: string;
  readonly privateKey: string;
  readonly publicKey: string;
}

export async function startWireGuard(client: Host, relay: Host, server: Host): Promise<Contender> {
  const { path, version } = goProgram('wireguard', 'golang.zx2c4.com/wireguard', 'latest');
  const id = process.pid.toString(36);
  const [a, r, b] = [client, relay, server].map((host, index) => newPeer(host, `10.99.0.${index + 1}`, `wg${index}${id}`));
  if (a === undefined || r === undefined || b === undefined) throw new LabError('three hosts are wanted');
  const running: Process[] = [];
  for (const peer of [a, r, b]) running.push(await start(path, peer));
  await configure(r, [
    { peer: a, allowed: `${a.address}/32` },
    { peer: b, allowed: `${b.address}/32` },
  ]);
  const endpoint = `${relay.address}:${PORT}`;
  for (const end of [a, b]) await configure(end, [{ peer: r, allowed: '10.99.0.0/24', endpoint }]);
  await relay.exec(['sysctl', '-qw', 'net.ipv4.ip_forward=1']);
  // The relay learns where its peers are from their first packets.
  for (const end of [a, b])
    await waitFor(() => end.host.exec(['ping', '-c', '1', '-W', '1', r.address]), { what: 'WireGuard to its relay' });
  await client.exec(['ping', '-c', '1', '-W', '2', b.address]);
  const pids = running.map(({ pid }) => pid);
  return {
    name: 'wireguard-go',
    version,
    routes: {
      direct: { client, address: r.address, relays: [], processes: pids.slice(0, 2) },
      relay: { client, address: b.address, relays: [relay], processes: pids, relayProcess: pids[1] ?? 0 },
    },
    // Killed, they would leave their sockets in /var/run.
    async stop() {
      for (const process of running) await process.kill('SIGTERM');
    },
  };
}

function newPeer(host: Host, address: string, iface: string): Peer {
  const { privateKey, publicKey } = generateKeyPairSync('x25519');
  const hex = (key: KeyObject, part: 'd' | 'x'): string =>
    Buffer.from(key.export({ format: 'jwk' })[part] ?? '', 'base64url').toString('hex');
  return { host, address, iface, privateKey: hex(privateKey, 'd'), publicKey: hex(publicKey, 'x') };
}

async function start(path: string, { host, address, iface }: Peer): Promise<Process> {
  const process = await host.spawn([path, '-f', iface], { env: { LOG_LEVEL: 'error' } });
  await waitFor(() => existsSync(socketOf(iface)), { what: `${iface}'s control socket` });
  await host.exec(['ip', 'addr', 'add', `${address}/24`, 'dev', iface]);
  await host.exec(['ip', 'link', 'set', iface, 'mtu', String(MTU), 'up']);
  return process;
}

interface Reach {
  readonly peer: Peer;
  readonly allowed: string;
  readonly endpoint?: string;
}

async function configure(own: Peer, peers: readonly Reach[]): Promise<void> {
  const lines = [`private_key=${own.privateKey}`, `listen_port=${PORT}`];
  for (const { peer, allowed, endpoint } of peers) {
    lines.push(`public_key=${peer.publicKey}`, `allowed_ip=${allowed}`);
    if (endpoint !== undefined) lines.push(`endpoint=${endpoint}`, 'persistent_keepalive_interval=25');
  }
  const answer = await ask(own.iface, ['set=1', ...lines]);
  if (!/^errno=0$/m.test(answer)) throw new LabError(`wireguard-go refuses its configuration: ${answer}`);
}

/** WireGuard's cross-platform control protocol: lines in, an empty line, lines out. */
async function ask(iface: string, lines: readonly string[]): Promise<string> {
  const socket = connect(socketOf(iface));
  await once(socket, 'connect');
  socket.write(`${lines.join('\n')}\n\n`);
  let answer = '';
  for await (const chunk of socket) {
    answer += String(chunk);
    if (answer.endsWith('\n\n')) break;
  }
  return answer;
}

const socketOf = (iface: string): string => join(SOCKETS, `${iface}.sock`);
