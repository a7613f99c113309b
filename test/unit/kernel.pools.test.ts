import { describe, expect, test } from '@jest/globals';
import { type InterfaceAddress, ROUTE_PROTOCOL, type Route } from '../../ts/kernel/kernel-net.js';
import { contains, network, occupant } from '../../ts/kernel/pools.js';

const pool4 = '198.18.0.0/15';
const pool6 = 'fd12:3456:789a:1::/64';

const route = (destination: string, more: Partial<Route> = {}): Route => ({
  destination,
  type: 'unicast',
  metric: 0,
  table: 254,
  protocol: 3,
  interface: 'eth0',
  ...more,
});

const taken = (addresses: readonly InterfaceAddress[], routes: readonly Route[]): string | undefined =>
  occupant([pool4, pool6], { interface: 'thicket0' }, addresses, routes)?.by;

describe('whether a pool is free', () => {
  test.each([
    ['equal', '198.18.0.0/15'],
    ['inside', '198.19.7.0/24'],
    ['covering', '198.16.0.0/12'],
    ['one address', '198.18.0.9/32'],
    ['IPv6, covering', 'fd00::/8'],
    ['IPv6, inside', 'fd12:3456:789a:1:8000::/65'],
  ])('a route that overlaps it occupies it: %s', (_, destination) => {
    expect(taken([], [route(destination)])).toBe(`${destination} is routed through eth0`);
  });

  test.each(['0.0.0.0/0', '128.0.0.0/1', '198.20.0.0/15', '::/0', '8000::/1', 'fd12:3456:789a:2::/64'])(
    'default routes, their halves and neighbours leave it free: %s',
    (destination) => {
      expect(taken([], [route(destination)])).toBeUndefined();
    },
  );

  test('a route in another table counts, and is named with its table', () => {
    expect(taken([], [route('198.18.0.0/24', { table: 51820 })])).toBe('198.18.0.0/24 is routed through eth0 in table 51820');
  });

  test("somebody else's blackhole occupies it, our own from a crash does not", () => {
    const { interface: _, ...blackhole } = route(pool4, { type: 'blackhole' });
    expect(taken([], [blackhole])).toBe('198.18.0.0/15 is a blackhole route');
    expect(taken([], [{ ...blackhole, protocol: ROUTE_PROTOCOL }])).toBeUndefined();
    expect(taken([], [{ ...blackhole, protocol: ROUTE_PROTOCOL, destination: '198.18.0.0/16' }])).toBeDefined();
  });

  test("another node's interface occupies it", () => {
    expect(taken([], [route(pool4, { interface: 'thicket1', protocol: ROUTE_PROTOCOL })])).toContain('thicket1');
  });

  test('an address in it occupies it', () => {
    const address = { interface: 'eth0', address: '198.19.255.254', prefix: 32 };
    expect(taken([address], [])).toBe('198.19.255.254 is an address of eth0');
    expect(taken([{ ...address, address: '192.168.1.1' }], [])).toBeUndefined();
  });
});

describe('prefixes', () => {
  test('are written as the kernel prints them', () => {
    expect(network('198.19.3.4/15')).toBe('198.18.0.0/15');
    expect(network('10.1.2.3/32')).toBe('10.1.2.3/32');
    expect(network('fd12:3456:789a:1::53/64')).toBe(pool6);
    expect(network('10.255.0.0/9')).toBe('10.128.0.0/9');
  });

  test('contain addresses of their own family only', () => {
    expect(contains(pool4, '198.19.0.1')).toBe(true);
    expect(contains(pool4, '198.20.0.1')).toBe(false);
    expect(contains(pool4, 'fd12::1')).toBe(false);
  });
});
