/** What a node keeps on disk survives kills, and damage is noticed instead of believed. */
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { pino } from 'pino';
import { type Config, LocalChanges, readConfig } from '../../ts/config/index.js';
import { isThicketError } from '../../ts/errors.js';
import { Sysctls } from '../../ts/kernel/sysctls.js';
import { AddressPool, randomUla } from '../../ts/naming/index.js';
import { formatWho, NodeStore } from '../../ts/trust/index.js';
import { type Process, waitFor } from '../lab/index.js';
import { World, type WorldNode } from '../world/index.js';

/** Kills per gateway; both at once make the 50. */
const KILLS = 25;
/** Every other kill comes so long after the launch at most, the rest so long after a command was acknowledged, while the next ones run. */
const START_MS = 1_000;
const RUN_MS = 700;
const NOW = 1_800_000_000;

let world: World;
const copies: string[] = [];

beforeAll(async () => {
  world = await World.create({ nodes: ['root', 'gw', 'gw2', 'viewer'], devices: false, siteDns: false });
  const gw = world.node('gw');
  await gw.thicket(['expose', 'extra', 'tcp/99=192.168.1.99:99', '--allow', 'group:family']);
  await gw.thicket(['trust', 'add', world.node('viewer').key]);
  for (const name of ['camera', 'broker', 'files']) await world.node('viewer').thicket(['resolve', `${name}.home.thicket`]);
  await Promise.all(['gw', 'viewer'].map((name) => world.node(name as 'gw').stop()));
}, 120_000);

afterAll(async () => {
  for (const folder of copies) rmSync(folder, { recursive: true, force: true });
  await world?.destroy();
}, 30_000);

interface Read {
  readonly key: string;
  readonly addresses: readonly string[];
  readonly all: unknown;
}

/** All that a start reads, in that order. */
async function open(folder: string, configFile: string): Promise<Read> {
  const store = NodeStore.open(folder);
  const { endpoints, trust } = LocalChanges.open(folder).join(readConfig(configFile, folder));
  const membership = store.membership(NOW);
  const ipv6 = randomUla(folder);
  const addresses = await pooled(folder, ipv6);
  const forwarding = new Sysctls({ file: join(folder, 'host.json'), place: { boot: '', namespace: '' } }).changed();
  const epoch = store.nextEpoch();
  const keys = endpoints.map(({ name, groups }) => membership && store.endpoint(name, groups, membership, NOW).pair.publicKey);
  const generation = membership && store.generationOf(membership.network.key, 'camera');
  const { publicKey: key } = store.pair;
  return { key, addresses, all: { name: membership?.name, endpoints, trust, ipv6, forwarding, epoch, keys, generation } };
}

async function pooled(folder: string, ipv6: string): Promise<string[]> {
  const log = pino({ level: 'silent' });
  const pool = AddressPool.open({ folder, ipv4: '198.18.0.0/15', ipv6, ttlMs: 60_000, now: () => 0, inUse: async () => () => false, log });
  await pool.close();
  return pool.all().map(({ subject, addresses: { v4, v6 } }) => `${JSON.stringify(subject)} ${v4} ${v6}`);
}

/** A copy of the node's state in memory: thousands of files are written and synced. */
function copyState(node: WorldNode): { readonly folder: string; readonly whole: ReadonlyMap<string, Buffer> } {
  const folder = mkdtempSync('/dev/shm/thicket-state-');
  copies.push(folder);
  cpSync(node.host.state, folder, { recursive: true, filter: (file) => !file.endsWith('.sock') });
  return { folder, whole: new Map(files(folder).map((file) => [file, readFileSync(join(folder, file))])) };
}

describe('a state file cut short at any length', () => {
  test.each(['gw', 'viewer'] as const)(
    'of %s is refused in one line that names it',
    async (name) => {
      const node = world.node(name);
      const { folder, whole } = copyState(node);
      const restore = (...names: readonly string[]): void => {
        for (const file of names) writeFileSync(join(folder, file), whole.get(file) ?? '');
      };
      const names = ['node.key', 'certificate.json', 'epoch.json', 'ula.json', 'addresses.key', 'addresses.log'];
      expect([...whole.keys()]).toEqual(
        expect.arrayContaining([...names, ...(name === 'gw' ? ['endpoints.json', 'local.json'] : ['generations.json'])]),
      );
      const good = await open(folder, node.configFile);
      restore(...whole.keys());
      for (const [file, bytes] of whole) {
        for (let length = 0; length < bytes.length && file !== 'addresses.log'; length += 1) {
          truncateSync(join(folder, file), length);
          const message = await open(folder, node.configFile).then(
            () => 'it was believed',
            (error: unknown) => (isThicketError(error) ? error.message : String(error)),
          );
          if (!message.includes(join(folder, file)) || message.includes('\n')) throw new Error(`${file} cut to ${length}: ${message}`);
          restore(file, 'epoch.json');
        }
      }
      expect(await open(folder, node.configFile)).toEqual(good);
    },
    60_000,
  );

  test('costs no more than what was appended last, where it is the addresses', async () => {
    const node = world.node('viewer');
    const { folder, whole } = copyState(node);
    const { addresses, all } = await open(folder, node.configFile);
    const { ipv6 } = all as { readonly ipv6: string };
    expect(addresses.length).toBeGreaterThan(2);
    const bytes = whole.get('addresses.log') ?? Buffer.alloc(0);
    for (let length = 0; length <= bytes.length; length += 1) {
      writeFileSync(join(folder, 'addresses.log'), bytes.subarray(0, length));
      // What is left of it is true: the first so many.
      const left = await pooled(folder, ipv6);
      expect(left).toEqual(addresses.slice(0, left.length));
      const finished = bytes.subarray(0, length).toString().split('\n').length - 1;
      expect(left.length).toBeGreaterThanOrEqual(Math.max(0, finished - 1));
    }
  }, 30_000);

  test('makes a real start end with that one line and exit 1', async () => {
    const node = world.node('viewer');
    for (const file of files(node.host.state).filter((name) => name !== 'addresses.log')) {
      const path = join(node.host.state, file);
      const whole = readFileSync(path);
      truncateSync(path, Math.floor(whole.length / 2));
      const process = await node.launch();
      expect(await process.exit).toEqual({ code: 1, signal: null });
      expect({ file, lines: [...process.stdout, ...process.stderr] }).toEqual({ file, lines: [expect.stringContaining(path)] });
      writeFileSync(path, whole);
    }
    truncateSync(join(node.host.state, 'addresses.log'), 150);
    await node.start();
    expect((await node.status()).node.key).toBe(node.key);
  }, 60_000);
});

describe('50 kills at random moments', () => {
  test.each([[['gw', 'gw2']]] as const)(
    'of %s, as they start, run and are changed, take nothing back that a command acknowledged',
    async (names) => {
      const outcomes = await Promise.all(names.map((name, index) => killOften(world.node(name), index + 1)));
      for (const { acknowledged, whileStarting, whileUp } of outcomes) {
        // The moments were such as the test is about.
        expect(whileStarting).toBeGreaterThan(2);
        expect(whileUp).toBeGreaterThan(2);
        expect(acknowledged).toBeGreaterThanOrEqual(KILLS / 2 - 1);
      }
      await world.settled();
    },
    240_000,
  );
});

interface Outcome {
  readonly acknowledged: number;
  readonly whileStarting: number;
  readonly whileUp: number;
}

async function killOften(node: WorldNode, seed: number): Promise<Outcome> {
  const random = generator(seed);
  const changes = new Changes(node);
  let [whileStarting, whileUp] = [0, 0];
  if (node.running) await node.killHard();
  for (let kill = 0; kill < KILLS; kill += 1) {
    const process = await node.launch();
    const work = changes.run(() => node.running);
    const done = changes.acknowledged;
    if (kill % 2 === 1) await waitFor(() => changes.acknowledged > done, { timeoutMs: 20_000, intervalMs: 5, what: 'a change' });
    await delay(random() * (kill % 2 === 1 ? RUN_MS : START_MS));
    if (!process.running) throw new Error(`${node.name} refused to start after ${kill} kills:\n${output(process).join('\n')}`);
    await node.killHard();
    await work;
    const lines = output(process);
    if (lines.some((line) => line.startsWith('up as'))) whileUp += 1;
    else whileStarting += 1;
    // Besides its log it says nothing but that it is up.
    expect(lines.filter((line) => !line.startsWith('{') && line !== `up as ${node.key}`)).toEqual([]);
    expect(NodeStore.open(node.host.state).pair.publicKey).toBe(node.key);
    changes.expectKept(LocalChanges.open(node.host.state).join(readConfig(node.configFile, node.host.state)));
  }
  await node.start();
  const services = await node.json<readonly { readonly name: string }[]>(['services']);
  for (const name of changes.exposed()) expect(services.map((service) => service.name)).toContain(name);
  return { acknowledged: changes.acknowledged, whileStarting, whileUp };
}

/** Runs commands one after another, and knows what each that succeeded must have left. */
class Changes {
  acknowledged = 0;
  readonly #node: WorldNode;
  /** What must be there, and what must not; what a command that failed may have done stands in neither. */
  readonly #facts = new Map<string, boolean>();
  readonly #keys: readonly string[];
  #number = 0;

  constructor(node: WorldNode) {
    this.#node = node;
    this.#keys = [world.node('root').key, world.node('viewer').key];
  }

  exposed(): string[] {
    return [...this.#facts].filter(([fact, holds]) => holds && fact.startsWith('expose ')).map(([fact]) => fact.slice('expose '.length));
  }

  async run(going: () => boolean): Promise<void> {
    await waitFor(() => !going() || existsSync(join(this.#node.host.state, 'control.sock')), { intervalMs: 20 });
    while (going()) {
      const { argv, fact, holds } = this.#next();
      this.#facts.delete(fact);
      const { code, stderr } = await this.#node.thicket(argv, { check: false });
      // It isn't there when the command before it was cut off.
      if (code === 0) {
        this.acknowledged += 1;
        this.#facts.set(fact, holds);
      }
      if (code !== 0) expect(stderr.split('\n')).toHaveLength(1);
    }
  }

  expectKept(config: Config): void {
    for (const [fact, holds] of this.#facts) expect({ fact, holds: holdsIn(config, fact) }).toEqual({ fact, holds });
  }

  #next(): { readonly argv: readonly string[]; readonly fact: string; readonly holds: boolean } {
    const n = this.#number;
    this.#number += 1;
    const round = Math.floor(n / 5);
    switch (n % 5) {
      case 0:
        return { argv: ['expose', `extra${round}`, `tcp/9=192.168.1.99:${1000 + round}`], fact: `expose extra${round}`, holds: true };
      case 1:
        return { argv: ['allow', `group:g${round}`, this.#standing()], fact: `allow group:g${round}`, holds: true };
      case 2:
        return { argv: ['trust', 'add', this.#key(round)], fact: `trust ${this.#key(round)}`, holds: true };
      case 3:
        return { argv: ['unexpose', `extra${round - 1}`], fact: `expose extra${round - 1}`, holds: false };
      default:
        return { argv: ['trust', 'remove', this.#key(round - 1)], fact: `trust ${this.#key(round - 1)}`, holds: false };
    }
  }

  /** An endpoint of thicket.yaml. */
  #standing(): string {
    return this.#node.plan.endpoints[0]?.name ?? '';
  }

  #key(round: number): string {
    return this.#keys[round % 2] ?? '';
  }
}

function holdsIn(config: Config, fact: string): boolean {
  const [what, value = ''] = fact.split(' ');
  switch (what) {
    case 'expose':
      return config.endpoints.some(({ name }) => name === value);
    case 'allow':
      return config.endpoints.some(({ services }) => services.some(({ allow }) => allow.map(formatWho).includes(value)));
    default:
      return config.trust.some((trusted) => Object.values(trusted).join() === value);
  }
}

const output = (process: Process): string[] => [...process.stdout, ...process.stderr].filter((line) => line !== '');

const files = (folder: string): string[] => readdirSync(folder).filter((name) => !name.endsWith('.sock') && !name.startsWith('.'));

/** mulberry32: the same moments in each run. */
function generator(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}
