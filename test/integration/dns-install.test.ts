/** `thicket dns install|remove` on a host whose programs ask through resolv.conf, and on one with dnsmasq. */

import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { type Host, Lab, type Process, repository, waitFor } from '../lab/index.js';

const FIXTURE = join(repository, 'test/fixtures/dns-node.mjs');

let lab: Lab;
let viewer: Host;
let site: string;
let node: Process | undefined;

beforeAll(async () => {
  lab = await Lab.create();
  viewer = lab.host('viewer');
  site = (await lab.startSiteDns()).address;
  // In the place of the TUN.
  await viewer.exec(['ip', 'tuntap', 'add', 'thicket0', 'mode', 'tun']);
  await viewer.exec(['ip', 'link', 'set', 'thicket0', 'up']);
  await viewer.exec(['ip', 'addr', 'add', '198.18.0.1/32', 'dev', 'thicket0']);
  await viewer.exec(['ip', 'addr', 'add', 'fd00:1:2:3::1/128', 'dev', 'thicket0', 'nodad']);
}, 60_000);

afterAll(() => lab.destroy(), 60_000);

afterEach(async () => {
  await viewer.killAll();
  node = undefined;
  rmSync(viewer.state, { recursive: true, force: true });
});

async function startNode(...more: string[]): Promise<void> {
  node = await viewer.spawn([process.execPath, FIXTURE, viewer.state, '198.18.0.1', 'fd00:1:2:3::1', ...more]);
  await node.waitForLine(/^listening$/);
}

/** What a program that uses the C library sees. */
async function getent(database: string, name: string): Promise<string> {
  const { stdout } = await viewer.exec(['getent', database, name], { check: false });
  return stdout.replace(/[ \t]+/g, ' ').trim();
}

const resolvConf = async (): Promise<string> => (await viewer.exec(['cat', '/etc/resolv.conf'])).stdout;

async function expectOverlayNames(): Promise<void> {
  expect(await getent('ahostsv4', 'camera.home.thicket')).toMatch(/^198\.18\.3\.4 /);
  expect(await getent('ahostsv6', 'camera.home.thicket')).toMatch(/^fd00:1:2:3::304 /);
  expect(await getent('hosts', '198.18.3.4')).toBe('198.18.3.4 camera.home.thicket');
  expect(await getent('hosts', 'fd00:1:2:3::304')).toBe('fd00:1:2:3::304 camera.home.thicket');
  expect(await getent('hosts', 'nobody.home.thicket')).toBe('');
  expect(await getent('ahostsv4', 'site.example')).toMatch(/^192\.0\.2\.80 /);
}

test('a DNS server of ours answers this host only', async () => {
  await startNode(viewer.ip4);
  const ask = async (from: Host, at: string): Promise<string> => {
    const { stdout } = await from.exec(['dig', '+tries=1', '+time=2', '+short', ...at.split(' '), 'camera.home.thicket'], { check: false });
    return stdout;
  };
  for (const transport of ['', ' +tcp']) {
    expect(await ask(viewer, `@198.18.0.1${transport}`)).toBe('198.18.3.4');
    expect(await ask(viewer, `@fd00:1:2:3::1${transport}`)).toBe('198.18.3.4');
    expect(await ask(viewer, `@${viewer.ip4}${transport}`)).toBe('198.18.3.4');
    expect(await ask(lab.host('mid'), `@${viewer.ip4}${transport}`)).not.toContain('198.18.3.4');
  }
}, 60_000);

describe('resolv.conf', () => {
  const siteFile = (): string => `# the site\nsearch example\nnameserver ${site}\n`;

  test('glibc resolves overlay names through Thicket, all others through the site, and remove leaves the file as it was', async () => {
    viewer.etc('resolv.conf', siteFile());
    await startNode();
    expect(await getent('hosts', 'camera.home.thicket')).toBe('');
    const installed = await viewer.thicket(['dns', 'install']);
    expect(installed.stdout).toMatch(/resolv\.conf/);
    expect(installed.stdout).toMatch(/glibc[^\n]*c-ares[^\n]*doesn't/);
    expect(installed.stdout).toMatch(/checked: /);
    expect(installed.stderr).toBe('');
    await expectOverlayNames();
    const ours = await resolvConf();
    expect((await viewer.thicket(['dns', 'install'])).stdout).toMatch(/already set up/);
    expect(await resolvConf()).toBe(ours);

    // The node is gone: other names still resolve, at the price of a refused packet.
    await node?.kill('SIGKILL');
    expect(await getent('ahostsv4', 'site.example')).toMatch(/^192\.0\.2\.80 /);
    await viewer.thicket(['dns', 'remove']);
    expect(`${await resolvConf()}\n`).toBe(siteFile());
    expect((await viewer.thicket(['dns', 'remove'])).stdout).toMatch(/nothing to remove/);
  }, 60_000);

  test('a file that somebody changed since is refused with one line, and stays', async () => {
    viewer.etc('resolv.conf', siteFile());
    await startNode();
    await viewer.thicket(['dns', 'install', '--how', 'resolv.conf']);
    const changed = `${await resolvConf()}\nsearch other\n`;
    viewer.etc('resolv.conf', changed);
    const refused = await viewer.thicket(['dns', 'remove'], { check: false });
    expect(refused.code).toBe(1);
    expect(refused.stderr).toMatch(/^thicket: [^\n]*changed by somebody[^\n]*$/);
    expect(`${await resolvConf()}\n`).toBe(changed);
    viewer.etc('resolv.conf', siteFile());
    expect((await viewer.thicket(['dns', 'remove'])).code).toBe(0);
    expect(`${await resolvConf()}\n`).toBe(siteFile());
  }, 60_000);

  test('without a node it fails with one line and changes nothing', async () => {
    viewer.etc('resolv.conf', siteFile());
    const failed = await viewer.thicket(['dns', 'install'], { check: false });
    expect(failed.code).toBe(1);
    expect(failed.stderr).toMatch(/^thicket: no node answers [^\n]*$/);
    expect(`${await resolvConf()}\n`).toBe(siteFile());
  });
});

describe('dnsmasq', () => {
  const folder = (): string => viewer.path('dnsmasq.d');
  const ours = (): string => join(folder(), 'thicket.conf');

  async function startDnsmasq(options: readonly string[]): Promise<Process> {
    mkdirSync(folder(), { recursive: true });
    const common = ['no-resolv', 'no-hosts', 'stop-dns-rebind', 'rebind-domain-ok=/example/', 'user=root', `server=${site}`];
    const file = viewer.write('dnsmasq.conf', [...common, ...options, ''].join('\n'));
    const dnsmasq = await viewer.spawn(['dnsmasq', '--no-daemon', '--pid-file=', '-C', file, `--conf-dir=${folder()},*.conf`]);
    await dnsmasq.waitForLine(/started, version/);
    return dnsmasq;
  }

  test('one that serves this host only: programs resolve through it, and remove takes the file away', async () => {
    viewer.etc('resolv.conf', 'nameserver 127.0.0.1\n');
    await startNode();
    let dnsmasq = await startDnsmasq(['interface=lo', 'bind-interfaces']);
    const installed = await viewer.thicket(['dns', 'install']);
    expect(installed.stdout).toContain(ours());
    // No service runs it here, so it says what is left to do.
    expect(installed.stderr).toMatch(/restart it yourself/);
    expect(installed.stderr).not.toMatch(/other hosts/);
    await dnsmasq.kill();
    dnsmasq = await startDnsmasq(['interface=lo', 'bind-interfaces']);
    await expectOverlayNames();
    const again = await viewer.thicket(['dns', 'install']);
    expect(again.stdout).toMatch(/already set up[\s\S]*checked: /);
    expect(again.stderr).toBe('');

    await viewer.thicket(['dns', 'remove']);
    expect(existsSync(ours())).toBe(false);
    await dnsmasq.kill();
    await startDnsmasq(['interface=lo', 'bind-interfaces']);
    expect(await getent('hosts', 'camera.home.thicket')).toBe('');
    expect(await getent('ahostsv4', 'site.example')).toMatch(/^192\.0\.2\.80 /);
  }, 60_000);

  test('one that has port 53 of every address keeps a node from starting, until it is told, from the configuration', async () => {
    viewer.etc('resolv.conf', 'nameserver 127.0.0.1\n');
    const dnsmasq = await startDnsmasq([]);
    const refused = await viewer.spawn([process.execPath, FIXTURE, viewer.state, '198.18.0.1']);
    await refused.waitForLine(/^DNS can't listen on 198\.18\.0\.1:53.*thicket dns install --how dnsmasq/);
    expect((await refused.exit).code).toBe(1);

    const config = viewer.write(
      'thicket.yaml',
      `parents: ["udp://192.0.2.1:7117#2awhwlq7kn33nz6cbzlikqsxxwuf6lnlapattmee44jlbfskkj4q"]\ninterface: { ipv6: "fd00:1:2:3::/64" }\n`,
    );
    const installed = await viewer.thicket(['dns', 'install', '--how', 'dnsmasq', '--config', config]);
    expect(installed.stderr).toMatch(/also answers other hosts/);
    await dnsmasq.kill();
    await startDnsmasq([]);
    await startNode();
    await waitFor(async () => (await getent('ahostsv4', 'camera.home.thicket')) !== '', { what: 'an answer through dnsmasq' });
    await expectOverlayNames();
    await viewer.thicket(['dns', 'remove']);
    expect(existsSync(ours())).toBe(false);
  }, 60_000);

  test('a configuration that dnsmasq would not start with is taken back', async () => {
    viewer.etc('resolv.conf', 'nameserver 127.0.0.1\n');
    await startNode();
    await startDnsmasq(['interface=lo', 'bind-interfaces']);
    // Somebody broke its configuration while it ran: a restart now would leave the host without DNS.
    writeFileSync(join(folder(), 'broken.conf'), 'no-such-option\n');
    const refused = await viewer.thicket(['dns', 'install'], { check: false });
    expect(refused.code).toBe(1);
    expect(refused.stderr).toMatch(/^thicket: [^\n]*bad option[^\n]*$/);
    expect(existsSync(ours())).toBe(false);
    expect(readFileSync(join(folder(), 'broken.conf'), 'utf8')).toBe('no-such-option\n');
  }, 60_000);
});
