import { describe, expect, test } from '@jest/globals';
import { natMaps } from '../../ts/gateway/nat/index.js';
import { serviceCommands, tableCommands, tableName } from '../../ts/kernel/ruleset.js';

const fence = {
  interface: 'thicket0',
  pool4: '198.18.0.0/15',
  pool6: 'fd12:3456:789a:1::/64',
  own4: '198.18.0.1',
  own6: 'fd12:3456:789a:1::1',
  dnsPort: 53,
};
const closed = { v4: [], v6: [] };
const none = { services: [], echo: [] };
const service = { endpoint4: '198.18.1.1', protocol: 'tcp', port: 554, target: { host: '192.168.1.20', port: 8554 } } as const;

describe('the table', () => {
  test('is thicket for the default interface, and no two others share a name', () => {
    expect(tableName('thicket0')).toBe('thicket');
    const names = ['a-b', 'a_b', 'ab', 'a.b', 'a_2d_b', 'a2db'].map(tableName);
    expect(new Set(names).size).toBe(names.length);
    for (const name of names) expect(name).toMatch(/^thicket_[A-Za-z0-9_]+$/);
  });

  test('names no IPv6 address where there is none', () => {
    expect(tableCommands({ ...fence, pool6: undefined, own6: undefined }, closed, [])).not.toContain('fd12');
  });

  test('opens an interface for nothing but the overlay', () => {
    const text = tableCommands(fence, { v4: ['lan0', 'eth1'], v6: 'all' }, []);
    expect(text).toContain('meta nfproto ipv4 iifname { "lan0", "eth1" } counter drop');
    expect(text).toContain('meta nfproto ipv6 counter drop');
  });

  test('starts with the peers that programs are connected to', () => {
    const text = tableCommands(fence, closed, ['198.18.0.9', 'fd12:3456:789a:1::9']);
    expect(text).toMatch(/set dialled4 .*elements = \{ 198\.18\.0\.9 \}/);
    expect(text).toMatch(/set dialled6 .*elements = \{ fd12:3456:789a:1::9 \}/);
  });

  test('takes no interface name that nft would read as something else', () => {
    for (const name of ['lan*', 'a"b', 'a b', '']) {
      expect(() => tableCommands({ ...fence, interface: name }, closed, [])).toThrow(/rename the interface/);
      expect(() => serviceCommands('thicket0', none, none, { v4: [name], v6: [] })).toThrow(/rename the interface/);
    }
  });
});

describe('services', () => {
  test('become elements of the maps, and echo goes to the first', () => {
    const second = { ...service, port: 80, target: { host: '192.168.1.22', port: 80 } };
    const text = serviceCommands('thicket0', natMaps([service, second]), none, closed);
    expect(text.split('\n')).toEqual([
      'flush map inet thicket services4',
      'add element inet thicket services4 { 198.18.1.1 . tcp . 554 : 192.168.1.20 . 8554, 198.18.1.1 . tcp . 80 : 192.168.1.22 . 80 }',
      'flush map inet thicket services6',
      'flush map inet thicket echo4',
      'add element inet thicket echo4 { 198.18.1.1 : 192.168.1.20 }',
      'flush map inet thicket echo6',
      'flush chain inet thicket opened',
    ]);
  });

  test('with an IPv6 target take the IPv6 address of the endpoint', () => {
    const target = { host: 'fd00::20', port: 80 };
    expect(natMaps([{ ...service, endpoint6: 'fd12:3456:789a:1::5', target }]).services[0]?.endpoint).toBe('fd12:3456:789a:1::5');
    expect(() => natMaps([{ ...service, target }])).toThrow(/needs IPv6/);
  });

  test('that claim one port for two targets are refused, the same one twice is one', () => {
    expect(natMaps([service, service]).services).toHaveLength(1);
    const other = { ...service, target: { host: '192.168.1.21', port: 8554 } };
    expect(() => natMaps([service, other])).toThrow(/two targets/);
  });

  test('never become commands', () => {
    const target = { host: '192.168.1.20 }; flush ruleset; #', port: 80 };
    expect(() => serviceCommands('thicket0', natMaps([{ ...service, target }]), none, closed)).toThrow();
  });
});
