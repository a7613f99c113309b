/**
 * The lab with Thicket in it: two networks and their nodes, made with the CLI as their owners would.
 *
 *     gw(camera, broker, files, light1, light2) ─ root ─ mid ─ viewer, viewer2, gw2(lamp), stranger
 */
import { join } from 'node:path';
import ipaddr from 'ipaddr.js';
import { type Devices, type Host, Lab, LabError, type Stage, startDevices, waitFor } from '../lab/index.js';
import { WorldNode } from './node.js';
import { Owner } from './owner.js';
import { type NetworkName, NODE_NAMES, NODES, type NodeConfig, type NodeName, type NodePlan } from './plan.js';

export interface WorldOptions {
  /** An underlay of IPv6 only. Default false. */
  readonly ipv6?: boolean;
  /** Which nodes there are; whose parent isn't among them gets the root. Default all. */
  readonly nodes?: readonly NodeName[];
  /** Those of `nodes` that are enrolled but not started. Default none. */
  readonly idle?: readonly NodeName[];
  /** Whether the LANs' devices run. Default true. */
  readonly devices?: boolean;
  /** Whether the site's own DNS server runs. Default true. */
  readonly siteDns?: boolean;
  /** IPv4 pool of every node. Default 198.18.0.0/15. */
  readonly pool4?: string;
  /** `session: rekey`. */
  readonly rekey?: string;
  /** Where it stands; destroyed with the world. Default a Lab. */
  readonly stage?: Stage;
  /** The URL of a node's parent without its key; default the parent's own. */
  readonly parentUrl?: (name: NodeName, parent: Host) => string;
  /** Changes a node's configuration before it is written. */
  readonly configure?: (name: NodeName, config: NodeConfig) => NodeConfig;
  /** Changes what the owner certifies of a node. */
  readonly plan?: (name: NodeName, plan: NodePlan) => NodePlan;
}

const DEFAULT_POOL4 = '198.18.0.0/15';
/** Ports on loopback of nodes without an interface: their forwards begin here, and their SOCKS5 proxy is there. */
const FORWARDS = 20_001;
export const SOCKS_PORT = 1_080;

export class World {
  readonly #stage: Stage;
  readonly #options: WorldOptions;
  readonly #owners = new Map<NetworkName, Owner>();
  readonly #nodes = new Map<NodeName, WorldNode>();
  #devices: Devices | undefined;
  #siteDns: string | undefined;

  private constructor(stage: Stage, options: WorldOptions) {
    this.#stage = stage;
    this.#options = options;
  }

  /** Makes and starts everything; resolves when every node is up and the tree knows all. Takes some seconds. */
  static async create(options: WorldOptions = {}): Promise<World> {
    const world = new World(options.stage ?? (await Lab.create({ ipv6: options.ipv6 ?? false })), options);
    try {
      await world.#build();
      return world;
    } catch (error) {
      await world.destroy();
      throw error;
    }
  }

  /** Throws where the world is on another stage. */
  get lab(): Lab {
    if (this.#stage instanceof Lab) return this.#stage;
    throw new LabError('this world has no lab');
  }

  node(name: NodeName): WorldNode {
    const node = this.#nodes.get(name);
    if (node === undefined) throw new LabError(`this world has no node ${name}`);
    return node;
  }

  nodes(): WorldNode[] {
    return [...this.#nodes.values()];
  }

  owner(network: NetworkName = 'home'): Owner {
    const owner = this.#owners.get(network);
    if (owner === undefined) throw new LabError(`this world has no network ${network}`);
    return owner;
  }

  get devices(): Devices {
    if (this.#devices === undefined) throw new LabError('this world was made without devices');
    return this.#devices;
  }

  /** The address of the site's own DNS server; empty when it wasn't asked for. */
  get siteDns(): string {
    return this.#siteDns ?? '';
  }

  /** Where every node's DNS server is: the first address of its pool. */
  get dnsAddress(): string {
    const [network] = ipaddr.parseCIDR(this.#options.pool4 ?? DEFAULT_POOL4);
    const bytes = network.toByteArray();
    bytes[3] = (bytes[3] ?? 0) + 1;
    return ipaddr.fromByteArray(bytes).toString();
  }

  /** Resolves when each relay's table holds every running node below it, with all endpoints. */
  async settled(timeoutMs = 20_000): Promise<void> {
    const running = this.nodes().filter((node) => node.running);
    for (const relay of running.filter((node) => node.plan.listens)) {
      const below = running.filter((node) => this.#isBelow(node, relay.name));
      const wanted = below.length + below.reduce((sum, node) => sum + (node.config.endpoints?.length ?? 0), 0);
      await waitFor(
        async () => {
          const routes = await relay.routes();
          return routes.length >= wanted && below.every((node) => routes.some((route) => route.key === node.key));
        },
        { timeoutMs, what: `${wanted} routes at ${relay.name}` },
      );
    }
  }

  /** Ends all programs and removes everything. May be called twice. */
  async destroy(): Promise<void> {
    await this.#stage.destroy();
  }

  async #build(): Promise<void> {
    await Promise.all([this.#startDevices(), this.#startSiteDns(), this.#enroll()]);
    const idle = this.#options.idle ?? [];
    const starting = this.nodes().filter((node) => !idle.includes(node.name));
    for (const relay of starting.filter((node) => node.plan.listens)) await relay.start();
    await Promise.all(starting.filter((node) => !node.plan.listens).map((leaf) => leaf.start()));
    await this.settled();
  }

  async #startDevices(): Promise<void> {
    if (this.#options.devices ?? true) this.#devices = await startDevices(this.#stage);
  }

  async #startSiteDns(): Promise<void> {
    if (!(this.#stage instanceof Lab)) return;
    if (this.#options.siteDns ?? true) this.#siteDns = (await this.lab.startSiteDns()).address;
    // Programs see a resolv.conf that is there when they start, so it says from the start what will be true.
    const servers = [this.dnsAddress, ...(this.#siteDns === undefined ? [] : [this.#siteDns])];
    const text = [
      '# Thicket first: it answers REFUSED to all but .thicket, and glibc goes on to the next.',
      ...servers.map((s) => `nameserver ${s}`),
    ];
    for (const name of this.#names()) this.lab.host(name).etc('resolv.conf', `${text.join('\n')}\noptions timeout:10\n`);
  }

  async #enroll(): Promise<void> {
    const names = this.#names();
    const networks = [...new Set(names.map((name) => NODES[name].network))];
    const folder = join(this.#stage.dir, 'owner');
    for (const network of networks) this.#owners.set(network, await Owner.create(network, folder));
    const keys = new Map<NodeName, string>();
    await Promise.all(names.map(async (name) => keys.set(name, await this.#certify(name))));
    for (const name of names) {
      const plan = this.#plan(name);
      const config = this.#config(name, plan, keys);
      this.#nodes.set(name, new WorldNode(this.#stage.host(name), name, plan, keys.get(name) ?? '', config));
    }
  }

  /** A node's way into its network; returns its key. */
  async #certify(name: NodeName): Promise<string> {
    const host = this.#stage.host(name);
    const { network, rights, groups, grants } = this.#plan(name);
    const { stdout } = await host.thicket(['node', 'init']);
    const key = /\b[a-z2-7]{52}\b/.exec(stdout)?.[0];
    if (key === undefined) throw new LabError(`thicket node init told no key:\n${stdout}`);
    const request = await host.thicket(['node', 'request']);
    const certificate = await this.owner(network).sign(request.stdout, { name, rights, groups, grants });
    await host.thicket(['join', '--certificate', certificate]);
    return key;
  }

  #config(name: NodeName, plan: NodePlan, keys: ReadonlyMap<NodeName, string>): NodeConfig {
    const { pool4, rekey, configure, ipv6, parentUrl } = this.#options;
    const host = this.#stage.host(name);
    const onLoopback = host.netns === '';
    const parent = plan.parent === undefined ? undefined : this.#stage.host(plan.parent);
    const everywhere = ipv6 ? 'udp://[::]:7117' : 'udp://0.0.0.0:7117';
    const config: NodeConfig = {
      ...(plan.listens ? { listen: [onLoopback ? host.url() : everywhere], relay: { for: 'any' } } : {}),
      ...(parent === undefined
        ? {}
        : { parents: [`${parentUrl?.(name, parent) ?? parent.url()}#${keys.get(plan.parent as NodeName) ?? ''}`] }),
      ...(pool4 === undefined || plan.listens ? {} : { interface: { ipv4: pool4 } }),
      // There it must not even try.
      ...(onLoopback ? { interface: { mode: 'userspace' as const } } : {}),
      networks: Object.fromEntries([...this.#owners].map(([nickname, owner]) => [nickname, owner.network])),
      // The stranger is willing: what keeps it out is the other side alone.
      ...(plan.network === 'strange' ? { trust: [{ network: this.owner('home').id }] } : {}),
      ...(rekey === undefined ? {} : { session: { rekey } }),
      ...(plan.endpoints.length === 0 ? {} : { endpoints: [...plan.endpoints] }),
      ...(plan.userspace === true && !plan.listens
        ? { forwards: this.#forwards(host.loopback), proxies: [{ listen: `${host.loopback}:${SOCKS_PORT}` }] }
        : {}),
    };
    return configure === undefined ? config : configure(name, config);
  }

  /** For a node without an interface: a port on loopback for each TCP service of the home network. */
  #forwards(loopback: string): NonNullable<NodeConfig['forwards']> {
    const endpoints = this.#names().flatMap((name) => this.#plan(name).endpoints);
    const services = endpoints.flatMap(({ name, services: its }) => (its ?? []).map(({ port }) => ({ name, port })));
    return services
      .filter(({ port }) => port.startsWith('tcp/'))
      .map(({ name, port }, index) => ({ listen: `${loopback}:${FORWARDS + index}`, to: `${name}.home.thicket:${port.slice(4)}` }));
  }

  #plan(name: NodeName): NodePlan {
    const plan = NODES[name];
    const parent = plan.parent !== undefined && !this.#names().includes(plan.parent) ? 'root' : plan.parent;
    const own = { ...plan, parent };
    return this.#options.plan === undefined ? own : this.#options.plan(name, own);
  }

  #names(): readonly NodeName[] {
    const { nodes } = this.#options;
    return nodes === undefined ? NODE_NAMES : NODE_NAMES.filter((name) => nodes.includes(name));
  }

  #isBelow(node: WorldNode, relay: NodeName): boolean {
    for (let parent = node.plan.parent; parent !== undefined; parent = this.node(parent).plan.parent) {
      if (parent === relay) return true;
    }
    return false;
  }
}
