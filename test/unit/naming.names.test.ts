import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { firstAddress, formatName, parseName, reverseZones } from '../../ts/naming/index.js';
import { KeyPair } from '../../ts/trust/index.js';

const { publicKey: key } = KeyPair.generate();
const { publicKey: network } = KeyPair.generate();
const label = fc.stringMatching(/^[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?$/);

describe('parseName', () => {
  test.each([
    [`${key}.thicket`, { kind: 'key', key }],
    [`${key.toUpperCase()}.THICKET.`, { kind: 'key', key }],
    ['camera.home.thicket', { kind: 'name', name: 'camera', network: 'home' }],
    ['Camera.GW.Home.thicket.', { kind: 'name', name: 'camera.gw', network: 'home' }],
    [`camera.${network}.thicket`, { kind: 'name', name: 'camera', network }],
    ['thicket', { kind: 'apex', network: undefined }],
    ['home.thicket.', { kind: 'apex', network: 'home' }],
  ])('reads %s', (text, parsed) => {
    expect(parseName(text, 'thicket')).toEqual(parsed);
  });

  test.each([
    '',
    '.',
    'camera.home',
    key,
    'example.com',
    'a.b.c.home.thicket',
    'camera..thicket',
    '-camera.home.thicket',
    'cam_era.home.thicket',
    'camera.home.thicket..',
    'camera.home.thicket.example',
    `${'x'.repeat(64)}.home.thicket`,
    'cämera.home.thicket',
    'camera home.thicket',
  ])('refuses "%s"', (text) => {
    expect(parseName(text, 'thicket')).toBeUndefined();
  });

  test('takes names without the domain where that is asked for', () => {
    const bare = (text: string) => parseName(text, 'thicket', { bare: true });
    expect(bare(key)).toEqual({ kind: 'key', key });
    expect(bare('camera.home')).toEqual({ kind: 'name', name: 'camera', network: 'home' });
    expect(bare('camera.gw.home.')).toEqual({ kind: 'name', name: 'camera.gw', network: 'home' });
    expect(bare('camera.home.thicket')).toEqual({ kind: 'name', name: 'camera', network: 'home' });
    expect(bare('camera')).toBeUndefined();
  });

  test('52 characters that are no key name nobody', () => {
    // The last character of a key holds one bit only: the others must be zero.
    expect(parseName(`${key.slice(0, 51)}b.thicket`, 'thicket')).not.toMatchObject({ kind: 'key' });
  });

  test('reads back what formatName writes', () => {
    const name = fc.oneof(
      fc.record({
        kind: fc.constant('name' as const),
        name: fc.array(label, { minLength: 1, maxLength: 2 }).map((l) => l.join('.')),
        network: label,
      }),
      fc.uint8Array({ minLength: 32, maxLength: 32 }).map((seed) => ({ kind: 'key' as const, key: KeyPair.fromSeed(seed).publicKey })),
    );
    fc.assert(fc.property(name, (n) => expect(parseName(formatName(n, 'thicket'), 'thicket')).toEqual(n)));
  });

  test('never throws', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 300 }), fc.boolean(), (text, bare) => void parseName(text, 'thicket', { bare })),
    );
  });
});

describe('pool ranges', () => {
  test.each([
    ['198.18.0.0/15', ['18.198.in-addr.arpa', '19.198.in-addr.arpa']],
    ['10.0.0.0/8', ['10.in-addr.arpa']],
    ['10.1.2.0/24', ['2.1.10.in-addr.arpa']],
    ['10.1.2.8/31', ['8.2.1.10.in-addr.arpa', '9.2.1.10.in-addr.arpa']],
    ['fd12:3456:789a:bcde::/64', ['e.d.c.b.a.9.8.7.6.5.4.3.2.1.d.f.ip6.arpa']],
  ])('the reverse zones of %s', (cidr, zones) => {
    expect(reverseZones(cidr)).toEqual(zones);
  });

  test('the first address is behind the network address', () => {
    expect(firstAddress('198.18.0.0/15')).toBe('198.18.0.1');
    expect(firstAddress('fd12:3456:789a:bcde::/64')).toBe('fd12:3456:789a:bcde::1');
    expect(() => firstAddress('10.0.0.0/30')).toThrow(/too small/);
  });
});
