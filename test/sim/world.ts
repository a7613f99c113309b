/** Trees of simulated nodes: certified by one network, on one wire, under one clock. */
import {
  encodeCertificate,
  encodeEndpointCertificate,
  KeyPair,
  nameKeyPair,
  type PublicKey,
  type Right,
  sodium,
} from '../../ts/trust/index.js';
import { VirtualClock } from './clock.js';
import { type NodeIdentity, SimNode } from './node.js';
import { Random } from './random.js';
import { Wire } from './wire.js';

export interface PlantOptions {
  readonly parents?: readonly string[];
  readonly rights?: readonly Right[];
  readonly groups?: readonly string[];
  readonly leaf?: true;
  readonly endpoints?: readonly string[];
  readonly rekeyMs?: number;
  readonly cap?: number;
  readonly network?: KeyPair;
}

const YEAR = 365 * 86_400;
const PORT = 7_117;

export class World {
  readonly clock = new VirtualClock();
  readonly random: Random;
  readonly wire: Wire;
  readonly network: KeyPair;
  readonly namingSecret: Uint8Array;
  readonly #nodes = new Map<string, SimNode>();
  readonly #identities = new Map<string, NodeIdentity>();
  #serial = 0;

  constructor(seed: number) {
    this.random = new Random(seed);
    this.wire = new Wire(this.clock, new Random(seed ^ 0x5eed));
    this.network = KeyPair.fromSeed(this.random.bytes(32));
    this.namingSecret = this.random.bytes(16);
  }

  /** Certifies and starts a node. */
  plant(name: string, options: PlantOptions = {}): SimNode {
    const index = this.#identities.size + 1;
    const pair = KeyPair.fromSeed(this.random.bytes(32));
    const network = options.network ?? this.network;
    const now = this.clock.wallSeconds();
    const rights = options.rights ?? [options.leaf ? ('gateway' as const) : ('relay' as const)];
    const certificate = this.#certificate(name, pair.publicKey, options.groups ?? [], rights, network);
    const endpoints = (options.endpoints ?? []).map((endpoint) => {
      const own = KeyPair.fromSeed(this.random.bytes(32));
      const statement = {
        gateway: pair.publicKey,
        key: own.publicKey,
        name: endpoint,
        groups: [],
        serial: 1,
        issuedAt: now,
        notAfter: now + YEAR,
      };
      const chain = [certificate, encodeEndpointCertificate(statement, pair)];
      return { pair: own, names: [this.nameKey(`${endpoint}.${name}`)], chain, grant: undefined };
    });
    const id: NodeIdentity = {
      name,
      pair,
      chain: [certificate],
      network: network.publicKey,
      address: { host: `10.0.${index >> 8}.${index & 255}`, port: PORT },
      ...(options.leaf && { leaf: true as const }),
      parents: (options.parents ?? []).map((parent) => this.parent(parent)),
      endpoints,
      names: [this.nameKey(name)],
      epoch: 0n,
      rekeyMs: options.rekeyMs ?? 120_000,
      cap: options.cap ?? 1_000_000,
    };
    this.#identities.set(name, id);
    return this.start(name);
  }

  /** A newer certificate for a node, with these groups. */
  certify(name: string, groups: readonly string[]): Uint8Array {
    const { pair, leaf } = this.identity(name);
    return this.#certificate(name, pair.publicKey, groups, [leaf ? 'gateway' : 'relay'], this.network);
  }

  #certificate(name: string, key: PublicKey, groups: readonly string[], rights: readonly Right[], network: KeyPair): Uint8Array {
    this.#serial += 1;
    const issuedAt = this.clock.wallSeconds();
    const body = { network: network.publicKey, key, name, groups, rights, delegable: [], serial: this.#serial };
    return encodeCertificate({ ...body, issuedAt, notAfter: issuedAt + YEAR }, network);
  }

  nameKey(name: string): KeyPair {
    return nameKeyPair(this.namingSecret, name);
  }

  parent(name: string): NodeIdentity['parents'][number] {
    const { address, pair } = this.identity(name);
    return { ...address, key: pair.publicKey };
  }

  identity(name: string): NodeIdentity {
    const id = this.#identities.get(name);
    if (id === undefined) throw new RangeError(`there is no ${name}`);
    return id;
  }

  get(name: string): SimNode {
    const node = this.#nodes.get(name);
    if (node === undefined) throw new RangeError(`${name} isn't running`);
    return node;
  }

  key(name: string): PublicKey {
    return this.identity(name).pair.publicKey;
  }

  all(): SimNode[] {
    return [...this.#nodes.values()];
  }

  names(): string[] {
    return [...this.#identities.keys()];
  }

  start(name: string): SimNode {
    const id = this.identity(name);
    // The program gets another port at each start where it doesn't listen.
    if (id.leaf) (id.address as { port: number }).port = 20_000 + this.random.below(40_000);
    const node = new SimNode(id, this.clock, this.wire);
    this.#nodes.set(name, node);
    return node;
  }

  kill(name: string): void {
    this.get(name).kill();
    this.#nodes.delete(name);
  }

  stop(name: string): void {
    this.get(name).stop();
    this.#nodes.delete(name);
  }

  nameOf(key: PublicKey): string {
    for (const id of this.#identities.values()) {
      if (id.pair.publicKey === key) return id.name;
      const index = id.endpoints.findIndex((endpoint) => endpoint.pair.publicKey === key);
      if (index >= 0) return `${id.name}/${index}`;
    }
    return key;
  }

  /** The keys that should stand in a node's table: everything below it that runs and whose way up is whole. */
  below(name: string): Set<PublicKey> {
    const found = new Set<PublicKey>();
    const key = this.key(name);
    const visit = (parent: PublicKey): void => {
      for (const node of this.#nodes.values()) {
        if (!node.id.parents.some((p) => p.key === parent) || found.has(node.key)) continue;
        found.add(node.key);
        for (const endpoint of node.id.endpoints) found.add(endpoint.pair.publicKey);
        visit(node.key);
      }
    };
    visit(key);
    return found;
  }

  /** Why the tables aren't what they should be; undefined when every node lists exactly its subtree. */
  fault(): string | undefined {
    for (const node of this.#nodes.values()) {
      const wanted = this.below(node.id.name);
      const listed = new Set([...node.router.table.all()].map((entry) => entry.key));
      const missing = [...wanted].filter((key) => !listed.has(key));
      const extra = [...listed].filter((key) => !wanted.has(key));
      if (missing.length + extra.length > 0) {
        const names = (keys: PublicKey[]): string => keys.map((key) => this.nameOf(key)).join(', ');
        return `${node.id.name} lacks [${names(missing)}] and lists [${names(extra)}]`;
      }
    }
    return undefined;
  }

  async converge(most = 10_000): Promise<number> {
    try {
      return await this.clock.until('convergence', most, () => this.fault() === undefined);
    } catch {
      throw new Error(`not converged after ${most} ms: ${this.fault()}`);
    }
  }

  /** Keys from the first hop to the end, by trace. */
  async trace(from: string, peer: PublicKey): Promise<string[]> {
    const session = this.get(from).session(peer);
    if (session?.egress === undefined) throw new RangeError('no path');
    const hops: string[] = [];
    for (let hop = 0; hop < 32; hop += 1) {
      let found: PublicKey | undefined;
      const { egress } = session;
      this.get(from).router.setups.trace(egress, hop, (key) => {
        found = key;
      });
      await this.clock.until(`trace, hop ${hop}`, 2_000, () => found !== undefined);
      const name = this.nameOf(found as PublicKey);
      if (hops.at(-1) === name) return hops;
      hops.push(name);
      if (found === peer) return hops;
    }
    return hops;
  }
}

/** Libsodium's randomness can't be seeded; what depends on it (ephemeral keys, labels, indexes) changes no order of events. */
export const randomKey = (): KeyPair => KeyPair.fromSeed(sodium.randombytes_buf(32));
