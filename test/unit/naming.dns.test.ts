import { afterAll, afterEach, beforeAll, describe, expect, jest, test } from '@jest/globals';
import { DnsBench, type Dug, key, network, REVERSE6, V6 } from './dns-bench.js';

// Each answer starts a `dig`, and other tests want the processors, too.
jest.setTimeout(30_000);

let bench: DnsBench;
const dig = (...args: string[]): Promise<Dug> => bench.dig(...args);

beforeAll(async () => {
  bench = await DnsBench.open();
});

afterAll(() => bench.close());

afterEach(() => bench.reset());

const SOA = expect.stringMatching(/^thicket\. 5 IN SOA thicket\. nobody\.thicket\. 1 3600 600 86400 5$/);

describe('forward', () => {
  test.each([
    ['camera.home.thicket', '198.18.3.4'],
    ['camera.gw.home.thicket', '198.18.3.5'],
    [`${key}.thicket`, '198.18.3.8'],
    [`camera.${network}.thicket`, '198.18.3.4'],
  ])('A and AAAA of %s', async (name, v4) => {
    const a = await dig(name, 'A');
    expect(a).toMatchObject({ status: 'NOERROR', answers: [`${name}. 60 IN A ${v4}`], authority: [] });
    expect(a.flags).toEqual(expect.arrayContaining(['qr', 'aa', 'rd']));
    expect(a.flags).not.toContain('tc');
    expect(await dig(name, 'AAAA')).toMatchObject({ status: 'NOERROR', answers: [`${name}. 60 IN AAAA ${V6}`] });
  });

  test('letter case does not matter and comes back as it was asked', async () => {
    const { answers, text } = await dig('CaMeRa.Home.THICKET', 'A');
    expect(answers).toHaveLength(1);
    expect(text).toContain(';CaMeRa.Home.THICKET.');
  });

  test('a name that exists has no data for a type it lacks: NOERROR with the SOA', async () => {
    for (const type of ['AAAA', 'MX', 'TXT', 'HTTPS', 'SRV', 'NS', 'TYPE4711']) {
      expect(await dig('v4only.home.thicket', type)).toMatchObject({ status: 'NOERROR', answers: [], authority: [SOA] });
    }
  });

  test('so have the apexes', async () => {
    for (const name of ['thicket', 'home.thicket']) {
      for (const type of ['A', 'AAAA', 'NS']) {
        expect(await dig(name, type)).toMatchObject({ status: 'NOERROR', answers: [], authority: [SOA] });
      }
    }
    expect(await dig('thicket', 'SOA')).toMatchObject({ status: 'NOERROR', answers: [SOA] });
    expect(bench.asked).toEqual([]);
  });

  test('unknown names are NXDOMAIN with the SOA; those that cannot exist are not looked up', async () => {
    expect(await dig('nobody.home.thicket')).toMatchObject({ status: 'NXDOMAIN', answers: [], authority: [SOA] });
    expect(bench.asked).toEqual(['nobody.home']);
    for (const name of [
      'camera.away.thicket',
      'away.thicket',
      'a.b.c.home.thicket',
      'cam_era.home.thicket',
      '_rtsp._tcp.home.thicket',
      'a\\.b.home.thicket',
    ]) {
      expect(await dig(name)).toMatchObject({ status: 'NXDOMAIN', authority: [SOA] });
    }
    expect(bench.asked).toEqual(['nobody.home']);
  });

  test('what cannot be told now is SERVFAIL, with the reason for dig', async () => {
    const { status, answers, authority, text } = await dig('lost.home.thicket');
    expect({ status, answers, authority }).toEqual({ status: 'SERVFAIL', answers: [], authority: [] });
    expect(text).toMatch(/EDE: 22 .*the tree is out of reach/);
    bench.resolve = () => Promise.reject(new Error('broken'));
    expect(await dig('camera.home.thicket')).toMatchObject({ status: 'SERVFAIL' });
  });

  test('other domains, classes and zone transfers are REFUSED', async () => {
    for (const args of [
      ['example.com'],
      ['.', 'NS'],
      ['camera.home.thicket.example'],
      ['version.bind', 'CH', 'TXT'],
      ['arpa', 'SOA'],
      ['camera.home.thicket', 'CH'],
    ]) {
      expect(await dig(...args)).toMatchObject({ status: 'REFUSED', answers: [], authority: [] });
    }
    expect((await dig('thicket', 'AXFR')).text).toMatch(/Transfer failed/);
    expect(bench.asked).toEqual([]);
  });

  test('ANY gives both addresses', async () => {
    const { answers } = await dig('camera.home.thicket', 'ANY');
    expect(answers).toEqual([`camera.home.thicket. 60 IN A 198.18.3.4`, `camera.home.thicket. 60 IN AAAA ${V6}`]);
  });
});

describe('backward', () => {
  test('PTR of pool addresses', async () => {
    expect(await dig('-x', '198.18.3.4')).toMatchObject({
      status: 'NOERROR',
      answers: ['4.3.18.198.in-addr.arpa. 60 IN PTR camera.home.thicket.'],
    });
    expect(await dig('-x', V6)).toMatchObject({ status: 'NOERROR', answers: [`${REVERSE6}. 60 IN PTR camera.home.thicket.`] });
  });

  test('a pool address without a name is NXDOMAIN, one of nobody REFUSED', async () => {
    const soa = (zone: string) => [expect.stringMatching(new RegExp(`^${zone}\\. 5 IN SOA`))];
    expect(await dig('-x', '198.18.3.9')).toMatchObject({ status: 'NXDOMAIN', authority: soa('18.198.in-addr.arpa') });
    expect(await dig('-x', '198.19.255.255')).toMatchObject({ status: 'NXDOMAIN', authority: soa('19.198.in-addr.arpa') });
    expect(await dig('-x', 'fd00:1:2:3::9')).toMatchObject({ status: 'NXDOMAIN' });
    for (const address of ['198.20.0.1', '198.17.255.255', '127.0.0.1', 'fd00:1:2:4::1', '::1']) {
      expect(await dig('-x', address)).toMatchObject({ status: 'REFUSED' });
    }
  });

  test('the zones have SOAs, and no data in between', async () => {
    expect((await dig('18.198.in-addr.arpa', 'SOA')).answers).toHaveLength(1);
    expect(await dig('3.18.198.in-addr.arpa', 'NS')).toMatchObject({
      status: 'NOERROR',
      answers: [],
      authority: [expect.stringMatching(/SOA/)],
    });
    expect(await dig('4.3.18.198.in-addr.arpa', 'A')).toMatchObject({
      status: 'NOERROR',
      answers: [],
      authority: [expect.stringMatching(/SOA/)],
    });
    for (const name of ['256.3.18.198.in-addr.arpa', '04.3.18.198.in-addr.arpa', '1.4.3.18.198.in-addr.arpa', 'x.18.198.in-addr.arpa']) {
      expect(await dig(name, 'PTR')).toMatchObject({ status: 'NXDOMAIN' });
    }
  });
});

describe('services', () => {
  test('SRV leads to the name and its port, addresses enclosed', async () => {
    const srv = await dig('_rtsp._tcp.camera.home.thicket', 'SRV');
    expect(srv.answers).toEqual(['_rtsp._tcp.camera.home.thicket. 60 IN SRV 0 0 554 camera.home.thicket.']);
    expect(srv.additional).toEqual(['camera.home.thicket. 60 IN A 198.18.3.4', `camera.home.thicket. 60 IN AAAA ${V6}`]);
    expect((await dig('_http._tcp.camera.home.thicket', 'SRV')).answers).toEqual([
      '_http._tcp.camera.home.thicket. 60 IN SRV 0 0 80 camera.home.thicket.',
      '_http._tcp.camera.home.thicket. 60 IN SRV 0 0 8080 camera.home.thicket.',
    ]);
  });

  test('a DNS-SD browser finds types, instances, ports and attributes', async () => {
    const types = await dig('_services._dns-sd._udp.camera.home.thicket', 'PTR');
    expect(types.answers.map((line) => line.split(' ').at(-1))).toEqual([
      '_http._tcp.camera.home.thicket.',
      '_rtsp._tcp.camera.home.thicket.',
    ]);
    const instances = await dig('_http._tcp.camera.home.thicket', 'PTR');
    expect(instances.answers.map((line) => line.split(' ').at(-1))).toEqual([
      'camera._http._tcp.camera.home.thicket.',
      'camera-8080._http._tcp.camera.home.thicket.',
    ]);
    expect((await dig('camera-8080._http._tcp.camera.home.thicket', 'SRV')).answers).toEqual([
      'camera-8080._http._tcp.camera.home.thicket. 60 IN SRV 0 0 8080 camera.home.thicket.',
    ]);
    expect((await dig('camera._rtsp._tcp.camera.home.thicket', 'TXT')).answers).toEqual([
      'camera._rtsp._tcp.camera.home.thicket. 60 IN TXT ""',
    ]);
  });

  test('a service that is not there does not exist; what lies above one that is does', async () => {
    for (const name of [
      '_mqtt._tcp.camera.home.thicket',
      '_rtsp._udp.camera.home.thicket',
      'other._rtsp._tcp.camera.home.thicket',
      '_rtsp._tcp.nobody.home.thicket',
    ]) {
      expect(await dig(name, 'SRV')).toMatchObject({ status: 'NXDOMAIN' });
    }
    expect(await dig('_tcp.camera.home.thicket', 'SRV')).toMatchObject({ status: 'NOERROR', answers: [], authority: [SOA] });
    expect(await dig('_rtsp._tcp.camera.home.thicket', 'A')).toMatchObject({ status: 'NOERROR', answers: [], authority: [SOA] });
    expect(await dig('_rtsp._tcp.lost.home.thicket', 'SRV')).toMatchObject({ status: 'SERVFAIL' });
  });
});
