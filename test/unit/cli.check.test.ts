/** `thicket check`: what it finds wrong, with the line; and that it changes nothing. */
import { chmodSync, existsSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { jest } from '@jest/globals';
import { encodeBundle, NetworkFolder, NodeStore, type SignOptions } from '../../ts/trust/index.js';
import { keyOf, Shell } from '../cli/index.js';

// Each test starts several programs, on a machine that may be busy.
jest.setTimeout(60_000);

let shell: Shell;

beforeEach(() => {
  shell = new Shell();
});

afterEach(() => shell.remove());

const PARENT = 'parents: ["udp://203.0.113.5:7117#2awhwlq7kn33nz6cbzlikqsxxwuf6lnlapattmee44jlbfskkj4q"]';
const CAMERA = 'endpoints: [ { name: camera, groups: [cams], services: [ { port: tcp/554, target: "192.168.1.20:554" } ] } ]';

/** Writes the lines as thicket.yaml and returns the refusal without the file's name. */
async function refusal(...lines: string[]): Promise<string> {
  writeFileSync(shell.path('thicket.yaml'), `${lines.join('\n')}\n`);
  const line = await shell.refused(['check', '--config', 'thicket.yaml']);
  expect(line.startsWith('thicket.yaml:')).toBe(true);
  return line.slice('thicket.yaml:'.length);
}

async function check(...lines: string[]): Promise<string> {
  writeFileSync(shell.path('thicket.yaml'), `${lines.join('\n')}\n`);
  return shell.done(['check', '--config', 'thicket.yaml']);
}

async function refusalOfState(...lines: string[]): Promise<string> {
  writeFileSync(shell.path('thicket.yaml'), `${lines.join('\n')}\n`);
  return shell.refused(['check', '--config', 'thicket.yaml']);
}

/** A node key in the state directory and, with `options`, its certificate. */
function enrol(options?: Partial<SignOptions>): NodeStore {
  const store = NodeStore.init(shell.state);
  if (options === undefined) return store;
  const network = NetworkFolder.create(shell.path('home'), 'home');
  const now = Math.floor(Date.now() / 1_000);
  store.join(encodeBundle(network.sign(store.pair.publicKey, { name: 'gw', expiresInSeconds: 86_400, now, ...options })), now);
  return store;
}

describe('a configuration alone', () => {
  test('ok is all that is said of a good one, and nothing is made', async () => {
    expect(await check(PARENT)).toBe('ok\n');
    expect(existsSync(shell.state)).toBe(false);
    expect(readdirSync(shell.folder)).toEqual(['thicket.yaml']);
  });

  test('the example is good', async () => {
    expect(await check(await shell.done(['config', 'example']))).toBe('ok\n');
  });

  test('every key of the example is good when it is set to what the example says', async () => {
    const example = await shell.done(['config', 'example']);
    const set = example.replace(/^# (?=[a-z_]+:| {2})/gm, '').replaceAll(/<network key>(\.<naming secret>)?/g, keyOf('w'));
    const commented = (await import('yaml')).parse(set.replaceAll('<key>', keyOf('w'))) as Record<string, unknown>;
    expect(Object.keys(commented).length).toBeGreaterThan(12);
    // A node that listens hosts no endpoints: the one thing of the example that doesn't go together.
    expect(await check(set.replaceAll('<key>', keyOf('w')).replace('allow_unrelayed: false', 'allow_unrelayed: true'))).toBe('ok\n');
  });

  test.each([
    ['an unknown key', [PARENT, 'listne: []'], /^2: unknown key "listne": see thicket config example$/],
    ['an unknown key within', [PARENT, 'dns:', '  domian: x'], /^3: unknown key "dns\.domian": /],
    ['an unknown key in a list', [PARENT, 'endpoints:', '  - name: a', '    srevices: []'], /^4: unknown key "endpoints\.0\.srevices": /],
    ['a bad CIDR', [PARENT, 'interface:', '  ipv4: 198.18.0.0/33'], /^3: interface\.ipv4: "198\.18\.0\.0\/33" is not a CIDR: use /],
    [
      'bits behind the prefix',
      [PARENT, 'interface: { ipv4: 198.18.0.1/15 }'],
      /^2: interface\.ipv4: .* has bits set behind its prefix: use 198\.18\.0\.0\/15$/,
    ],
    ['port 70000 to listen on', ['listen: ["udp://0.0.0.0:70000"]'], /^1: listen\.0: "70000" is not a port: use a number from 1 to 65535$/],
    [
      'port 70000 of a service',
      [PARENT, 'endpoints:', '- name: a', '  services:', '  - port: tcp/70000', '    target: 10.0.0.1:80'],
      /^5: .*"70000" is not a port/,
    ],
    [
      'port 70000 of a target',
      [PARENT, 'endpoints:', '- name: a', '  services:', '  - port: tcp/80', '    target: 10.0.0.1:70000'],
      /^6: .*"70000" is not a port/,
    ],
    ['port 70000 for DNS', [PARENT, 'dns: { port: 70000 }'], /^2: dns\.port: .*65535/],
    [
      'a missing target',
      [PARENT, 'endpoints:', '- name: a', '  services:', '  - port: tcp/80'],
      /^5: endpoints\.0\.services\.0\.target is missing: see thicket config example$/,
    ],
    [
      'a target that is a name',
      [PARENT, 'endpoints:', '- name: a', '  services: [ { port: tcp/80, target: "cam:80" } ]'],
      /^4: .*"cam" in "cam:80" is not an IP address: /,
    ],
    [
      'somebody who is nobody',
      [PARENT, 'endpoints:', '- name: a', '  services: [ { port: tcp/80, target: "10.0.0.1:80", allow: [me] } ]'],
      /^4: .*"me" names nobody: use /,
    ],
    ['a parent without a key', ['parents: ["udp://203.0.113.5:7117"]'], /^1: parents\.0: .*is not a parent: use /],
    ['a parent with half a key', ['parents: ["udp://203.0.113.5:7117#abc"]'], /^1: parents\.0: "abc" is not a key: /],
    ['neither parents nor listen', ['dns: {}'], /^1: neither listen nor parents: /],
    ['an empty file', [''], /^1: neither listen nor parents: /],
    ['text instead of YAML', ['hello'], /^1: .*: /],
    ['a tab', [PARENT, 'dns:', '\tport: 53'], /^3: /],
    ['a key that is there twice', [PARENT, 'dns: {}', 'dns: {}'], /^3: .*unique/],
    [
      'a trusted thing that is neither',
      [PARENT, 'trust: [ { netwrok: x } ]'],
      /^2: trust\.0: names nobody: use \{ network: KEY \} or \{ node: KEY \}$/,
    ],
    ['relaying for somebody who is nobody', [PARENT, 'relay: { for: everybody }'], /^2: relay\.for: names nobody: use any, none, or /],
    ['a rekey interval without a unit', [PARENT, 'session: { rekey: "120" }'], /^2: session\.rekey: "120" is not a duration: /],
    ['endpoints on a node that listens', ['listen: ["udp://0.0.0.0:7117"]', CAMERA], /^2: a node that listens hosts no endpoints, /],
  ])('%s is one line with its line number', async (_, lines, expected) => {
    expect(await refusal(...lines)).toMatch(expected);
  });

  test('a file that is not there is one line', async () => {
    expect(await shell.refused(['check', '--config', 'nowhere.yaml'])).toMatch(
      /^nowhere\.yaml can't be read \(.*ENOENT.*\): check its path/,
    );
    expect(await shell.refused(['check', '--config', '.'])).toMatch(/^\. can't be read /);
  });
});

describe('a configuration with the state of this node', () => {
  test('ok, and the state is as it was', async () => {
    enrol({ rights: ['gateway'], delegable: ['cams'] });
    const files = (): string[] => readdirSync(shell.state).map((name) => name + readFileSync(shell.path('state', name), 'utf8'));
    const before = files();
    expect(await check(PARENT, CAMERA)).toBe('ok\n');
    expect(files()).toEqual(before);
  });

  test('endpoints without a certificate, without the right, or in a group that is not delegable', async () => {
    enrol();
    expect(await refusalOfState(PARENT, CAMERA)).toBe(
      'endpoint camera needs a certificate of its gateway: enrol this node with thicket join',
    );
    expect(await check(PARENT)).toBe('ok\n');
    renameSync(shell.state, shell.path('first'));
    enrol({ delegable: ['cams'] });
    expect(await refusalOfState(PARENT, CAMERA)).toBe('endpoint camera needs a gateway: sign this node with --right gateway');
    renameSync(shell.state, shell.path('second'));
    renameSync(shell.path('home'), shell.path('old'));
    enrol({ rights: ['gateway'] });
    expect(await refusalOfState(PARENT, CAMERA)).toBe("endpoint camera can't be in group cams: sign this gateway with --delegate cams");
  });

  test('a key file that others can read', async () => {
    enrol();
    chmodSync(shell.path('state/node.key'), 0o604);
    expect(await refusalOfState(PARENT)).toMatch(/node\.key can be read by others: chmod 600 /);
  });

  test('a certificate for another key, an expired one, one that claims another network', async () => {
    enrol({});
    const certificate = shell.path('state/certificate.json');
    const good = readFileSync(certificate);
    renameSync(shell.state, shell.path('first'));
    const store = NodeStore.init(shell.state);
    writeFileSync(certificate, good, { mode: 0o600 });
    expect(await refusalOfState(PARENT)).toMatch(
      /^the certificate is for [a-z2-7]{52}, this node is [a-z2-7]{52}: sign this node's request$/,
    );

    const network = NetworkFolder.create(shell.path('other'), 'other');
    const then = Math.floor(Date.now() / 1_000) - 3_600;
    store.join(encodeBundle(network.sign(store.pair.publicKey, { name: 'gw', expiresInSeconds: 60, now: then })), then - 100_000_000);
    expect(await refusalOfState(PARENT)).toBe('the certificate has expired: sign a new one with thicket network sign');

    const bundle = network.sign(store.pair.publicKey, { name: 'gw', expiresInSeconds: 86_400, now: then });
    const { saveState } = await import('../../ts/trust/index.js');
    saveState(certificate, { bundle: encodeBundle({ ...bundle, network: NetworkFolder.create(shell.path('third'), 'third').ref }) });
    expect(await refusalOfState(PARENT)).toMatch(/^the certificate is signed by another network than it claims: /);
  });

  test('a damaged certificate file or file of local changes', async () => {
    enrol({});
    for (const name of ['certificate.json', 'local.json']) {
      writeFileSync(shell.path('state', name), '{}', { mode: 0o600 });
      expect(await refusalOfState(PARENT)).toContain(`${name} is damaged: `);
      renameSync(shell.path('state', name), shell.path(name));
    }
  });

  test('what was exposed by the CLI is checked too', async () => {
    enrol({});
    const { LocalChanges, parseConfig } = await import('../../ts/config/index.js');
    const config = parseConfig(PARENT, 'x', shell.state);
    const services = [{ protocol: 'tcp', port: 80, rtsp: false, force: false, target: { host: '10.0.0.1', port: 80 }, allow: [] }] as const;
    LocalChanges.open(shell.state).preview(config, { do: 'expose', name: 'light', services, allow: [] }).commit();
    expect(await refusalOfState(PARENT)).toBe('endpoint light needs a gateway: sign this node with --right gateway');
  });
});

test('a state directory that is a file does not keep a configuration from being checked', async () => {
  writeFileSync(shell.state, '');
  expect(await check(PARENT)).toBe('ok\n');
});
