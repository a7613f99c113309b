/** A running dnsmasq: which one this host's programs ask, what it was told, and how it is made to read its configuration again. */
import { existsSync, readdirSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import { isThicketError } from '../errors.js';
import { type DnsmasqOption, parseArguments, parseFile } from './dnsmasq-config.js';
import type { ResolverHost } from './host.js';
import { readText } from './kept-file.js';

export interface Dnsmasq {
  readonly pid: number;
  readonly argv: readonly string[];
  /** Its command line's and its files', but for those in our own file. */
  readonly options: readonly DnsmasqOption[];
}

/** Addresses in /proc/net/udp's notation on which a question to a loopback address arrives, port 53. */
const LOOPBACK = /^(?:[0-9A-F]{6}7F|00000000|0{32}|0{24}01000000):0035$/;
/** Included files of included files: enough is enough. */
const FILES_MOST = 256;

/** The dnsmasq of our network namespace that answers on loopback. `own`: the file that isn't counted among its options. */
export function findDnsmasq(own: string): Dnsmasq | undefined {
  const namespace = linkOf('/proc/self/ns/net');
  const inodes = new Set(['udp', 'udp6'].flatMap((table) => loopbackSockets(readText(`/proc/net/${table}`) ?? '')));
  for (const entry of readdirSync('/proc')) {
    const proc = `/proc/${entry}`;
    if (!/^\d+$/.test(entry) || readText(`${proc}/comm`)?.trim() !== 'dnsmasq' || linkOf(`${proc}/ns/net`) !== namespace) continue;
    if (!socketsOf(proc).some((inode) => inodes.has(inode))) continue;
    const [, ...argv] = (readText(`${proc}/cmdline`) ?? '').split('\0').slice(0, -1);
    return { pid: Number(entry), argv, options: allOptions(argv, join(proc, 'root'), own) };
  }
  return undefined;
}

/** Throws REFUSED with dnsmasq's own words when its configuration, our file included, is no good. */
export async function checkConfiguration(host: ResolverHost, { pid, argv }: Dnsmasq): Promise<void> {
  const program = linkOf(`/proc/${pid}/exe`);
  await host.run(existsSync(program) ? program : 'dnsmasq', ...argv, '--test');
}

/** Restarts it through whatever runs it. It reads its files only then; a SIGHUP is not enough. Returns what is left to do by hand. */
export async function restartDnsmasq(host: ResolverHost, { pid }: Dnsmasq): Promise<string | undefined> {
  const unit = /\/([^/\n]+\.service)$/m.exec(readText(`/proc/${pid}/cgroup`) ?? '')?.[1];
  try {
    if (unit === 'NetworkManager.service') {
      await host.run('nmcli', 'general', 'reload', 'dns-full');
    } else if (unit?.includes('dnsmasq')) {
      await host.run('systemctl', 'restart', unit);
    } else if (host.has('/etc/init.d/dnsmasq') && isPidOf(host, pid)) {
      await host.run('/etc/init.d/dnsmasq', 'restart');
    } else {
      return `dnsmasq (process ${pid}) reads its files only when it starts, and no service runs it: restart it yourself`;
    }
    return undefined;
  } catch (error) {
    if (!isThicketError(error)) throw error;
    return `dnsmasq reads its files only when it starts, and couldn't be restarted (${error.message}): restart it yourself`;
  }
}

function isPidOf(host: ResolverHost, pid: number): boolean {
  return ['/run/dnsmasq/dnsmasq.pid', '/run/dnsmasq.pid', '/var/run/dnsmasq/dnsmasq.pid', '/var/run/dnsmasq.pid'].some(
    (file) => readText(host.path(file))?.trim() === String(pid),
  );
}

/** `root`: the file system as that dnsmasq sees it. */
function allOptions(argv: readonly string[], root: string, own: string): DnsmasqOption[] {
  const options = parseArguments(argv);
  if (!options.some(({ name }) => name === 'conf-file')) options.push({ name: 'conf-file', value: '/etc/dnsmasq.conf' });
  const read = new Set<string>([own]);
  // Files named by files are appended while the list is walked.
  for (const { name, value } of options) {
    const files = name === 'conf-file' ? [value] : name === 'conf-dir' ? filesIn(root, value) : [];
    for (const file of files) {
      if (read.has(file) || read.size > FILES_MOST) continue;
      read.add(file);
      options.push(...parseFile(readText(join(root, file)) ?? ''));
    }
  }
  return options;
}

/** `conf-dir=/etc/dnsmasq.d,*.conf` takes these only, `conf-dir=/etc/dnsmasq.d,.bak` takes those not. */
function filesIn(root: string, value: string): string[] {
  const [folder = '', ...endings] = value.split(',');
  const only = endings.filter((ending) => ending.startsWith('*')).map((ending) => ending.slice(1));
  const never = endings.filter((ending) => !ending.startsWith('*'));
  let names: string[];
  try {
    names = readdirSync(join(root, folder));
  } catch {
    return [];
  }
  return names
    .filter((name) => !/^\.|~$|^#.*#$/.test(name) && !never.some((ending) => name.endsWith(ending)))
    .filter((name) => only.length === 0 || only.some((ending) => name.endsWith(ending)))
    .map((name) => join(folder, name));
}

function loopbackSockets(table: string): string[] {
  return table
    .split('\n')
    .map((line) => line.trim().split(/\s+/))
    .filter((columns) => LOOPBACK.test(columns[1] ?? ''))
    .map((columns) => columns[9] ?? '');
}

function socketsOf(proc: string): string[] {
  try {
    return readdirSync(`${proc}/fd`).flatMap((fd) => /^socket:\[(\d+)\]$/.exec(linkOf(`${proc}/fd/${fd}`))?.[1] ?? []);
  } catch {
    return [];
  }
}

function linkOf(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return '';
  }
}
