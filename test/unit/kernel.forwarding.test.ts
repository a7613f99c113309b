import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { closeForwarding, openedBy, openForwarding, type Wanted } from '../../ts/kernel/forwarding.js';
import { Sysctls } from '../../ts/kernel/sysctls.js';

let folder: string;
const place = { boot: 'this boot', namespace: 'net:[1]' };

/** A kernel's parameters: a tree of files. */
function parameters(values: Readonly<Record<string, string>>): void {
  for (const [path, value] of Object.entries(values)) {
    const file = join(folder, 'sys', path);
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, `${value}\n`);
  }
}

const value = (path: string): string => readFileSync(join(folder, 'sys', path), 'utf8').trim();
const sysctls = (at = place): Sysctls => new Sysctls({ file: join(folder, 'host.json'), root: join(folder, 'sys'), place: at });

const tun4 = 'net/ipv4/conf/thicket0/forwarding';
const lan4 = 'net/ipv4/conf/lan0/forwarding';
const wanted: Wanted = { tun: 'thicket0', lan4: ['lan0'], lan6: [], loopback: false };
const nothing: Wanted = { tun: 'thicket0', lan4: [], lan6: [], loopback: false };

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'thicket-sysctls-'));
});
afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

describe('kernel parameters', () => {
  test('are restored by a later run after a crash, to what they were before the first change', () => {
    parameters({ [lan4]: '0' });
    sysctls().set(lan4, '1');
    const next = sysctls();
    next.set(lan4, '1');
    next.restoreAll();
    expect(value(lan4)).toBe('0');
    expect(existsSync(join(folder, 'host.json'))).toBe(false);
  });

  test('are not changed when their values cannot be put on disk first', () => {
    parameters({ [lan4]: '0' });
    const all = new Sysctls({ file: join(folder, 'missing', 'host.json'), root: join(folder, 'sys'), place });
    expect(() => all.set(lan4, '1')).toThrow(/can't be written/);
    expect(value(lan4)).toBe('0');
  });

  test('of another boot or namespace are not restored', () => {
    parameters({ [lan4]: '0' });
    sysctls().set(lan4, '1');
    for (const other of [
      { ...place, boot: 'next' },
      { ...place, namespace: 'net:[2]' },
    ]) {
      expect(sysctls(other).changed()).toEqual([]);
    }
    expect(sysctls().changed()).toEqual([lan4]);
  });

  test('of an interface that is gone are no errors', () => {
    parameters({ [lan4]: '0' });
    const all = sysctls();
    all.set(lan4, '1');
    rmSync(join(folder, 'sys', lan4));
    all.restoreAll();
    expect(all.changed()).toEqual([]);
  });

  test('a damaged file says so', () => {
    writeFileSync(join(folder, 'host.json'), '{"boot":', { mode: 0o600 });
    expect(sysctls).toThrow(/damaged/);
  });
});

describe('forwarding', () => {
  test('is turned on for the TUN and the interfaces in use, and off again when none is', () => {
    parameters({ [tun4]: '0', [lan4]: '0', 'net/ipv4/conf/wan0/forwarding': '0' });
    const all = sysctls();
    expect(openedBy(all, wanted)).toEqual({ v4: ['lan0'], v6: [] });
    openForwarding(all, wanted);
    expect([tun4, lan4, 'net/ipv4/conf/wan0/forwarding'].map(value)).toEqual(['1', '1', '0']);
    closeForwarding(all, nothing);
    expect([tun4, lan4].map(value)).toEqual(['0', '0']);
    expect(openedBy(all, nothing)).toEqual({ v4: [], v6: [] });
  });

  test('that was on before stays on, and the firewall leaves that interface alone', () => {
    parameters({ [tun4]: '1', [lan4]: '1' });
    const all = sysctls();
    expect(openedBy(all, wanted)).toEqual({ v4: [], v6: [] });
    openForwarding(all, wanted);
    closeForwarding(all, nothing);
    expect(value(lan4)).toBe('1');
  });

  test('left on by a crash is known to the firewall before any service is', () => {
    parameters({ [tun4]: '0', [lan4]: '0' });
    openForwarding(sysctls(), wanted);
    expect(openedBy(sysctls(), nothing)).toEqual({ v4: ['lan0'], v6: [] });
  });

  test('of loopback targets opens the TUN only', () => {
    parameters({ 'net/ipv4/conf/thicket0/route_localnet': '0', 'net/ipv4/conf/lan0/route_localnet': '0' });
    const all = sysctls();
    openForwarding(all, { ...nothing, loopback: true });
    expect(value('net/ipv4/conf/thicket0/route_localnet')).toBe('1');
    expect(value('net/ipv4/conf/lan0/route_localnet')).toBe('0');
    closeForwarding(all, nothing);
    expect(value('net/ipv4/conf/thicket0/route_localnet')).toBe('0');
  });

  const all6 = 'net/ipv6/conf/all/forwarding';
  const wanted6: Wanted = { ...nothing, lan6: ['lan0'] };

  test('of IPv6 is per interface where the kernel can', () => {
    const force = (name: string): string => `net/ipv6/conf/${name}/force_forwarding`;
    parameters({ [all6]: '0', [force('lo')]: '0', [force('lan0')]: '0', [force('thicket0')]: '0' });
    const all = sysctls();
    expect(openedBy(all, wanted6)).toEqual({ v4: [], v6: ['lan0'] });
    openForwarding(all, wanted6);
    expect([all6, force('lan0'), force('thicket0'), force('lo')].map(value)).toEqual(['0', '1', '1', '0']);
    closeForwarding(all, nothing);
    expect([force('lan0'), force('thicket0')].map(value)).toEqual(['0', '0']);
  });

  test('of IPv6 for all interfaces keeps taking router advertisements, and puts each interface back', () => {
    const of = (name: string, parameter: string): string => `net/ipv6/conf/${name}/${parameter}`;
    const before = {
      [all6]: '0',
      [of('default', 'forwarding')]: '0',
      [of('default', 'accept_ra')]: '0',
      [of('lan0', 'forwarding')]: '0',
      [of('lan0', 'accept_ra')]: '0',
      [of('wan0', 'forwarding')]: '0',
      [of('wan0', 'accept_ra')]: '1',
      [of('vpn0', 'forwarding')]: '1',
      [of('vpn0', 'accept_ra')]: '0',
    };
    parameters(before);
    const all = sysctls();
    expect(openedBy(all, wanted6).v6).toBe('all');
    openForwarding(all, wanted6);
    expect(value(all6)).toBe('1');
    expect(value(of('wan0', 'accept_ra'))).toBe('2');
    expect(openedBy(all, wanted6).v6).toBe('all');
    // As the kernel does it, in both directions.
    parameters({ [of('lan0', 'forwarding')]: '1', [of('wan0', 'forwarding')]: '1', [of('default', 'forwarding')]: '1' });
    closeForwarding(all, nothing);
    expect(Object.keys(before).map(value)).toEqual(Object.values(before));
    expect(existsSync(join(folder, 'host.json'))).toBe(false);
  });

  test('of IPv6 that somebody else turned on is left to them', () => {
    parameters({ [all6]: '1', 'net/ipv6/conf/lan0/forwarding': '1' });
    expect(openedBy(sysctls(), wanted6)).toEqual({ v4: [], v6: [] });
  });
});
