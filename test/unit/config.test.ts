/** thicket.yaml: what it means, and what each mistake in it is called, with its line. */
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import {
  exampleConfig,
  parseConfig,
  parseDuration,
  parseHostPort,
  parseService,
  parseServiceName,
  readConfig,
} from '../../ts/config/index.js';
import { isThicketError } from '../../ts/errors.js';
import { KeyPair } from '../../ts/trust/index.js';

const KEY = KeyPair.generate().publicKey;
const OTHER = KeyPair.generate().publicKey;
const SECRET = 'a'.repeat(26);
const FILE = '/etc/thicket.yaml';

const read = (text: string): ReturnType<typeof parseConfig> => parseConfig(text, FILE, '/state');

/** The one line by which a configuration is refused. */
function refusal(text: string): string {
  try {
    read(text);
  } catch (error) {
    if (!isThicketError(error)) throw error;
    expect(error.code).toBe('BAD_CONFIG');
    expect(error.message).not.toContain('\n');
    return error.message;
  }
  return 'accepted';
}

const leaf = `parents: ["udp://203.0.113.5:7117#${KEY}"]\n`;

const OUTLET = 'listen: 127.0.0.1:1, to: "csms.home:9000", as: camera';

const whole = `listen: ["udp://0.0.0.0:7117", "udp://[::]:7117"]
parents:
  - "udp://203.0.113.5:7117#${KEY}"
  - "udp://parent.example.org:7117#${OTHER}"
relay: { for: [home, "${OTHER}"], children: 5, descendants: 50, endpoints: 3 }
allow_unrelayed: true
interface: { name: thicket1, mode: tun, ipv4: 10.64.0.0/16, ipv6: "fd00:1:2:3::/64", offload: off, aead: ring, threads: 3 }
dns: { domain: iot, port: 5353, ttl: 5m }
networks: { home: "${KEY}.${SECRET}" }
trust: [ { network: home }, { node: "${OTHER}" } ]
session: { rekey: 2s }
endpoints:
  - name: camera
    groups: [cameras]
    services:
      - { port: tcp/554, target: 192.168.1.20:554, allow: ["group:staff", "group:staff@home", "node:${OTHER}"] }
      - { port: tcp/8554, proto: rtsp, target: 192.168.1.20:554 }
      - { port: udp/5683, target: "[fd00::20]:5683", force: true }
forwards: [ { listen: 127.0.0.1:8554, to: "camera.home.thicket:554" } ]
outlets: [ { listen: 192.168.1.1:9000, to: "csms.home.thicket:9000", as: camera, from: { ip: 192.168.1.20, mac: 02-00-5E-10-00-01 } } ]
control: { socket: /run/thicket.sock }
log: { level: debug }
`;

describe('a whole configuration', () => {
  test('means what it says', () => {
    const config = read(whole);
    expect(config).toMatchObject({
      listen: [
        { host: '0.0.0.0', port: 7_117 },
        { host: '::', port: 7_117 },
      ],
      parents: [
        { host: '203.0.113.5', port: 7_117, key: KEY },
        { host: 'parent.example.org', port: 7_117, key: OTHER },
      ],
      relay: { for: [KEY, OTHER], children: 5, descendants: 50, endpoints: 3 },
      interface: { name: 'thicket1', ipv4: '10.64.0.0/16', ipv6: 'fd00:1:2:3::/64', offload: 'off', aead: 'ring', threads: 3 },
      dns: { domain: 'iot', port: 5_353, ttlMs: 300_000 },
      trust: [{ network: KEY }, { node: OTHER }],
      session: { rekeyMs: 2_000 },
      forwards: [{ listen: { host: '127.0.0.1', port: 8_554 }, name: 'camera.home.thicket', port: 554 }],
      outlets: [
        {
          listen: { host: '192.168.1.1', port: 9_000 },
          name: 'csms.home.thicket',
          port: 9_000,
          as: 'camera',
          from: { ip: '192.168.1.20', mac: '02:00:5e:10:00:01' },
        },
      ],
      control: { socket: '/run/thicket.sock' },
      log: { level: 'debug' },
    });
    const [camera] = config.endpoints;
    expect(camera?.services.map((s) => [s.protocol, s.port, s.rtsp, s.force])).toEqual([
      ['tcp', 554, true, false],
      ['tcp', 8_554, true, false],
      ['udp', 5_683, false, true],
    ]);
    expect(camera?.services[0]?.allow).toEqual([
      { kind: 'group', group: 'staff' },
      { kind: 'group', group: 'staff', network: KEY },
      { kind: 'node', key: OTHER },
    ]);
    expect(config.networks.get('home')?.namingSecret).toHaveLength(16);
  });

  test('of a leaf needs nothing but a parent', () => {
    expect(read(leaf)).toMatchObject({
      listen: [],
      relay: { for: 'none' },
      allowUnrelayed: false,
      interface: { name: 'thicket0', mode: 'auto', ipv4: '198.18.0.0/15', ipv6: 'auto' },
      dns: { domain: 'thicket', port: undefined },
      session: { rekeyMs: 120_000 },
      endpoints: [],
      control: { socket: '/state/control.sock' },
    });
  });

  test('names parents by keys that exist: any other 52 characters are refused with their line', () => {
    for (const key of ['a'.repeat(52), 'b'.repeat(51).concat('a'), '7'.repeat(51).concat('q')]) {
      const text = `listen: ["udp://0.0.0.0:7117"]\nparents:\n  - "udp://203.0.113.5:7117#${KEY}"\n  - "udp://203.0.113.6:7117#${key}"\n`;
      expect(refusal(text)).toBe(`${FILE}:4: parents.1: "${key}" is nobody's key: copy the parent's from its thicket status`);
    }
  });

  test('is the example, with any one of its comments taken away', () => {
    expect(read(exampleConfig).parents).toHaveLength(1);
    const lines = exampleConfig.split('\n');
    for (const [at, line] of lines.entries()) {
      const key = /^# ([a-z_]+): /.exec(line)?.[1];
      if (key === undefined || key === 'listen') continue;
      const uncommented = [...lines];
      for (let below = at; /^# /.test(uncommented[below] ?? ''); below += 1) uncommented[below] = (uncommented[below] ?? '').slice(2);
      const text = uncommented.join('\n').replaceAll('<network key>', KEY).replaceAll('<key>', KEY).replaceAll('<naming secret>', SECRET);
      expect([key, refusal(text)]).toEqual([key, 'accepted']);
    }
  });
});

describe('a mistake', () => {
  const mistakes: readonly [string, string, RegExp][] = [
    ['an unknown key', `${leaf}lisen: []\n`, /:2: unknown key "lisen"/],
    ['an unknown key further in', `${leaf}dns:\n  domain: x\n  prot: 53\n`, /:4: unknown key "dns.prot"/],
    ['an unknown key in a list', `${leaf}endpoints:\n  - name: c\n    service: []\n`, /:4: unknown key "endpoints.0.service"/],
    ['a key twice', `${leaf}dns: {}\ndns: {}\n`, /:3: .*unique/],
    ['a bad CIDR', `${leaf}interface:\n  ipv4: 10.0.0.0/33\n`, /:3: interface.ipv4: .*not a CIDR/],
    ['a CIDR with bits behind it', `${leaf}interface:\n  ipv4: 10.0.0.1/16\n`, /:3: .*use 10\.0\.0\.0\/16/],
    ['a pool of another family', `${leaf}interface: { ipv4: "fd00::/64" }\n`, /:2: .*not an IPv4 CIDR/],
    ['a pool too small', `${leaf}interface: { ipv4: 10.0.0.0/30 }\n`, /:2: .*wrong size/],
    ['an IPv6 pool that is no /64', `${leaf}interface: { ipv6: "fd00::/48" }\n`, /:2: .*wrong size/],
    ['port 70000 to listen on', 'listen:\n  - udp://0.0.0.0:70000\n', /:2: listen.0: "70000" is not a port/],
    ['port 70000 of a parent', `parents: ["udp://203.0.113.5:70000#${KEY}"]\n`, /:1: parents.0: "70000" is not a port/],
    ['port 70000 of a service', service('{ port: tcp/70000, target: 1.2.3.4:1 }'), /:5: .*"70000" is not a port/],
    ['port 70000 of a target', service('{ port: tcp/1, target: 1.2.3.4:70000 }'), /:5: .*target: "70000" is not a port/],
    ['port 0', service('{ port: tcp/0, target: 1.2.3.4:1 }'), /:5: .*"0" is not a port/],
    ['a DNS port of 70000', `${leaf}dns: { port: 70000 }\n`, /:2: dns.port: /],
    ['a missing target', service('{ port: tcp/554 }'), /:5: endpoints.0.services.0.target is missing/],
    ['a missing name', `${leaf}endpoints:\n  - services: []\n`, /:3: endpoints.0.name is missing/],
    ['a target by name', service('{ port: tcp/554, target: camera.local:554 }'), /:5: .*not an IP address/],
    ['a target without a port', service('{ port: tcp/554, target: 1.2.3.4 }'), /:5: .*use host:port/],
    ['a service without a protocol', service('{ port: "554", target: 1.2.3.4:1 }'), /:5: .*use tcp\/PORT or udp\/PORT/],
    ['a port that is a number', service('{ port: 554, target: 1.2.3.4:1 }'), /:5: endpoints.0.services.0.port: /],
    ['RTSP over UDP', service('{ port: udp/554, proto: rtsp, target: 1.2.3.4:1 }'), /:5: RTSP runs over TCP/],
    ['a port twice', service('{ port: tcp/1, target: 1.2.3.4:1 }', '{ port: tcp/1, target: 1.2.3.4:2 }'), /:6: this port is there twice/],
    ['nobody allowed', service('{ port: tcp/1, target: 1.2.3.4:1, allow: ["staff"] }'), /:5: .*names nobody/],
    ['an unknown network allowed', service('{ port: tcp/1, target: 1.2.3.4:1, allow: ["group:a@work"] }'), /:5: .*"work" is not a key/],
    ['an endpoint twice', `${leaf}endpoints:\n  - name: c\n  - name: c\n`, /:4: this endpoint name is there twice/],
    ['an endpoint with dots', `${leaf}endpoints:\n  - name: a.b\n`, /:3: .*not one DNS label/],
    ['a group in capitals', `${leaf}endpoints:\n  - name: a\n    groups: [Staff]\n`, /:4: .*not one DNS label/],
    ['a parent without a key', 'parents: ["udp://203.0.113.5:7117"]\n', /:1: parents.0: .*use udp:/],
    ['a parent with a bad key', 'parents: ["udp://203.0.113.5:7117#abc"]\n', /:1: parents.0: "abc" is not a key/],
    ['a parent over TCP', `parents: ["tcp://203.0.113.5:7117#${KEY}"]\n`, /:1: .*use udp:/],
    ['a parent twice', `parents:\n  - "udp://1.2.3.4:1#${KEY}"\n  - "udp://1.2.3.5:1#${KEY}"\n`, /:3: this parent is there twice/],
    ['five parents', `parents: [a, b, c, d, e]\n`, /:1: parents: /],
    ['an address twice', 'listen: ["udp://0.0.0.0:1", "udp://0.0.0.0:1"]\n', /:1: this address is there twice/],
    ['neither listen nor parents', 'log: { level: info }\n', /:1: neither listen nor parents/],
    ['nothing at all', '', /:1: neither listen nor parents/],
    ['a list instead of keys', '- a\n- b\n', /:1: the file: /],
    ['a text instead of keys', 'hello\n', /:1: the file: /],
    ['broken YAML', `${leaf}dns: { port: 53\nlog: {}\n`, /:[123]: /],
    ['a tab', `${leaf}dns:\n\tport: 53\n`, /:[23]: /],
    ['an unknown alias', `${leaf}dns: *x\n`, /:2: .*alias/i],
    ['an alias bomb', bomb(), /:\d+: .*alias/i],
    ['a bad level', `${leaf}log: { level: loud }\n`, /:2: log.level: /],
    ['a bad duration', `${leaf}session: { rekey: 2 minutes }\n`, /:2: session.rekey: .*not a duration/],
    ['a rekey too rare', `${leaf}session: { rekey: 121s }\n`, /:2: session.rekey: .*out of range: use 1s to 2m/],
    ['a bad interface name', `${leaf}interface: { name: thicket-interface-0 }\n`, /:2: interface.name: /],
    ['a mode that is none', `${leaf}interface: { mode: tap }\n`, /:2: interface.mode: /],
    ['a bad network', `${leaf}networks: { home: abc }\n`, /:2: networks.home: /],
    ['a nickname in capitals', `${leaf}networks: { Home: "${KEY}" }\n`, /:2: networks.Home: /],
    ['a network without a value', `${leaf}networks:\n  home:\n`, /:3: networks.home/],
    ['trust in nothing', `${leaf}trust: [ home ]\n`, /:2: trust.0: names nobody/],
    ['trust in two things', `${leaf}trust: [ { network: "${KEY}", node: "${KEY}" } ]\n`, /:2: trust.0: names nobody/],
    ['relaying for a word', `${leaf}relay: { for: all }\n`, /:2: relay.for: names nobody/],
    ['a forward without a port', `${leaf}forwards: [ { listen: 127.0.0.1:1, to: camera.home.thicket } ]\n`, /:2: .*use NAME:PORT/],
    ['a forward to no name', `${leaf}forwards: [ { listen: 127.0.0.1:1, to: "a b:80" } ]\n`, /:2: .*"a b" is not a name/],
    ['a forward from a name', `${leaf}forwards: [ { listen: localhost:1, to: "a:80" } ]\n`, /:2: .*not an IP address/],
    [
      'two forwards from one port',
      `${leaf}forwards:\n  - { listen: 127.0.0.1:1, to: "a:80" }\n  - { listen: 127.0.0.1:1, to: "b:80" }\n`,
      /:4: this address is there twice/,
    ],
    ['an outlet from a name', `${leaf}outlets: [ { ${OUTLET}, from: { ip: charger } } ]\n`, /:2: .*"charger" is not an IP address/],
    ['an outlet from no MAC', `${leaf}outlets: [ { ${OUTLET}, from: { ip: 10.0.0.1, mac: 12 } } ]\n`, /:2: outlets\.0\.from\.mac: /],
    [
      'an outlet from a bad MAC',
      `${leaf}outlets: [ { ${OUTLET}, from: { ip: 10.0.0.1, mac: "1:2" } } ]\n`,
      /:2: .*"1:2" is not a MAC address/,
    ],
    [
      'an outlet from a MAC of IPv6',
      `${leaf}outlets: [ { ${OUTLET}, from: { ip: "fd00::1", mac: "02:00:5e:10:00:01" } } ]\n`,
      /:2: .*fd00::1 has no MAC/,
    ],
    [
      'an outlet where a forward is',
      `${leaf}forwards: [ { listen: 127.0.0.1:1, to: "a:80" } ]\noutlets: [ { ${OUTLET}, from: { ip: 10.0.0.1 } } ]\n`,
      /:3: this address is there twice/,
    ],
    [
      'endpoints on a node that listens',
      'listen: ["udp://0.0.0.0:1"]\nendpoints:\n  - name: c\n',
      /:2: a node that listens hosts no endpoints/,
    ],
  ];

  test.each(mistakes)('%s is one clear line', (_, text, expected) => {
    const line = refusal(text);
    expect(line.startsWith(`${FILE}:`)).toBe(true);
    expect(line).toMatch(expected);
  });

  test('of any kind is a line, or none', () => {
    const lines = whole.split('\n');
    const Edit = fc.record({
      at: fc.nat({ max: lines.length - 1 }),
      how: fc.constantFrom('drop', 'double', 'cut', 'indent', 'replace'),
      with: fc.oneof(
        fc.string({ maxLength: 12 }),
        fc.constantFrom('null', '[]', '{}', '- x', '~', '!!binary x', '&a b', '70000', '__proto__: 1'),
      ),
    });
    fc.assert(
      fc.property(fc.array(Edit, { minLength: 1, maxLength: 3 }), (edits) => {
        const text = [...lines];
        for (const edit of edits) {
          const line = text[edit.at] ?? '';
          const half = line.slice(0, Math.floor(line.length / 2));
          const changed = { drop: '', double: `${line}\n${line}`, cut: half, indent: ` ${line}`, replace: `${half}${edit.with}` };
          text[edit.at] = changed[edit.how as keyof typeof changed];
        }
        const line = refusal(text.join('\n'));
        if (line !== 'accepted') expect(line).toMatch(/^\/etc\/thicket\.yaml:\d+: ./);
      }),
      { numRuns: 1_500 },
    );
  });
});

describe('small values', () => {
  test('are durations with a unit', () => {
    expect(['500ms', '2s', '3m', '1h', '365d'].map((text) => parseDuration(text))).toEqual([
      500, 2_000, 180_000, 3_600_000, 31_536_000_000,
    ]);
    for (const text of ['', '5', 's', '-1s', '1.5s', '1 s', '1w', '9999999999s'])
      expect(() => parseDuration(text)).toThrow(/not a duration/);
  });

  test('are addresses with a port', () => {
    expect(parseHostPort('[::1]:80')).toEqual({ host: '::1', port: 80 });
    for (const text of [
      '::1:80',
      '[1.2.3.4]:80',
      '1.2.3:80',
      '1.2.3.4:',
      ':80',
      '1.2.3.4:80:90',
      'host:80',
      '1.2.3.4:1e3',
      '1.2.3.4:+80',
    ]) {
      expect(() => parseHostPort(text)).toThrow();
    }
    expect(parseHostPort('gate.example.org:80', true)).toEqual({ host: 'gate.example.org', port: 80 });
    for (const text of ['-a.org:80', 'a..b:80', '300.1.1.1:80', 'a_b:80']) expect(() => parseHostPort(text, true)).toThrow();
  });

  test('are services as expose takes them', () => {
    expect(parseService('rtsp://192.168.1.20')).toEqual({
      protocol: 'tcp',
      port: 554,
      rtsp: true,
      target: { host: '192.168.1.20', port: 554 },
    });
    expect(parseService('http://192.168.1.31:8080/admin')).toMatchObject({ port: 8_080, rtsp: false });
    expect(parseService('https://[fd00::1]')).toMatchObject({ port: 443, target: { host: 'fd00::1', port: 443 } });
    expect(parseService('192.168.1.20:554')).toMatchObject({ protocol: 'tcp', port: 554, rtsp: true });
    expect(parseService('udp/5683=192.168.1.40:5684')).toMatchObject({ protocol: 'udp', port: 5_683, target: { port: 5_684 } });
    for (const text of ['ftp://1.2.3.4', 'rtsp://camera.local', '1.2.3.4', 'tcp/1=', '=1.2.3.4:1', 'rtsp://', 'http://1.2.3.4:0']) {
      expect(() => parseService(text)).toThrow();
    }
  });

  test('are names of services', () => {
    expect(parseServiceName('camera')).toEqual({ endpoint: 'camera', service: undefined });
    expect(parseServiceName('camera:554').service).toEqual({ protocol: 'tcp', port: 554 });
    expect(parseServiceName('camera:udp/5683').service).toEqual({ protocol: 'udp', port: 5_683 });
    for (const text of ['', ':1', 'a:', 'a:x', 'a:1:2', 'A:1', 'a:icmp/1']) expect(() => parseServiceName(text)).toThrow();
  });
});

function service(...services: readonly string[]): string {
  return `${leaf}endpoints:\n  - name: camera\n    services:\n${services.map((s) => `      - ${s}\n`).join('')}`;
}

function bomb(): string {
  const lines = ['a: &a [x, x, x, x, x, x, x, x]'];
  for (const [n, name] of ['b', 'c', 'd', 'e', 'f'].entries())
    lines.push(`${name}: &${name} [${Array(8).fill(`*${'abcde'[n]}`).join(', ')}]`);
  return `${lines.join('\n')}\n`;
}

describe('a file', () => {
  test('with a naming secret in it is refused when others can read it', () => {
    const folder = mkdtempSync(join(tmpdir(), 'thicket-config-'));
    try {
      const file = join(folder, 'thicket.yaml');
      const code = (text: string, mode: number): string => {
        writeFileSync(file, text);
        chmodSync(file, mode);
        try {
          readConfig(file, folder);
          return 'accepted';
        } catch (error) {
          return isThicketError(error) ? error.code : String(error);
        }
      };
      expect(code(`${leaf}networks: { home: "${KEY}.${SECRET}" }\n`, 0o640)).toBe('LAX_PERMISSIONS');
      expect(code(`${leaf}networks: { home: "${KEY}.${SECRET}" }\n`, 0o600)).toBe('accepted');
      expect(code(`${leaf}networks: { home: "${KEY}" }\n`, 0o644)).toBe('accepted');
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
