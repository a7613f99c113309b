/** `thicket dns install|remove`: the host's resolver. */
import { lookup } from 'node:dns/promises';
import { type Command, Option } from 'commander';
import type { StatusDocument } from '../../control/documents.js';
import { describe, isThicketError, ThicketError } from '../../errors.js';
import type { Method, ResolverReport, ResolverTarget } from '../../resolver/index.js';
import { stateFolder } from '../../trust/state-folder.js';
import { withNode } from '../node.js';
import { type NodeOption, nodeOption, type StateOption, stateOption } from '../options.js';
import { complain, say } from '../output.js';

interface InstallOptions extends NodeOption {
  readonly how: Method | 'auto';
  readonly config?: string;
}

const HELP = `
How:
  systemd-resolved  a unit tells it, each time the overlay's interface appears, to ask Thicket for Thicket's names
  dnsmasq           a file in its conf-dir; dnsmasq is restarted. Other hosts that it serves can ask for Thicket's names, too
  resolv.conf       Thicket's server is put before the site's in /etc/resolv.conf. It refuses all other names: the C library of most
                    Linux systems (glibc) asks the next server then. c-ares (Node.js's dns.resolve) doesn't, and musl asks all at
                    once and believes the first: for programs that use these, take one of the others
  auto              the one that programs here ask now

What was changed is kept in the state directory, and "thicket dns remove" puts it back.`;

export function registerDns(program: Command): void {
  const dns = program.command('dns').description("make this host's programs resolve overlay names, through the system's own resolver");
  nodeOption(dns.command('install').description("point the system's resolver to Thicket's DNS server, for its own names only"))
    .addOption(
      new Option('--how <way>', 'which resolver to set up')
        .choices(['auto', 'systemd-resolved', 'dnsmasq', 'resolv.conf'])
        .default('auto', 'the one in use'),
    )
    .option('--config <file>', 'take addresses and domain from this thicket.yaml instead of the running node')
    .addHelpText('after', HELP)
    .action(install);
  stateOption(dns.command('remove').description('put the resolver back as it was')).action(remove);
}

async function install(options: InstallOptions): Promise<void> {
  const { installResolver } = await import('../../resolver/index.js');
  const folder = stateFolder(options.state);
  const { target, key } = options.config === undefined ? await fromNode(options) : await fromConfig(options.config, folder);
  tell(await installResolver(target, options.how, { stateFolder: folder }));
  if (key !== undefined) await check(`${key}.${target.domain}`, target);
}

async function remove(options: StateOption): Promise<void> {
  const { removeResolver } = await import('../../resolver/index.js');
  const report = await removeResolver({ stateFolder: stateFolder(options.state) });
  if (report === undefined) say('nothing to remove: thicket dns install was not run with this state directory');
  else tell(report);
}

function tell({ done, warnings }: ResolverReport): void {
  for (const line of done) say(line);
  for (const warning of warnings) complain(`warning: ${warning}`);
}

const NOT_USERSPACE =
  'in user-space mode names lead nowhere for other programs, since there is no interface: use thicket forward, or run the node as root with mode: tun';
const DNS_PORT = 53;

interface Source {
  readonly target: ResolverTarget;
  /** The running node's, whose name must resolve when all is done. */
  readonly key: string | undefined;
}

async function fromNode(options: NodeOption): Promise<Source> {
  const { dns, interface: tun, node } = await withNode(options, (client) => client.call<StatusDocument>('GET', '/v1/status'));
  if (dns !== null && tun === null) throw new ThicketError('REFUSED', NOT_USERSPACE);
  if (dns === null || tun === null) {
    throw new ThicketError('REFUSED', 'this node has no interface and so no DNS server: run this beside a node that has one');
  }
  const pools = tun.ipv6 === null ? [tun.ipv4] : [tun.ipv4, tun.ipv6];
  const { addresses, port, domain } = dns;
  return { target: { addresses, port, domain, interfaceName: tun.name, pools }, key: node.key };
}

async function fromConfig(file: string, folder: string): Promise<Source> {
  const [{ readConfig }, { serverAddresses }, { randomUla }] = await Promise.all([
    import('../../config/index.js'),
    import('../../resolver/index.js'),
    import('../../naming/index.js'),
  ]);
  const { dns, interface: tun } = readConfig(file, folder);
  if (tun.mode === 'userspace') throw new ThicketError('REFUSED', NOT_USERSPACE);
  const ipv6 = tun.ipv6 === 'auto' ? randomUla(folder) : tun.ipv6;
  const pools = ipv6 === 'off' ? [tun.ipv4] : [tun.ipv4, ipv6];
  const target = { addresses: serverAddresses(pools), port: dns.port ?? DNS_PORT, domain: dns.domain, interfaceName: tun.name, pools };
  return { target, key: undefined };
}

/** Asks for the node's own name as any program would. */
async function check(name: string, target: ResolverTarget): Promise<void> {
  try {
    const { address } = await lookup(name, { family: 4 });
    if (target.addresses.includes(address)) return say('checked: programs on this host resolve overlay names');
    complain(`warning: ${name} resolves to ${address}, which is not this node: another DNS server answers for .${target.domain}`);
  } catch (error) {
    if (isThicketError(error)) throw error;
    complain(`warning: programs on this host do not resolve overlay names yet (${describe(error)})`);
  }
}
