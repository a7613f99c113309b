/**
 * Network namespaces that stand for the world: a router `inet`, hosts on it that reach each other only through it, and LANs behind gateways.
 *
 *     camera broker files light1 light2        root  mid  viewer  viewer2  stranger        lamp
 *        └──────┴─────┴─── lan ──── gw ─────────┴─────┴─ inet ─┴──────┴────────┴──── gw2 ─── lan2
 */
import { join } from 'node:path';
import { Capture } from './capture.js';
import { LabError } from './errors.js';
import { Host } from './host.js';
import { DEVICES, type Device, type HostName, hostNames, INTERNET_HOSTS, type InternetHost, LANS, SITE_DNS, underlay } from './plan.js';
import { type Process, run } from './process.js';
import { namespaceName, newRun, type Run, removeRun, sweep } from './runs.js';
import { type ShimOptions, startShim } from './shim.js';
import type { Stage } from './stage.js';

export interface LabOptions {
  /** An underlay of IPv6 only, instead of IPv4 only. The LANs stay IPv4. Default false. */
  readonly ipv6?: boolean;
}

/** Takes back what a call of the lab did. */
export type Undo = () => Promise<void>;

export class Lab implements Stage {
  static readonly #alive = new Set<Lab>();
  readonly #run: Run;
  readonly #ipv6: boolean;
  readonly #hosts = new Map<HostName, Host>();
  readonly #captures: Capture[] = [];
  #shims = 0;
  #destroyed = false;

  private constructor(run: Run, options: LabOptions) {
    this.#run = run;
    this.#ipv6 = options.ipv6 ?? false;
    for (const name of hostNames()) this.#hosts.set(name, this.#describe(name));
  }

  /** Makes a lab, after removing what crashed runs left. Needs root. Takes about a second. */
  static async create(options: LabOptions = {}): Promise<Lab> {
    if (process.getuid?.() !== 0) throw new LabError('network namespaces need root: run the tests as root');
    await sweep();
    const lab = new Lab(newRun(), options);
    Lab.#alive.add(lab);
    try {
      await lab.#build();
    } catch (error) {
      await lab.destroy();
      throw error;
    }
    return lab;
  }

  /** For who must end at once, in whatever state this process's labs are. */
  static async destroyAll(): Promise<void> {
    await Promise.all([...Lab.#alive].map((lab) => lab.destroy()));
  }

  /** A folder of this run, removed with the lab. Readable to all, so that servers which drop privileges can use it. */
  get dir(): string {
    return this.#run.dir;
  }

  host(name: HostName): Host {
    const host = this.#hosts.get(name);
    if (host === undefined) throw new LabError(`no host ${name}`);
    return host;
  }

  /** Hosts on the Internet: those that may run Thicket. */
  internetHosts(): Host[] {
    return INTERNET_HOSTS.map((name) => this.host(name));
  }

  /**
   * Starts tcpdump; resolves when it captures. Interfaces: `wan0` on Internet hosts, `lan0` on gateways, `eth0` on devices, `thicket0` where a
   * node runs. `filter` is an expression of pcap-filter(7).
   */
  async capture(host: HostName, iface: string, filter?: string): Promise<Capture> {
    const file = join(this.dir, `${host}-${iface}-${this.#captures.length}.pcap`);
    // 64 MiB of ring, since a dropped packet spoils the proof; -Z root because the folder is ours.
    const options = ['-i', iface, '-w', file, '-s', '0', '-B', '65536', '-n', '-U', '--immediate-mode', '-Z', 'root'];
    const tcpdump = await this.host(host).spawn(['tcpdump', ...options, ...(filter === undefined ? [] : [filter])]);
    await tcpdump.waitForLine(/listening on/);
    const capture = new Capture(host, file, tcpdump);
    this.#captures.push(capture);
    return capture;
  }

  /** Captures on the uplinks of all Internet hosts. */
  captureInternet(): Promise<Capture[]> {
    return Promise.all(INTERNET_HOSTS.map((name) => this.capture(name, 'wan0')));
  }

  /** Drops what the router forwards and this nft expression matches, such as `iifname "gw" oifname "root"`. Interfaces there bear the hosts' names. */
  async drop(expression: string): Promise<Undo> {
    const inet = this.host('inet');
    const add = ['add', 'rule', 'inet', 'lab', 'forward', ...expression.split(' '), 'drop'];
    const { stdout } = await inet.exec(['nft', '--echo', '--handle', ...add]);
    const handle = /# handle (\d+)/.exec(stdout)?.[1];
    if (handle === undefined) throw new LabError(`nft told no handle: ${stdout}`);
    return async () => {
      await inet.exec(['nft', 'delete', 'rule', 'inet', 'lab', 'forward', 'handle', handle]);
    };
  }

  /** Cuts a host off the Internet, without its interface going down. */
  async cut(host: InternetHost): Promise<Undo> {
    const undo = [await this.drop(`iifname "${host}"`), await this.drop(`oifname "${host}"`)];
    return async () => {
      for (const one of undo) await one();
    };
  }

  /** Loses this share of the packets that leave a host, at random. */
  loss(host: InternetHost, percent: number): Promise<Undo> {
    return this.drop(`iifname "${host}" numgen random mod 1000 < ${Math.round(percent * 10)}`);
  }

  /** Delays, reorders, doubles or loses the packets between two Internet hosts; to them the path looks the same. Resolves when it is in force. */
  shim(a: InternetHost, b: InternetHost, options: ShimOptions): Promise<Undo> {
    this.#shims += 1;
    return startShim(this.host('inet'), [this.host(a).address, this.host(b).address], this.#shims, options);
  }

  /** A DNS server of the site, that every Internet host reaches: `site.example` is 192.0.2.80, all else NXDOMAIN. */
  async startSiteDns(): Promise<{ readonly address: string; readonly process: Process }> {
    const address = this.#ipv6 ? SITE_DNS.ip6 : SITE_DNS.ip4;
    const options = [
      '--no-daemon',
      '--conf-file=/dev/null',
      '--no-resolv',
      '--no-hosts',
      '--bind-interfaces',
      '--user=root',
      '--log-queries',
    ];
    const names = ['--listen-address=127.0.0.1', `--listen-address=${address}`, '--host-record=site.example,192.0.2.80', '--address=/#/'];
    const process = await this.host('inet').spawn(['dnsmasq', ...options, '--pid-file=', '--log-facility=-', ...names]);
    await process.waitForLine(/started, version/);
    return { address, process };
  }

  /** Ends all programs and removes everything. May be called twice. */
  async destroy(): Promise<void> {
    if (this.#destroyed) return;
    this.#destroyed = true;
    Lab.#alive.delete(this);
    const ended = [...this.#hosts.values()].map((host) => host.killAll());
    // Only then will all have ended: children of theirs may hold their output open.
    await removeRun(this.#run);
    await Promise.all(ended);
  }

  #describe(name: HostName): Host {
    const common = { name, netns: namespaceName(this.#run.id, name), dir: join(this.dir, name) };
    if (isInternetHost(name)) {
      const { ip4, ip6 } = underlay(name);
      return this.#ipv6 ? new Host({ ...common, address: ip6, ip4: '', ip6 }) : new Host({ ...common, address: ip4, ip4, ip6: '' });
    }
    const address = name in DEVICES ? DEVICES[name as Device].address : '';
    return new Host({ ...common, address, ip4: address, ip6: '' });
  }

  async #build(): Promise<void> {
    const ns = (name: HostName): string => this.host(name).netns;
    for (const host of this.#hosts.values()) {
      // Without a resolver of its own a host would ask the machine's, which can't be reached from here, and wait for seconds.
      host.etc('resolv.conf', '# written by the lab\n');
    }
    await batch(hostNames().map((name) => `netns add ${ns(name)}`));
    // Before there are interfaces, so that they take the defaults.
    await Promise.all(hostNames().map((name) => this.host(name).exec(['sysctl', '-qw', ...this.#sysctls(name)])));

    const links = INTERNET_HOSTS.map((name) => veth('wan0', ns(name), name, ns('inet')));
    for (const [name, { lan }] of Object.entries(DEVICES)) links.push(veth('eth0', ns(name as Device), name, ns(lan)));
    for (const [lan, { gateway }] of Object.entries(LANS)) links.push(veth('lan0', ns(gateway), gateway, ns(lan as 'lan' | 'lan2')));
    await batch(links);
    await Promise.all(hostNames().map((name) => batch(this.#addresses(name), ns(name))));
    await this.host('inet').exec(['nft', '-f', '-'], {
      stdin: 'table inet lab { chain forward { type filter hook forward priority 0; }; }',
    });
  }

  #sysctls(name: HostName): string[] {
    const router = name === 'inet';
    // Forwarding and rp_filter are inherited from the machine: a host's are Debian's. No DAD: an address serves at once.
    return [
      `net.ipv4.ip_forward=${router ? 1 : 0}`,
      `net.ipv6.conf.all.forwarding=${router ? 1 : 0}`,
      `net.ipv4.conf.all.rp_filter=${router ? 0 : 2}`,
      `net.ipv4.conf.default.rp_filter=${router ? 0 : 2}`,
      'net.ipv6.conf.default.accept_dad=0',
      'net.ipv6.conf.default.accept_ra=0',
      'net.ipv6.conf.default.router_solicitations=0',
      `net.ipv6.conf.default.disable_ipv6=${router || isInternetHost(name) ? 0 : 1}`,
      `net.ipv6.conf.lo.disable_ipv6=${router || isInternetHost(name) ? 0 : 1}`,
    ];
  }

  #addresses(name: HostName): string[] {
    const lines = ['link set lo up'];
    const up = (iface: string, address?: string): void => {
      if (address !== undefined) lines.push(`addr add ${address} dev ${iface}`);
      lines.push(`link set ${iface} up`);
    };
    if (name === 'inet') {
      for (const host of INTERNET_HOSTS) {
        const { router4, router6 } = underlay(host);
        up(host, this.#ipv6 ? `${router6}/64 nodad` : `${router4}/30`);
      }
      lines.push(`addr add ${SITE_DNS.ip4}/32 dev lo`, `addr add ${SITE_DNS.ip6}/128 dev lo`);
    } else if (isInternetHost(name)) {
      const { ip4, ip6, router4, router6 } = underlay(name);
      up('wan0', this.#ipv6 ? `${ip6}/64 nodad` : `${ip4}/30`);
      lines.push(this.#ipv6 ? `route add default via ${router6}` : `route add default via ${router4}`);
      const lan = Object.values(LANS).find(({ gateway }) => gateway === name);
      if (lan !== undefined) up('lan0', `${lan.address}/24`);
    } else if (name in LANS) {
      up('br0');
      lines.unshift('link add br0 type bridge');
      const ports = Object.entries(DEVICES).filter(([, { lan }]) => lan === name);
      for (const port of [...ports.map(([device]) => device), LANS[name as 'lan' | 'lan2'].gateway]) {
        lines.push(`link set ${port} master br0`);
        up(port);
      }
    } else {
      up('eth0', `${DEVICES[name as Device].address}/24`);
    }
    return lines;
  }
}

function isInternetHost(name: string): name is InternetHost {
  return (INTERNET_HOSTS as readonly string[]).includes(name);
}

function veth(a: string, netnsA: string, b: string, netnsB: string): string {
  return `link add ${a} netns ${netnsA} type veth peer name ${b} netns ${netnsB}`;
}

/** Runs lines of `ip -batch`, each in the namespace where one is named. */
async function batch(lines: readonly string[], netns?: string): Promise<void> {
  const within = netns === undefined ? [] : ['-n', netns];
  await run(['ip', ...within, '-batch', '-'], { stdin: `${lines.join('\n')}\n` });
}
