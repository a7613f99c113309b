/** The peer: nebula between the same three hosts, the one in the middle as its lighthouse and relay. */
import { stringify } from 'yaml';
import { type Host, LabError, type Process, run, waitFor } from '../../../test/lab/index.js';
import type { Contender } from '../route.js';
import { goProgram } from './program.js';

const VERSION = 'v1.11.0';
const SOURCE = 'github.com/slackhq/nebula/cmd';
const PORT = 4_242;
/** What an uplink of 1500 carries through a relay: IPv4, UDP, and nebula's header and tag twice; rounded down. */
const MTU = 1_400;
const BUFFER = 10_485_760;
const QUEUE = 4_000;

/** The lab must not let client and server reach each other, or nebula won't use the relay. */
export async function startNebula(client: Host, relay: Host, server: Host): Promise<Contender> {
  const { path, version } = goProgram('nebula', `${SOURCE}/nebula`, VERSION);
  const certify = goProgram('nebula-cert', `${SOURCE}/nebula-cert`, VERSION).path;
  const ca = [relay.path('nebula-ca.crt'), relay.path('nebula-ca.key')] as const;
  await run([certify, 'ca', '-name', 'bench', '-out-crt', ca[0], '-out-key', ca[1]]);
  const hosts = [client, relay, server];
  const address = (host: Host): string => `10.98.0.${hosts.indexOf(host) + 1}`;
  const running: Process[] = [];
  for (const host of [relay, client, server]) {
    const own = [host.path('nebula.crt'), host.path('nebula.key')] as const;
    const sign = ['sign', '-name', host.name, '-networks', `${address(host)}/24`, '-ca-crt', ca[0], '-ca-key', ca[1]];
    await run([certify, ...sign, '-out-crt', own[0], '-out-key', own[1]]);
    const middle = host === relay;
    const config = {
      pki: { ca: ca[0], cert: own[0], key: own[1] },
      cipher: 'chachapoly',
      static_host_map: middle ? {} : { [address(relay)]: [`${relay.address}:${PORT}`] },
      lighthouse: {
        am_lighthouse: middle,
        hosts: middle ? [] : [address(relay)],
        // Or it would find its way through the other tunnels.
        local_allow_list: { interfaces: { wan0: true } },
      },
      // The buffers that its example names, and a longer queue: else it loses packets, and TCP its speed.
      listen: { host: '0.0.0.0', port: middle ? PORT : 0, read_buffer: BUFFER, write_buffer: BUFFER },
      relay: { am_relay: middle, use_relays: true, relays: middle ? [] : [address(relay)] },
      tun: { dev: `neb${hosts.indexOf(host)}`, mtu: MTU, tx_queue: QUEUE },
      logging: { level: 'warning' },
      firewall: { outbound: [{ port: 'any', proto: 'any', host: 'any' }], inbound: [{ port: 'any', proto: 'any', host: 'any' }] },
    };
    running.push(await host.spawn([path, '-config', host.write('nebula.yaml', stringify(config))]));
  }
  for (const far of [relay, server]) {
    const once = ['ping', '-c', '1', '-W', '1', address(far)];
    await waitFor(() => client.exec(once), { what: `nebula to ${far.name}`, timeoutMs: 30_000 }).catch((cause: unknown) => {
      const said = running.flatMap(({ stdout, stderr }) => [...stdout, ...stderr]).slice(-20);
      throw new LabError(`nebula does not reach ${far.name}:\n${said.join('\n')}`, { cause });
    });
  }
  const [middle = 0, near = 0, end = 0] = running.map(({ pid }) => pid);
  return {
    name: 'nebula',
    version,
    routes: {
      direct: { client, address: address(relay), relays: [], processes: [near, middle] },
      relay: { client, address: address(server), relays: [relay], processes: [near, middle, end], relayProcess: middle },
    },
    async stop() {
      for (const process of running) await process.kill('SIGTERM');
    },
  };
}
