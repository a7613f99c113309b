import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { parseArguments, parseFile, servesOthers, thicketConf } from '../../ts/resolver/dnsmasq-config.js';
import { installResolver, type ResolverTarget, removeResolver } from '../../ts/resolver/index.js';
import { nameservers, withThicket } from '../../ts/resolver/resolv-conf.js';
import { unitText } from '../../ts/resolver/systemd-resolved.js';

const target: ResolverTarget = {
  addresses: ['198.18.0.1', 'fd00:1:2:3::1'],
  port: 53,
  domain: 'thicket',
  interfaceName: 'thicket0',
  pools: ['198.18.0.0/15', 'fd00:1:2:3::/64'],
};

let root: string;
let stateFolder: string;

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'thicket-resolver-'));
  stateFolder = join(root, 'state');
  mkdirSync(stateFolder, { mode: 0o700 });
});

afterEach(() => rmSync(root, { recursive: true }));

const at = (path: string): string => join(root, path);

function write(path: string, content: string, mode = 0o644): void {
  mkdirSync(dirname(at(path)), { recursive: true });
  writeFileSync(at(path), content);
  chmodSync(at(path), mode);
}

const install = (how: Parameters<typeof installResolver>[1] = 'resolv.conf', to = target) =>
  installResolver(to, how, { stateFolder, root });
const remove = () => removeResolver({ stateFolder, root });
const SITE = '# the site\nsearch example\nnameserver 192.0.2.53\n';

describe('resolv.conf', () => {
  test("Thicket's server comes before the site's, everything else stays", () => {
    const { content, warnings } = withThicket(SITE, target);
    expect(content.split('\n')).toEqual([
      '# the site',
      'search example',
      expect.stringMatching(/^# Thicket/),
      'nameserver 198.18.0.1',
      'nameserver 192.0.2.53',
      '',
    ]);
    expect(warnings).toEqual([]);
  });

  test('no more than three servers, no rotation, and a word about what is left out', () => {
    const { content, warnings } = withThicket(
      'nameserver 192.0.2.1\noptions edns0 rotate\nnameserver 192.0.2.2\nnameserver 192.0.2.3\n',
      target,
    );
    expect(nameservers(content)).toEqual(['198.18.0.1', '192.0.2.1', '192.0.2.2']);
    expect(content).toContain('\noptions edns0\n');
    expect(warnings).toEqual([expect.stringMatching(/192\.0\.2\.3/), expect.stringMatching(/rotate/)]);
    expect(withThicket('', target).warnings).toEqual([expect.stringMatching(/no other DNS server/)]);
  });

  test('adding it twice is adding it once, whatever the file holds', () => {
    const line = fc.oneof(
      fc.constantFrom(
        'nameserver 192.0.2.1',
        'nameserver 192.0.2.2',
        'nameserver 2001:db8::1',
        'options rotate',
        'options edns0 rotate trust-ad',
        'search a b',
        '# comment',
        '',
      ),
      fc.string({ maxLength: 30 }).filter((text) => !text.includes('\n')),
    );
    fc.assert(
      fc.property(
        fc.array(line).map((lines) => lines.join('\n')),
        (before) => {
          const { content } = withThicket(before, target);
          expect(nameservers(content)[0]).toBe('198.18.0.1');
          expect(nameservers(content).length).toBeLessThanOrEqual(3);
          expect(nameservers(content).slice(1)).toEqual(
            nameservers(before)
              .filter((server) => server !== '198.18.0.1')
              .slice(0, 2),
          );
          expect(withThicket(content, target).content).toBe(content);
        },
      ),
    );
  });

  test('remove puts back every byte, the mode, and leaves nothing behind', async () => {
    for (const before of [SITE, 'nameserver 192.0.2.53', '', '# ünïcode\n']) {
      write('/etc/resolv.conf', before, 0o640);
      await install();
      expect(statSync(at('/etc/resolv.conf')).mode & 0o777).toBe(0o640);
      expect((await remove())?.done).toEqual([expect.stringMatching(/is as it was/)]);
      expect(readFileSync(at('/etc/resolv.conf'), 'utf8')).toBe(before);
      expect(statSync(at('/etc/resolv.conf')).mode & 0o777).toBe(0o640);
      expect(existsSync(join(stateFolder, 'resolver.json'))).toBe(false);
      expect(existsSync(join(stateFolder, 'resolv.conf.before-thicket'))).toBe(false);
      expect(await remove()).toBeUndefined();
    }
  });

  test('installing again changes nothing, and remove still knows the original', async () => {
    write('/etc/resolv.conf', SITE);
    await install();
    const first = readFileSync(at('/etc/resolv.conf'), 'utf8');
    expect((await install()).done).toEqual([expect.stringMatching(/^already set up/)]);
    expect(readFileSync(at('/etc/resolv.conf'), 'utf8')).toBe(first);
    await install('resolv.conf', { ...target, addresses: ['10.9.0.1'], pools: ['10.9.0.0/16'] });
    expect(nameservers(readFileSync(at('/etc/resolv.conf'), 'utf8'))).toEqual(['10.9.0.1', '192.0.2.53']);
    await remove();
    expect(readFileSync(at('/etc/resolv.conf'), 'utf8')).toBe(SITE);
  });

  test('a link is put back as a link; its target is never touched', async () => {
    write('/run/resolver/resolv.conf', SITE);
    mkdirSync(at('/etc'));
    symlinkSync('../run/resolver/resolv.conf', at('/etc/resolv.conf'));
    await install();
    expect(lstatSync(at('/etc/resolv.conf')).isSymbolicLink()).toBe(false);
    expect(nameservers(readFileSync(at('/etc/resolv.conf'), 'utf8'))).toEqual(['198.18.0.1', '192.0.2.53']);
    expect(readFileSync(at('/run/resolver/resolv.conf'), 'utf8')).toBe(SITE);
    await remove();
    expect(readlinkSync(at('/etc/resolv.conf'))).toBe('../run/resolver/resolv.conf');
  });

  test('where there was no file there is none again', async () => {
    mkdirSync(at('/etc'));
    await install();
    await remove();
    expect(existsSync(at('/etc/resolv.conf'))).toBe(false);
  });

  test('what somebody changed since is not overwritten; once it is put right by hand, remove and install go on', async () => {
    write('/etc/resolv.conf', SITE);
    await install();
    const edited = `${readFileSync(at('/etc/resolv.conf'), 'utf8')}search new\n`;
    write('/etc/resolv.conf', edited);
    for (const attempt of [remove, install]) {
      await expect(attempt()).rejects.toMatchObject({
        code: 'REFUSED',
        message: expect.stringMatching(/changed by somebody.*take 198\.18\.0\.1 out.*resolv\.conf\.before-thicket/),
      });
      expect(readFileSync(at('/etc/resolv.conf'), 'utf8')).toBe(edited);
    }
    write('/etc/resolv.conf', 'nameserver 192.0.2.99\n');
    expect((await remove())?.done).toEqual([expect.stringMatching(/left as it is/)]);
    expect(readFileSync(at('/etc/resolv.conf'), 'utf8')).toBe('nameserver 192.0.2.99\n');

    await install();
    write('/etc/resolv.conf', 'nameserver 192.0.2.100\n');
    await install();
    expect(nameservers(readFileSync(at('/etc/resolv.conf'), 'utf8'))).toEqual(['198.18.0.1', '192.0.2.100']);
    await remove();
    expect(readFileSync(at('/etc/resolv.conf'), 'utf8')).toBe('nameserver 192.0.2.100\n');
  });

  test('a damaged backup or record is refused, and the file stays', async () => {
    write('/etc/resolv.conf', SITE);
    await install();
    const ours = readFileSync(at('/etc/resolv.conf'), 'utf8');
    const backup = join(stateFolder, 'resolv.conf.before-thicket');
    const whole = readFileSync(backup);
    writeFileSync(backup, whole.subarray(0, 5));
    await expect(remove()).rejects.toMatchObject({ code: 'BAD_STATE' });
    writeFileSync(backup, whole);
    const record = readFileSync(join(stateFolder, 'resolver.json'));
    writeFileSync(join(stateFolder, 'resolver.json'), record.subarray(0, 50));
    await expect(remove()).rejects.toMatchObject({ code: 'BAD_STATE' });
    expect(readFileSync(at('/etc/resolv.conf'), 'utf8')).toBe(ours);
    writeFileSync(join(stateFolder, 'resolver.json'), record);
    await remove();
    expect(readFileSync(at('/etc/resolv.conf'), 'utf8')).toBe(SITE);
  });

  test('a port other than 53 cannot be written there; who else writes the file is named', async () => {
    write('/etc/resolv.conf', SITE);
    await expect(install('resolv.conf', { ...target, port: 5_353 })).rejects.toMatchObject({ code: 'REFUSED' });
    expect(readFileSync(at('/etc/resolv.conf'), 'utf8')).toBe(SITE);
    write('/etc/resolv.conf', `# Generated by NetworkManager\n${SITE}`);
    expect((await install()).warnings).toEqual([expect.stringMatching(/^NetworkManager writes/)]);
  });
});

describe('dnsmasq', () => {
  test('reads command lines as getopt does', () => {
    const pairs = (...argv: string[]) => parseArguments(argv).map(({ name, value }) => `${name}=${value}`);
    expect(pairs('-C', '/a', '-7/b,*.conf', '--interface=lo', '--listen-address', '127.0.0.1', '-z')).toEqual([
      'conf-file=/a',
      'conf-dir=/b,*.conf',
      'interface=lo',
      'listen-address=127.0.0.1',
      'bind-interfaces=',
    ]);
    expect(pairs('-kz', '-x', '-zC', '-u', 'dnsmasq', '-dC/etc/x', '--no-daemon', '--bind-dynamic')).toEqual([
      'bind-interfaces=',
      'conf-file=/etc/x',
      'no-daemon=',
      'bind-dynamic=',
    ]);
    fc.assert(fc.property(fc.array(fc.string()), (argv) => void parseArguments(argv)));
  });

  test('knows whether others may ask it', () => {
    const serves = (text: string) => servesOthers(parseFile(text));
    expect(serves('# nothing\n')).toBe(true);
    expect(serves('interface=lo\nbind-interfaces')).toBe(false);
    expect(serves('listen-address=127.0.0.1,::1 # here')).toBe(false);
    expect(serves('interface=lo\ninterface=eth1')).toBe(true);
    expect(serves('listen-address=127.0.0.1,192.168.1.1')).toBe(true);
    expect(serves('local-service')).toBe(true);
    expect(serves('local-service=host')).toBe(false);
  });

  test('sends exactly our names and addresses to us, and leaves our port alone', () => {
    const lines = thicketConf(target, []).split('\n');
    expect(lines).toEqual(
      expect.arrayContaining([
        'server=/thicket/198.18.0.1',
        'server=/18.198.in-addr.arpa/198.18.0.1',
        'server=/19.198.in-addr.arpa/198.18.0.1',
        'except-interface=thicket0',
        'bind-dynamic',
      ]),
    );
    expect(lines.filter((line) => line.startsWith('server='))).toHaveLength(4);
    expect(thicketConf({ ...target, port: 5_353 }, parseFile('bind-interfaces\n'))).toMatch(/^server=\/thicket\/198\.18\.0\.1#5353$/m);
    // dnsmasq refuses to start with both.
    expect(thicketConf(target, parseFile('bind-interfaces\n'))).not.toContain('bind-dynamic');
  });

  test('without a running dnsmasq it says so', async () => {
    await expect(install('dnsmasq')).rejects.toMatchObject({ code: 'NOT_RUNNING' });
  });
});

describe('systemd-resolved', () => {
  beforeEach(() => {
    write('/run/systemd/resolve/stub-resolv.conf', 'nameserver 127.0.0.53\n');
    write('/etc/resolv.conf', 'nameserver 127.0.0.53\noptions edns0 trust-ad\n');
    mkdirSync(at('/etc/systemd/system'), { recursive: true });
    // Stands in for systemd, which does not run here: writes down what it is asked for, and fails on demand.
    write(
      '/bin/systemctl',
      `#!/bin/sh\nif [ -e ${at('/fail')} ]; then echo "no bus" >&2; exit 1; fi\necho "$@" >> ${at('/calls')}\n`,
      0o755,
    );
  });

  const calls = (): string[] => {
    const text = existsSync(at('/calls')) ? readFileSync(at('/calls'), 'utf8').trim() : '';
    rmSync(at('/calls'), { force: true });
    return text === '' ? [] : text.split('\n');
  };

  test('auto finds it; a unit tells it whenever the interface appears', async () => {
    await install('auto');
    const unit = readFileSync(at('/etc/systemd/system/thicket-dns.service'), 'utf8');
    expect(unit).toBe(unitText(target));
    expect(calls()).toEqual(['daemon-reload', 'enable thicket-dns.service']);
    mkdirSync(at('/sys/class/net/thicket0'), { recursive: true });
    await install('auto');
    expect(calls()).toEqual(['daemon-reload', 'enable thicket-dns.service', 'restart thicket-dns.service']);
    await remove();
    expect(calls()).toEqual(['disable --now thicket-dns.service', 'daemon-reload']);
    expect(existsSync(at('/etc/systemd/system/thicket-dns.service'))).toBe(false);
  });

  test('the unit routes our domain and our reverse zones only', () => {
    const lines = unitText({ ...target, port: 5_353, interfaceName: 'thicket-a' }).split('\n');
    expect(lines).toEqual(
      expect.arrayContaining([
        'BindsTo=sys-subsystem-net-devices-thicket\\x2da.device',
        'ExecStart=resolvectl dns thicket-a 198.18.0.1:5353',
        'ExecStart=resolvectl domain thicket-a ~thicket ~18.198.in-addr.arpa ~19.198.in-addr.arpa ~3.0.0.0.2.0.0.0.1.0.0.0.0.0.d.f.ip6.arpa',
        'ExecStart=resolvectl default-route thicket-a no',
      ]),
    );
  });

  test('when systemd refuses, its words are told and nothing is left', async () => {
    write('/fail', '');
    await expect(install()).resolves.toBeDefined();
    await remove();
    await expect(install('auto')).rejects.toMatchObject({
      code: 'REFUSED',
      message: expect.stringMatching(/systemctl daemon-reload failed \(no bus\)/),
    });
    expect(existsSync(at('/etc/systemd/system/thicket-dns.service'))).toBe(false);
    expect(existsSync(join(stateFolder, 'resolver.json'))).toBe(false);
  });

  test('where programs do not ask it, auto takes resolv.conf', async () => {
    write('/etc/resolv.conf', SITE);
    await install('auto');
    expect(nameservers(readFileSync(at('/etc/resolv.conf'), 'utf8'))).toEqual(['198.18.0.1', '192.0.2.53']);
    await remove();
    write('/etc/nsswitch.conf', 'hosts: files resolve [!UNAVAIL=return] dns\n');
    await install('auto');
    expect(existsSync(at('/etc/systemd/system/thicket-dns.service'))).toBe(true);
  });

  test('where it does not run it says so', async () => {
    rmSync(at('/run/systemd'), { recursive: true });
    await expect(install('systemd-resolved')).rejects.toMatchObject({ code: 'NOT_RUNNING' });
  });
});
