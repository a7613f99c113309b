/** From nothing to an enrolled node, as an owner and a node's operator type it; and everything that must be refused on the way. */
import { chmodSync, existsSync, mkdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { jest } from '@jest/globals';
import { KeyPair, NetworkFolder, NodeStore } from '../../ts/trust/index.js';
import { Shell, secretForms } from '../cli/index.js';
import { thicketProgram as program } from '../lab/index.js';

// Each test starts several programs, on a machine that may be busy.
jest.setTimeout(60_000);

const shells: Shell[] = [];
afterAll(() => {
  for (const shell of shells) shell.remove();
});

function newShell(): Shell {
  const shell = new Shell();
  shells.push(shell);
  return shell;
}

const mode = (path: string): number => statSync(path).mode & 0o777;
const KEY = /^[a-z2-7]{52}$/;

/** A shell with network `home` and a node key; `sign` certifies it with further options. */
async function owner(): Promise<{ shell: Shell; key: string; sign: (...more: string[]) => Promise<string> }> {
  const shell = newShell();
  await shell.done(['network', 'create', 'home']);
  const key = (await shell.done(['node', 'init'])).trim();
  await shell.done(['node', 'request', '--out', 'request']);
  const sign = (...more: string[]): Promise<string> =>
    shell.done(['network', 'sign', '--network', 'home', '--request', 'request', '--name', 'gw', ...more]);
  return { shell, key, sign };
}

describe('enrolment', () => {
  test('network create, node init, request, sign and join make a member, by files and by pipes', async () => {
    const shell = newShell();
    const created = await shell.done(['network', 'create', 'home']);
    const [, id = '', secret = ''] = /\b([a-z2-7]{52})\.([a-z2-7]{26})\b/.exec(created) ?? [];
    expect(created).toContain(shell.path('home'));
    expect(created.split('\n')[0]).toBe(`network id          ${id}`);

    const key = (await shell.done(['node', 'init'])).trim();
    expect(key).toMatch(KEY);
    const request = await shell.done(['node', 'request']);
    const certificate = await shell.done(['network', 'sign', '--network', 'home', '--request', '-', '--name', 'gw'], { stdin: request });
    const joined = await shell.done(['join', '--certificate', '-'], { stdin: certificate });
    expect(joined).toMatch(new RegExp(`^joined ${id} as gw, until \\d{4}-\\d\\d-\\d\\d\n$`));

    const membership = NodeStore.open(shell.state).membership(Math.floor(Date.now() / 1_000));
    expect(membership?.name).toBe('gw');
    expect(membership?.network.key).toBe(id);
    expect(secret).toHaveLength(26);
    expect(membership?.network.namingSecret).toHaveLength(16);
  });

  test('--state names the node, whatever THICKET_STATE says', async () => {
    const shell = newShell();
    const key = (await shell.done(['node', 'init', '--state', shell.path('other')])).trim();
    expect(existsSync(shell.state)).toBe(false);
    expect(JSON.parse(await shell.done(['node', 'request', '--state', shell.path('other')])).key).toBe(key);
  });

  test('network create --dir makes the folder that it names', async () => {
    const shell = newShell();
    expect(await shell.done(['network', 'create', 'home', '--dir', 'safe/place'])).toContain(shell.path('safe/place'));
    expect(NetworkFolder.open(shell.path('safe/place')).name).toBe('home');
  });

  test('folders are 0700 and files 0600, whatever the umask', async () => {
    const { shell, sign } = await owner();
    await sign('--out', 'certificate');
    await shell.done(['join', '--certificate', 'certificate']);
    const paths = ['home', 'home/network.json', 'state', 'state/node.key', 'state/certificate.json', 'certificate'];
    expect(paths.map((path) => [path, mode(shell.path(path)).toString(8)])).toEqual(
      paths.map((path) => [path, ['home', 'state'].includes(path) ? '700' : '600']),
    );
    const open = await shell.run(['sh', '-c', `umask 0 && exec "$0" "$@"`, process.execPath, program, 'node', 'init', '--state', 'wide']);
    expect(open.code).toBe(0);
    expect([mode(shell.path('wide')), mode(shell.path('wide/node.key'))]).toEqual([0o700, 0o600]);
  });

  test('sign --out says what was certified, until when, and what comes next', async () => {
    const { key, sign } = await owner();
    expect(await sign('--out', 'c')).toMatch(
      new RegExp(`^certified ${key} as gw in home, serial 1, until \\d{4}-\\d\\d-\\d\\d: .*thicket join --certificate c\n$`),
    );
  });

  test('groups, delegable groups, rights, endpoints and the date go into what is signed', async () => {
    const { shell, key, sign } = await owner();
    const options = ['--group', 'a', '--group', 'b', '--delegate', 'cams', '--right', 'relay', '--endpoint', 'camera', '--expires', '10d'];
    const bundle = await sign(...options);
    const { decodeBundle, decodeCertificate, decodeGrant } = await import('../../ts/trust/index.js');
    const { certificate, grants } = decodeBundle(bundle);
    const decoded = decodeCertificate(certificate);
    expect(decoded).toMatchObject({ key, name: 'gw', groups: ['a', 'b'], delegable: ['cams'], rights: ['gateway', 'relay'], serial: 1 });
    expect(decoded.notAfter - decoded.issuedAt).toBe(10 * 86_400);
    expect(grants.map((grant) => decodeGrant(grant)).map(({ name, generation }) => [name, generation])).toEqual([['camera', 1]]);
    const generation = async (...more: string[]): Promise<number | undefined> => {
      const [grant] = decodeBundle(await sign('--endpoint', 'camera', ...more)).grants;
      return grant === undefined ? undefined : decodeGrant(grant).generation;
    };
    expect(await generation()).toBe(2);
    expect(await generation('--add')).toBe(2);
    expect(
      await shell.refused(['network', 'sign', '--network', 'home', '--request', 'request', '--name', 'gw', '--endpoint', 'a.b']),
    ).toMatch(/not one DNS label/);
  });

  test('an endpoint may be called constructor', async () => {
    const { sign } = await owner();
    const { decodeBundle, decodeGrant } = await import('../../ts/trust/index.js');
    const [grant = new Uint8Array()] = decodeBundle(await sign('--endpoint', 'constructor')).grants;
    expect(decodeGrant(grant)).toMatchObject({ name: 'constructor', generation: 1 });
  });

  test('--out writes through a link and never replaces it', async () => {
    const { shell, sign } = await owner();
    writeFileSync(shell.path('real'), '');
    symlinkSync('real', shell.path('link'));
    await sign('--out', 'link');
    expect(readFileSync(shell.path('real'), 'utf8')).toContain('thicketCertificate');
    expect(readFileSync(shell.path('link'), 'utf8')).toBe(readFileSync(shell.path('real'), 'utf8'));
  });

  test('an issued-at more than a day past the last one needs --date-ok', async () => {
    const { shell, sign } = await owner();
    const now = Math.floor(Date.now() / 1_000);
    NetworkFolder.open(shell.path('home')).sign(KeyPair.generate().publicKey, { name: 'x', expiresInSeconds: 60, now: now - 3 * 86_400 });
    const args = ['network', 'sign', '--network', 'home', '--request', 'request', '--name', 'gw'];
    expect(await shell.refused(args)).toBe('today is 3 days past the last signature: if this clock is right, say --date-ok');
    await sign('--date-ok');
  });
});

describe('refusals', () => {
  test('a second key, a second network: never overwritten', async () => {
    const { shell } = await owner();
    const before = readFileSync(shell.path('state/node.key'));
    expect(await shell.refused(['node', 'init'])).toMatch(/node\.key exists: this node has its key already$/);
    expect(readFileSync(shell.path('state/node.key'))).toEqual(before);
    expect(await shell.refused(['network', 'create', 'home'])).toMatch(/network\.json exists: a network key is never overwritten/);
  });

  test('request and join before init', async () => {
    const shell = newShell();
    expect(await shell.refused(['node', 'request'])).toMatch(/has no node key: run thicket node init$/);
    expect(await shell.refused(['join', '--certificate', '-'], { stdin: '{}' })).toMatch(/has no node key: run thicket node init$/);
  });

  test('an invite token, with the way that there is', async () => {
    expect(await newShell().refused(['join', 'abc'])).toBe('invite tokens are not in this version: use thicket join --certificate FILE');
  });

  test('a key file or a state directory that others can read', async () => {
    const { shell } = await owner();
    chmodSync(shell.path('state/node.key'), 0o640);
    expect(await shell.refused(['node', 'request'])).toMatch(/node\.key can be read by others: chmod 600 /);
    chmodSync(shell.path('state/node.key'), 0o600);
    chmodSync(shell.state, 0o755);
    expect(await shell.refused(['node', 'request'])).toMatch(/state can be read by others: chmod 700 /);
    chmodSync(shell.path('home/network.json'), 0o644);
    const args = ['network', 'sign', '--network', 'home', '--request', 'request', '--name', 'x'];
    expect(await shell.refused(args)).toMatch(/network\.json can be read by others: chmod 600 /);
  });

  test('a state directory that cannot be made', async () => {
    const shell = newShell();
    writeFileSync(shell.state, '');
    expect(await shell.refused(['node', 'init'])).toMatch(/state can't be made \(.*\): choose another with --state/);
    expect(await shell.refused(['node', 'init', '--state', shell.path('state/below')])).toMatch(/can't be made .*: choose another/);
  });

  test('a damaged key file, cut at any length', async () => {
    const { shell } = await owner();
    const whole = readFileSync(shell.path('state/node.key'));
    for (const length of [0, 1, Math.floor(whole.length / 2), whole.length - 1]) {
      writeFileSync(shell.path('state/node.key'), whole.subarray(0, length));
      expect(await shell.refused(['node', 'request'])).toMatch(/node\.key is damaged: restore it from a backup/);
    }
  });

  test('a request that is none, and one that was tampered with', async () => {
    const { shell } = await owner();
    const args = ['network', 'sign', '--network', 'home', '--request', '-', '--name', 'x'];
    for (const stdin of ['', 'hello', '{}', '[1]', 'null']) {
      expect(await shell.refused(args, { stdin })).toBe('that is not a signing request: make one with thicket node request');
    }
    const request = JSON.parse(readFileSync(shell.path('request'), 'utf8')) as Record<string, unknown>;
    const stdin = JSON.stringify({ ...request, key: KeyPair.generate().publicKey });
    expect(await shell.refused(args, { stdin })).toMatch(/^the signing request is damaged or forged: /);
    expect(await shell.refused(args.with(5, 'nowhere'))).toMatch(/^the request nowhere can't be read \(.*ENOENT.*\): check its path/);
  });

  test('a name that is no label, a folder without a network, an --out that cannot be written', async () => {
    const { shell } = await owner();
    const args = ['network', 'sign', '--network', 'home', '--request', 'request', '--name'];
    expect(await shell.refused([...args, 'A_b'])).toMatch(/^name "A_b" is not one DNS label: /);
    expect(await shell.refused([...args, 'x', '--group', 'x.y'])).toMatch(/^group "x\.y" is not one DNS label: /);
    expect(await shell.refused(args.with(3, '.').concat('x'))).toBe('. holds no network: make one with thicket network create');
    expect(await shell.refused([...args, 'x', '--out', 'no/such/file'])).toMatch(/^no\/such\/file can't be written \(.*\): check/);
    mkdirSync(shell.path('folder'));
    expect(await shell.refused([...args, 'x', '--out', 'folder'])).toMatch(/^folder can't be written \(.*\): choose another file$/);
    expect(await shell.refused(['network', 'create', 'Home'])).toMatch(/^network name "Home" is not one DNS label: /);
    expect(existsSync(shell.path('Home'))).toBe(false);
  });

  test('a certificate for another key, of another network than it claims, expired, damaged, or none', async () => {
    const { shell, key, sign } = await owner();
    const join = (stdin: string): Promise<string> => shell.refused(['join', '--certificate', '-'], { stdin });
    expect(await join('hello')).toBe('that is not a certificate: thicket network sign --out makes one');
    expect(await join('{}')).toBe('that is not a certificate: thicket network sign --out makes one');

    await shell.done(['node', 'init', '--state', shell.path('other')]);
    const other = NodeStore.open(shell.path('other'));
    const forOther = await shell.done(['network', 'sign', '--network', 'home', '--request', '-', '--name', 'x'], {
      stdin: other.request(),
    });
    expect(await join(forOther)).toBe(`the certificate is for ${other.pair.publicKey}, this node is ${key}: sign this node's request`);

    const good = JSON.parse(await sign()) as { network: string; certificate: string };
    const foreign = NetworkFolder.create(shell.path('foreign'), 'foreign');
    expect(await join(JSON.stringify({ ...good, network: foreign.ref.key }))).toMatch(
      /^the certificate is signed by another network than it claims: /,
    );

    const bytes = Buffer.from(good.certificate, 'base64');
    bytes[bytes.length - 1] = (bytes.at(-1) ?? 0) ^ 1;
    expect(await join(JSON.stringify({ ...good, certificate: bytes.toString('base64') }))).toMatch(
      /^the certificate is damaged \(.*signature.*\): copy it again/,
    );

    const past = { name: 'gw', expiresInSeconds: 60, now: Math.floor(Date.now() / 1_000) - 120 };
    const { encodeBundle } = await import('../../ts/trust/index.js');
    const expired = encodeBundle(NetworkFolder.create(shell.path('past'), 'past').sign(NodeStore.open(shell.state).pair.publicKey, past));
    expect(await join(expired)).toBe('the certificate has expired: sign a new one with thicket network sign');
    expect(existsSync(shell.path('state/certificate.json'))).toBe(false);
  });
});

test('no private key occurs in what any of these commands printed, nor in what they hand over', async () => {
  const { shell, sign } = await owner();
  await sign('--out', 'certificate');
  await shell.done(['join', '--certificate', 'certificate']);
  expect(shells.length).toBeGreaterThan(15);
  let searched = 0;
  for (const { path, printed, state } of shells.map((s) => ({ path: s.path.bind(s), printed: s.printed, state: s.state }))) {
    const handedOver = ['request', 'certificate'].map((name) => path(name)).filter((file) => existsSync(file));
    const told = Buffer.concat([printed, ...handedOver.map((file) => readFileSync(file))]);
    for (const file of [path('home/network.json'), `${state}/node.key`, path('other/node.key')]) {
      const seed = existsSync(file) ? /"seed": "([^"]+)"/.exec(readFileSync(file, 'utf8'))?.[1] : undefined;
      if (seed === undefined) continue;
      searched += 1;
      for (const form of secretForms(Buffer.from(seed, 'base64'))) expect(told.includes(form)).toBe(false);
    }
  }
  expect(searched).toBeGreaterThan(15);
});

test('the search for private keys finds one in each form', () => {
  const seed = Buffer.from(KeyPair.generate().exportSeed());
  const said = [
    seed,
    seed.toString('hex'),
    seed.toString('base64'),
    `xx${Buffer.concat([Buffer.from('ab'), seed, Buffer.from('c')]).toString('base64url')}`,
  ];
  for (const text of said) expect(secretForms(seed).some((form) => Buffer.from(text).includes(form))).toBe(true);
});
