/** What the CLI changed, joined with the file: kept apart from it, kept over restarts, and only what was committed. */
import { mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { type Change, type Config, LocalChanges, parseConfig, parseService } from '../../ts/config/index.js';
import { isThicketError } from '../../ts/errors.js';
import { formatWho, KeyPair } from '../../ts/trust/index.js';

const KEY = KeyPair.generate().publicKey;
const OTHER = KeyPair.generate().publicKey;

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'thicket-local-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const base = `parents: ["udp://203.0.113.5:7117#${KEY}"]
networks: { home: "${KEY}" }
trust: [ { network: "${KEY}" } ]
endpoints:
  - name: door
    services:
      - { port: tcp/80, target: 192.168.1.9:80, allow: ["group:staff"] }
      - { port: tcp/81, target: 192.168.1.9:81 }
`;
const fromFile = (text = base): Config => parseConfig(text, 'thicket.yaml', folder);

const code = (run: () => unknown): string => {
  try {
    run();
  } catch (error) {
    if (isThicketError(error)) return error.code;
    throw error;
  }
  return 'none';
};

/** Makes and keeps a change; what the node would run with. */
function change(local: LocalChanges, change: Change, config = fromFile()): Config {
  const { config: next, commit } = local.preview(config, change);
  commit();
  return next;
}

const expose = (name: string, target: string, ...allow: string[]): Change => ({
  do: 'expose',
  name,
  services: [{ ...parseService(target), allow: [], force: false }],
  allow,
});
const allow = (who: string, endpoint: string, port?: number, verb: 'allow' | 'deny' = 'allow'): Change => ({
  do: verb,
  who,
  endpoint,
  service: port === undefined ? undefined : { protocol: 'tcp', port },
});

/** Who may reach what, as text. */
const rules = (config: Config): string[] =>
  config.endpoints.flatMap((e) => e.services.map((s) => `${e.name}:${s.port} ${s.allow.map(formatWho).sort().join(' ')}`.trim()));

describe('local changes', () => {
  test('show in the preview at once, and stay only when committed', () => {
    const local = LocalChanges.open(folder);
    const { config, commit } = local.preview(fromFile(), expose('camera', 'rtsp://192.168.1.20', 'group:staff'));
    expect(rules(config)).toContain('camera:554 group:staff');
    expect(rules(local.join(fromFile()))).not.toContain('camera:554 group:staff');
    expect(readdirSync(folder)).toEqual([]);
    commit();
    expect(rules(local.join(fromFile()))).toContain('camera:554 group:staff');
    expect(rules(LocalChanges.open(folder).join(fromFile()))).toContain('camera:554 group:staff');
  });

  test('expose with force and RTSP as it was asked, again with other services, and not under a name of the file', () => {
    const local = LocalChanges.open(folder);
    change(local, expose('camera', 'rtsp://192.168.1.20', 'group:staff'));
    const again = change(local, expose('camera', 'http://192.168.1.20'));
    expect(rules(again)).toEqual(['door:80 group:staff', 'door:81', 'camera:80 group:staff']);
    expect(code(() => change(local, expose('door', 'http://192.168.1.9')))).toBe('EXISTS');
    expect(code(() => change(local, expose('Bad', 'http://192.168.1.9')))).toBe('BAD_ARGUMENT');
    expect(code(() => change(local, { do: 'expose', name: 'none', services: [], allow: [] }))).toBe('BAD_ARGUMENT');
    const twice = { ...parseService('http://1.2.3.4'), allow: [], force: false };
    expect(code(() => change(local, { do: 'expose', name: 'twice', services: [twice, twice], allow: [] }))).toBe('BAD_ARGUMENT');
  });

  test('unexpose takes name, services and rules away together', () => {
    const local = LocalChanges.open(folder);
    change(local, expose('camera', 'rtsp://192.168.1.20', 'group:staff'));
    change(local, allow(`node:${OTHER}`, 'camera'));
    expect(rules(change(local, { do: 'unexpose', name: 'camera' }))).toEqual(['door:80 group:staff', 'door:81']);
    // Made anew it is closed: no rule of the old one comes back.
    expect(rules(change(local, expose('camera', 'rtsp://192.168.1.20')))).toContain('camera:554');
    expect(code(() => change(local, { do: 'unexpose', name: 'lamp' }))).toBe('NOT_FOUND');
    expect(code(() => change(local, { do: 'unexpose', name: 'door' }))).toBe('REFUSED');
    expect(code(() => change(local, { do: 'unexpose', name: 'constructor' }))).toBe('NOT_FOUND');
  });

  test('allow and deny over the file, for one service or all, the last word winning', () => {
    const local = LocalChanges.open(folder);
    const steps: [Change, string[]][] = [
      [allow('group:family', 'door', 80), ['door:80 group:family group:staff', 'door:81']],
      [allow('group:family', 'door'), ['door:80 group:family group:staff', 'door:81 group:family']],
      [allow('group:staff', 'door', 80, 'deny'), ['door:80 group:family', 'door:81 group:family']],
      [allow('group:family', 'door', 81, 'deny'), ['door:80 group:family', 'door:81']],
      [allow('group:family', 'door', undefined, 'deny'), ['door:80', 'door:81']],
      [allow('group:staff', 'door', 80), ['door:80 group:staff', 'door:81']],
    ];
    for (const [step, expected] of steps) expect(rules(change(local, step))).toEqual(expected);
    expect(rules(LocalChanges.open(folder).join(fromFile()))).toEqual(steps.at(-1)?.[1]);
  });

  test('deny only what was allowed by itself, and name only what is there', () => {
    const local = LocalChanges.open(folder);
    expect(code(() => change(local, allow('group:other', 'door', 80, 'deny')))).toBe('NOT_FOUND');
    expect(code(() => change(local, allow('group:staff', 'door', 99)))).toBe('NOT_FOUND');
    expect(code(() => change(local, allow('group:staff', 'lamp')))).toBe('NOT_FOUND');
    expect(code(() => change(local, allow('staff', 'door')))).toBe('BAD_ARGUMENT');
  });

  test('mean a network by nickname or key, and keep the key', () => {
    const local = LocalChanges.open(folder);
    expect(rules(change(local, allow('group:guests@home', 'door', 81)))).toContain(`door:81 group:guests@${KEY}`);
    expect(rules(change(local, allow(`group:guests@${KEY}`, 'door', 81, 'deny')))).toContain('door:81');
  });

  test('trust and distrust over the file', () => {
    const local = LocalChanges.open(folder);
    const keys = (config: Config): string[] => config.trust.map((t) => ('network' in t ? t.network : t.node)).sort();
    expect(keys(change(local, { do: 'trust', key: OTHER }))).toEqual([KEY, OTHER].sort());
    expect(keys(change(local, { do: 'distrust', key: KEY }))).toEqual([OTHER]);
    expect(code(() => change(local, { do: 'distrust', key: KEY }))).toBe('NOT_FOUND');
    expect(keys(change(local, { do: 'trust', key: `${KEY}.${'a'.repeat(26)}` }))).toEqual([KEY, OTHER].sort());
    expect(code(() => change(local, { do: 'trust', key: 'nobody' }))).toBe('BAD_KEY');
    // The naming secret isn't kept here.
    expect(readFileSync(join(folder, 'local.json'), 'utf8')).not.toContain('a'.repeat(26));
  });

  test('give way to a file that now names the same endpoint', () => {
    const local = LocalChanges.open(folder);
    change(local, expose('camera', 'rtsp://192.168.1.20'));
    const file = `${base}  - name: camera\n    services: [ { port: tcp/8554, proto: rtsp, target: 192.168.1.21:554 } ]\n`;
    expect(rules(local.join(fromFile(file)))).toEqual(['door:80 group:staff', 'door:81', 'camera:8554']);
  });

  test('are damaged, not forgotten, when their file is cut', () => {
    const local = LocalChanges.open(folder);
    change(local, expose('camera', 'rtsp://192.168.1.20'));
    const file = join(folder, 'local.json');
    const whole = readFileSync(file);
    for (let length = 0; length < whole.length; length += 7) {
      truncateSync(file, length);
      expect(code(() => LocalChanges.open(folder))).toBe('BAD_STATE');
      writeFileSync(file, whole);
    }
  });
});
