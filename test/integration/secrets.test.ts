/**
 * Secrets stay where they belong: private keys of networks, nodes and endpoints, and what follows from naming secrets, are in no log, no argument,
 * no environment, no answer of the control API and no output of a command, over a run in which everything is done once.
 */
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { join } from 'node:path';
import { stringify } from 'yaml';
import { base32, KeyPair, loadState, nameKeyPair, parseNetworkRef } from '../../ts/trust/index.js';
import { secretForms } from '../cli/index.js';
import { type Result, run, thicketProgram, waitFor } from '../lab/index.js';
import { type NetworkName, switchLight, World, type WorldNode, watch } from '../world/index.js';

interface Secret {
  readonly what: string;
  readonly bytes: Uint8Array;
  /** Files that hold it, as `host/file`; no other does. */
  readonly files: readonly string[];
}

/** Something to search. */
class Text {
  readonly #raw: Buffer;
  /** Without what may stand between the digits of a dump. */
  readonly #letters: string;
  readonly #numbers: string;

  constructor(raw: Buffer) {
    this.#raw = raw;
    const string = raw.toString('latin1');
    this.#letters = string
      .replace(/0x/gi, '')
      .replace(/[^0-9a-z]+/gi, '')
      .toLowerCase();
    this.#numbers = `,${string.replace(/\D+/g, ',')},`;
  }

  says(text: string): boolean {
    return this.#raw.includes(text);
  }

  /** Whether the secret is in it as it is, in any usual encoding, in pieces with anything between them, or as a list of numbers. */
  holds(secret: Uint8Array): boolean {
    if (secretForms(secret).some((form) => this.#raw.includes(form))) return true;
    if (this.#letters.includes(Buffer.from(secret).toString('hex')) || this.#letters.includes(base32.encode(secret))) return true;
    const bytes = [...secret];
    const lists = [bytes.join(','), bytes.map((byte, index) => `${index},${byte}`).join(',')];
    return lists.some((list) => this.#numbers.includes(`,${list},`));
  }
}

/** Everything that was said, with who said it. */
class Told {
  readonly #said = new Map<string, Buffer[]>();
  #texts: Map<string, Text> | undefined;

  add(by: string, what: string | Buffer): void {
    const said = this.#said.get(by) ?? [];
    said.push(Buffer.from(what));
    this.#said.set(by, said);
  }

  /** Whose words fit. */
  who(fits: (text: Text) => boolean): string[] {
    this.#texts ??= new Map([...this.#said].map(([by, said]) => [by, new Text(Buffer.concat(said))]));
    return [...this.#texts].flatMap(([by, text]) => (fits(text) ? [by] : []));
  }
}

const NAMES = ['camera', 'camera.gw', 'light1', 'light1.gw', 'gw', 'viewer', 'fresh.gw'];
const COMMANDS = ['status', 'tree', 'routes', 'sessions', 'services'];

let world: World;
let gw: WorldNode;
let viewer: WorldNode;
const told = new Told();
/** Seeds and what is derived from them. */
const secrets: Secret[] = [];
const naming = new Map<NetworkName, Uint8Array>();
let files = new Map<string, Text>();
/** Address of a light. */
let light: string;

/** Runs a command of `node`'s user and keeps what it prints. */
async function thicket(node: WorldNode, args: readonly string[], stdin?: string): Promise<Result> {
  const result = await node.host.thicket(args, { check: false, ...(stdin === undefined ? {} : { stdin }) });
  told.add(`thicket ${args[0] ?? ''} at ${node.name}`, `${result.stdout}\n${result.stderr}\n`);
  return result;
}

async function done(node: WorldNode, ...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await thicket(node, args);
  expect({ args, code, stderr }).toEqual({ args, code: 0, stderr: '' });
  return stdout;
}

async function refused(node: WorldNode, ...args: string[]): Promise<void> {
  const { code, stderr } = await thicket(node, args);
  expect({ args, code: code === 1 || code === 2, stderr }).toEqual({
    args,
    code: true,
    stderr: expect.stringMatching(/^thicket: [^\n]+$/),
  });
}

/** One request to the control API, as anybody with access to the socket may send it. */
function ask(node: WorldNode, method: string, path: string, body?: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const headers = body === undefined ? {} : { 'content-type': 'application/json' };
    const sent = request({ socketPath: join(node.host.state, 'control.sock'), method, path, headers }, (answer) => {
      const chunks: Buffer[] = [];
      answer.on('data', (chunk: Buffer) => chunks.push(chunk));
      answer.on('end', () => {
        told.add(`control API of ${node.name}`, Buffer.concat([Buffer.from(JSON.stringify(answer.headers)), ...chunks]));
        resolve();
      });
    });
    sent.on('error', reject);
    sent.end(body);
  });
}

/** Arguments and environment of every program in the lab that runs Thicket; returns how many there are. */
async function lookAtProcesses(): Promise<number> {
  let found = 0;
  const pids = await Promise.all(
    world.nodes().map(async ({ host }) => (await run(['ip', 'netns', 'pids', host.netns])).stdout.split('\n')),
  );
  for (const pid of pids.flat().filter((text) => text !== '')) {
    try {
      const line = readFileSync(`/proc/${pid}/cmdline`);
      if (!line.includes(thicketProgram)) continue;
      found += 1;
      told.add('arguments', line);
      told.add('environment', readFileSync(`/proc/${pid}/environ`));
    } catch {
      // It has ended.
    }
  }
  return found;
}

function filesUnder(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter((file) => statSync(join(folder, file)).isFile());
}

/** All files of the nodes' machines, as `host/file`. */
function allFiles(): Map<string, Text> {
  return new Map(
    world
      .nodes()
      .flatMap(({ name, host }) =>
        filesUnder(host.dir).map((file) => [`${name}/${file}`, new Text(readFileSync(join(host.dir, file)))] as const),
      ),
  );
}

const filesWith = (secret: Uint8Array): string[] => [...files].flatMap(([file, text]) => (text.holds(secret) ? [file] : [])).sort();

function addPair(what: string, seed: Uint8Array, files: readonly string[]): void {
  const pair = KeyPair.fromSeed(seed);
  secrets.push({ what: `the private key of ${what}`, bytes: seed, files });
  secrets.push({ what: `the agreement key of ${what}`, bytes: pair.agreementSecret(), files: [] });
}

/** Read at the end, when all keys are made. */
function collectSecrets(): void {
  for (const network of ['home', 'strange'] as const) {
    const owner = world.owner(network);
    const { seed } = loadState(join(owner.folder, 'network.json')) as { seed: string };
    addPair(`the network ${network}`, Buffer.from(seed, 'base64'), []);
    const { namingSecret } = parseNetworkRef(owner.network);
    expect(namingSecret).toHaveLength(16);
    naming.set(network, namingSecret ?? new Uint8Array());
    for (const name of NAMES) addPair(`the name ${name}.${network}`, nameKeyPair(namingSecret ?? new Uint8Array(), name).exportSeed(), []);
  }
  for (const { name, host } of world.nodes()) {
    const { seed } = loadState(join(host.state, 'node.key')) as { seed: string };
    addPair(`the node ${name}`, Buffer.from(seed, 'base64'), [`${name}/state/node.key`]);
    const file = join(host.state, 'endpoints.json');
    const endpoints = existsSync(file) ? (loadState(file) as Record<string, { seed: string }>) : {};
    for (const [endpoint, one] of Object.entries(endpoints)) {
      addPair(`the endpoint ${endpoint} of ${name}`, Buffer.from(one.seed, 'base64'), [`${name}/state/endpoints.json`]);
    }
    const keyFile = join(host.state, 'addresses.key');
    if (!existsSync(keyFile)) continue;
    const { key } = loadState(keyFile) as { key: string };
    secrets.push({ what: `the key of ${name}'s addresses`, bytes: Buffer.from(key, 'base64'), files: [`${name}/state/addresses.key`] });
  }
}

beforeAll(async () => {
  world = await World.create({
    nodes: ['root', 'gw', 'viewer', 'stranger'],
    rekey: '1s',
    configure: (_, config) => ({ ...config, log: { level: 'debug' } }),
  });
  gw = world.node('gw');
  viewer = world.node('viewer');
}, 120_000);

afterAll(async () => {
  await world?.destroy();
}, 30_000);

test('everything is done once', async () => {
  const stranger = world.node('stranger');
  const { network } = world.owner();
  const foreign = world.owner('strange').network;

  // Joining.
  await refused(gw, 'node', 'init');
  await refused(gw, 'join', '--certificate', gw.configFile);
  const { rights, groups, grants } = gw.plan;
  const signed = await world.owner().sign(await done(gw, 'node', 'request'), { name: 'gw', rights, groups, grants });
  await done(gw, 'join', '--certificate', signed);
  await done(gw, 'reload');
  await done(viewer, 'config', 'example');
  await done(viewer, '--version');

  // Looking; before anybody has talked, too.
  const look = (): Promise<unknown> =>
    Promise.all(world.nodes().flatMap((node) => [...COMMANDS, 'trust', 'nothing', ''].map((path) => ask(node, 'GET', `/v1/${path}`))));
  await look();
  for (const command of ['ping', 'trace', 'resolve']) {
    await done(viewer, command, 'camera.home.thicket');
    await done(viewer, command, 'camera.gw.home', '--json');
    await done(viewer, command, `${gw.key}.thicket`);
  }
  await refused(viewer, 'ping', 'nobody.home.thicket');
  await refused(viewer, 'resolve', `camera.${network}`);
  await refused(stranger, 'ping', 'camera.home.thicket', '-c', '1');
  told.add('DNS', (await viewer.host.exec(['dig', '@198.18.0.1', 'camera.home.thicket', 'ANY'])).stdout);

  // Sharing, and what is refused of it; a network may be named with its naming secret everywhere.
  await done(gw, 'expose', 'fresh', 'tcp/80=192.168.1.31:80', '--allow', `group:family@${network}`);
  await done(gw, 'allow', `group:family@${network}`, 'fresh:tcp/80');
  await done(gw, 'allow', `network:${foreign}`, 'camera');
  await done(gw, 'trust', 'add', foreign);
  await waitFor(() => switchLight(viewer.host, 'http://fresh.gw.home.thicket/light', true));
  await done(stranger, 'ping', 'camera.gw.home.thicket', '-c', '1');
  await look();
  for (const node of [gw, viewer]) {
    for (const command of COMMANDS) await Promise.all([done(node, command), done(node, command, '--json')]);
    await Promise.all([done(node, 'trust', 'list'), done(node, 'check', '--config', node.configFile)]);
  }
  await refused(gw, 'trust', 'add', base32.encode(parseNetworkRef(foreign).namingSecret ?? new Uint8Array()));
  await refused(gw, 'allow', `node:${network}`, 'fresh');
  await refused(gw, 'allow', network, 'fresh');
  await refused(gw, 'expose', network, '192.168.1.31:80');
  await refused(gw, 'trust', network);
  await done(gw, 'deny', `group:family@${network}`, 'fresh:tcp/80');
  await done(gw, 'trust', 'remove', foreign);
  await done(gw, 'unexpose', 'fresh');
  await ask(gw, 'POST', '/v1/trust', JSON.stringify({ key: `${network}${network}`, trusted: true }));
  await ask(gw, 'POST', '/v1/trust', '{"key":');
  await ask(gw, 'POST', '/v1/reload', '{}');

  // Using: a stream, a light, somebody who may not, a forward.
  const url = 'rtsp://camera.home.thicket:554/live';
  const forward = await viewer.host.spawnThicket(['forward', '127.0.0.1:8080', 'light1.home.thicket:80']);
  await Promise.all([
    watch(viewer.host, { url, transport: 'tcp', seconds: 2 }).then(() => watch(viewer.host, { url, transport: 'udp', seconds: 2 })),
    waitFor(() => switchLight(viewer.host, 'http://127.0.0.1:8080/light', true)),
    viewer.host.exec(['curl', '-s', '-m', '2', 'http://light1.home.thicket:81/'], { check: false }),
    stranger.host.exec(['curl', '-s', '-m', '2', 'http://light1.home.thicket/light'], { check: false }),
  ]);
  expect(await lookAtProcesses()).toBe(world.nodes().length + 1);
  await forward.kill('SIGTERM');
  told.add('thicket forward', [...forward.stdout, ...forward.stderr].join('\n'));

  // The host's resolver.
  light = await viewer.lookup('light1.home.thicket', 4);
  viewer.host.etc('resolv.conf', `nameserver ${world.siteDns}\n`);
  await done(viewer, 'dns', 'install', '--how', 'resolv.conf');
  await done(viewer, 'dns', 'remove');
}, 120_000);

test('and everything goes wrong once', async () => {
  const { network } = world.owner();
  const [id = '', secret = ''] = network.split('.');

  // A slip of the pen beside a naming secret.
  const base = (node: WorldNode): string => {
    const { networks: _, ...rest } = node.config;
    return stringify(rest);
  };
  const slips = [
    `networks: { home: ${network}a }`,
    `networks: { home: ${network.slice(0, -1)} }`,
    `networks: { home: ${secret} }`,
    `networks: { home: ${secret}.${id} }`,
    `networks: { ${network}: home }`,
    `networks: [ ${network} ]`,
    `networks: ${network}`,
    `networks: { home: *${network} }`,
    `networks: { home: ${network}, home: ${network} }`,
    `networks: { home: { ${network}: } }`,
    `networks: { home: "${network} }`,
    `${network}: { home: x }`,
    `trust: [ { network: ${network}0 } ]`,
    `trust: [ { node: ${network} } ]`,
    `trust: [ ${network} ]`,
    `forwards: [ { listen: "127.0.0.1:1", to: "camera.${network}:x" } ]`,
    `session: ${network}`,
  ];
  for (const slip of slips) {
    writeFileSync(viewer.configFile, `${base(viewer)}${slip}\n`);
    const logged = viewer.process.stderr.length;
    viewer.process.signal('SIGHUP');
    const said = (): string | undefined => viewer.process.stderr.slice(logged).find((line) => line.includes('not reloaded'));
    expect({ slip, said: await waitFor(said, { what: `an answer to ${slip}` }) }).toEqual({
      slip,
      said: expect.stringMatching(/thicket\.yaml:\d+: /),
    });
  }
  await refused(viewer, 'check', '--config', viewer.configFile);
  await refused(viewer, 'reload');
  viewer.setConfig(viewer.config);
  await done(viewer, 'reload');
  viewer.process.signal('SIGHUP');

  // Junk at a parent's port, and crashes and ends.
  const junk = ['import os, socket', 's = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)'];
  junk.push(`for n in list(range(0, 1500, 37)) + [1232, 1148, 400]: s.sendto(os.urandom(n), ('${world.lab.host('root').address}', 7117))`);
  await world.lab.host('gw2').exec(['/usr/bin/python3', '-c', junk.join('\n')]);
  await world.node('root').killHard();
  await gw.killHard();
  await refused(gw, 'status');
  writeFileSync(gw.configFile, `${base(gw)}networks: { home: ${secret} }\n`);
  await refused(gw, 'up', '--config', gw.configFile);
  gw.setConfig(gw.config);
  await Promise.all([world.node('root').start(), gw.start({ env: { THICKET_DEBUG: '1' } })]);
  await world.settled();
  await waitFor(async () => !(await switchLight(viewer.host, `http://${light}/light`, false)), { timeoutMs: 20_000, what: 'the light' });
  await lookAtProcesses();
  expect((await viewer.status()).sessions.some(({ rekeys }) => rekeys > 0)).toBe(true);
  for (const node of [viewer, gw, world.node('stranger')]) await node.stop();
  for (const node of world.nodes()) told.add(`the log of ${node.name}`, node.log);
  collectSecrets();
  files = allFiles();
}, 120_000);

test('a search like this finds what it looks for', () => {
  const seed = KeyPair.generate().exportSeed();
  const hex = Buffer.from(seed).toString('hex');
  const forms: (string | Buffer)[] = [
    Buffer.from(seed),
    hex,
    hex.toUpperCase().replace(/..(?=.)/g, '$&:'),
    Buffer.from(seed).toString('base64'),
    Buffer.from(seed).toString('base64url'),
    Buffer.concat([Buffer.from('x'), seed]).toString('base64'),
    base32.encode(seed),
    base32.encode(seed).toUpperCase().replace(/.{4}/g, '$& '),
    JSON.stringify(seed),
    JSON.stringify(Buffer.from(seed)),
    `[ ${[...seed].join(',\n  ')} ]`,
  ];
  for (const form of forms) {
    expect(new Text(Buffer.concat([Buffer.from('a9 '), Buffer.from(form), Buffer.from(' 0b')])).holds(seed)).toBe(true);
  }
  // All of it was heard: commands, the API and logs speak of public keys.
  for (const { name, key } of world.nodes()) expect(told.who((text) => text.says(key))).toContain(`control API of ${name}`);
  const heard = told.who((text) => text.says(world.node('root').key));
  expect(heard).toEqual(expect.arrayContaining(['thicket status at gw', 'thicket trace at viewer', 'the log of gw', 'the log of viewer']));
  expect(told.who((text) => text.says(thicketProgram))).toContain('arguments');
  expect(told.who((text) => text.says('THICKET_STATE'))).toContain('environment');
  expect(secrets.length).toBeGreaterThan(50);
});

test('nobody said a private key, of a network, a node, an endpoint or a name', () => {
  expect(secrets.flatMap(({ what, bytes }) => told.who((text) => text.holds(bytes)).map((by) => `${by}: ${what}`))).toEqual([]);
});

test('the private keys of networks are on no node, and every other is in its own file alone', () => {
  for (const { what, bytes, files: own } of secrets) expect({ what, files: filesWith(bytes) }).toEqual({ what, files: own });
});

test('naming secrets are where the owner wrote them and where they were joined with, and nobody said one', () => {
  for (const [network, secret] of naming) {
    expect(told.who((text) => text.holds(secret))).toEqual([]);
    const joined = world.nodes().filter(({ plan }) => plan.network === network);
    const allowed = [
      ...world.nodes().map(({ name }) => `${name}/thicket.yaml`),
      ...joined.map(({ name }) => `${name}/state/certificate.json`),
    ];
    expect(filesWith(secret)).toEqual(allowed.sort());
  }
});

test('files with secrets are readable to their owner alone', () => {
  for (const { host } of world.nodes()) {
    expect(statSync(host.state).mode & 0o777).toBe(0o700);
    for (const file of filesUnder(host.state))
      expect({ file, mode: statSync(join(host.state, file)).mode & 0o077 }).toEqual({ file, mode: 0 });
  }
});
