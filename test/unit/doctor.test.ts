/** What the doctor says of hosts, made up and real. */
import { chmodSync, writeFileSync } from 'node:fs';
import { afterAll, describe, expect, test } from '@jest/globals';
import { type Check, type DoctorDocument, examine } from '../../ts/doctor/index.js';
import { version } from '../../ts/version.js';
import { Shell } from '../cli/index.js';
import { thicketProgram } from '../lab/index.js';

type Host = Parameters<typeof examine>[0];

const healthy: Host = {
  nodeVersion: () => '20.20.2',
  place: 'linux x64',
  backend: () => ({ name: 'native', from: '@thicket/linux-x64-gnu', shortfall: null }),
  libc: () => ({ libc: 'glibc', version: '2.36', source: 'report' }),
  tun: () => {},
  capabilities: () => new Set(['CAP_NET_ADMIN', 'CAP_NET_BIND_SERVICE']),
  nftables: async () => {},
};
const fails = (text: string) => (): never => {
  throw new Error(text);
};
const of = (document: DoctorDocument, name: Check['name']): string => {
  const check = document.checks.find((one) => one.name === name);
  return `${check?.state}: ${check?.text}`;
};

describe('the doctor', () => {
  test('finds a host with everything well', async () => {
    const document = await examine(healthy, { interface: true });
    expect(document).toMatchObject({ schema: 1, version, ok: true, backend: { name: 'native', shortfall: null } });
    expect(document.checks.map(({ name, state }) => `${name} ${state}`)).toEqual(
      ['node', 'backend', 'libc', 'tun', 'capabilities', 'libnftables'].map((name) => `${name} ok`),
    );
  });

  test('says why the backend is not the better one, and lets it pass', async () => {
    const backend = () => ({ name: 'wasm', from: 'thicket', shortfall: "@thicket/linux-x64-gnu isn't installed" }) as const;
    const document = await examine({ ...healthy, backend }, { interface: undefined });
    expect(document.ok).toBe(true);
    expect(of(document, 'backend')).toBe("note: wasm, not native: @thicket/linux-x64-gnu isn't installed");
  });

  test('finds no node able to run without a backend, or with an old Node.js', async () => {
    const document = await examine(
      { ...healthy, backend: fails('none: run npm run build'), nodeVersion: () => '18.20.4' },
      { interface: false },
    );
    expect(document).toMatchObject({ ok: false, backend: null });
    expect(of(document, 'backend')).toBe('missing: none: run npm run build');
    expect(of(document, 'node')).toBe('missing: Node.js 18.20.4 is too old: install 20 or newer');
  });

  test.each([
    [true, 'missing', false],
    [false, 'note', true],
    [undefined, 'note', true],
  ])('what only an interface needs is missed by a node with one alone (%s)', async (needs, state, ok) => {
    const host = { ...healthy, tun: fails('no device'), capabilities: () => new Set<never>(), nftables: async () => fails('no library')() };
    const document = await examine(host, { interface: needs });
    expect(document.ok).toBe(ok);
    expect(of(document, 'tun')).toBe(`${state}: no device`);
    expect(of(document, 'capabilities')).toMatch(new RegExp(`^${state}: CAP_NET_ADMIN and CAP_NET_BIND_SERVICE missing: run as root`));
    expect(of(document, 'libnftables')).toBe(`${state}: no library`);
  });
});

describe('thicket doctor', () => {
  const shell = new Shell();
  afterAll(() => shell.remove());

  test('runs without a node, in one line for each finding', async () => {
    const lines = (await shell.done(['doctor'])).trimEnd().split('\n');
    expect(lines).toHaveLength(6);
    expect(lines[1]).toBe('ok       backend       native, from build/Release');
    const document = JSON.parse(await shell.done(['doctor', '--json'])) as DoctorDocument;
    expect(document.checks.map(({ state, name, text }) => `${state.padEnd(7)}  ${name.padEnd(12)}  ${text}`)).toEqual(lines);
  });

  test('exits with 1 where the configured node cannot run, and names what is missing', async () => {
    writeFileSync(shell.path('thicket.yaml'), 'listen: ["udp://127.0.0.1:7117"]\nallow_unrelayed: true\ninterface: { mode: tun }\n');
    chmodSync(shell.folder, 0o755);
    // Nobody's privileges: no capability is left.
    const unprivileged = ['setpriv', '--reuid=65534', '--clear-groups', '--no-new-privs', process.execPath];
    const ran = await shell.run([...unprivileged, thicketProgram, 'doctor', '--config', shell.path('thicket.yaml')]);
    expect(ran.stdout).toMatch(/^missing {2}capabilities {2}CAP_NET_ADMIN and CAP_NET_BIND_SERVICE missing: /m);
    expect(ran.stderr).toMatch(/^thicket: a node can't run here \(.*capabilities.*\): do what the lines marked missing say\n$/);
    expect(ran.code).toBe(1);
  });
});
