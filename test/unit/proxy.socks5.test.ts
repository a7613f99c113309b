/** SOCKS5's messages: what is encoded is read back, half a message is never taken for one, and no bytes at all make a reader throw. */
import { isIP } from 'node:net';
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import ipaddr from 'ipaddr.js';
import {
  type Datagram,
  encodeDatagram,
  encodeReply,
  encodeTarget,
  type Read,
  Reply,
  readDatagram,
  readGreeting,
  readRequest,
  type Target,
} from '../../ts/proxy/socks5.js';

const Port = fc.integer({ min: 1, max: 65_535 });
const V4 = fc.ipV4().map((text) => ipaddr.process(text).toString());
const V6 = fc.ipV6().map((text) => ipaddr.process(text).toString());
const Name = fc
  .uint8Array({ minLength: 1, maxLength: 255 })
  .map((bytes) => Buffer.from(bytes).toString('latin1'))
  .filter((name) => isIP(name) === 0);
const AnyTarget: fc.Arbitrary<Target> = fc.record({ host: fc.oneof(V4, V6, Name, fc.domain()), port: Port });
const Bytes = fc.uint8Array({ maxLength: 600 });

const request = (command: number, target: Target): Uint8Array => Buffer.concat([Uint8Array.of(5, command, 0), encodeTarget(target)]);

/** Every beginning of a message wants more, and what follows it isn't part of it. */
function expectWhole<T>(read: (bytes: Uint8Array) => Read<T>, message: Uint8Array, after: Uint8Array, value: T): void {
  for (let length = 0; length < message.length; length += 1) expect(read(message.subarray(0, length))).toEqual({ state: 'more' });
  expect(read(Buffer.concat([message, after]))).toEqual({ state: 'done', value, length: message.length });
}

describe('read as written', () => {
  test('greetings', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 255 }), Bytes, (methods, after) =>
        expectWhole(readGreeting, Uint8Array.of(5, methods.length, ...methods), after, [...methods]),
      ),
    );
  });

  test('requests', () => {
    fc.assert(
      fc.property(fc.constantFrom('connect' as const, 'associate' as const), AnyTarget, Bytes, (command, target, after) =>
        expectWhole(readRequest, request(command === 'connect' ? 1 : 3, target), after, { command, ...target }),
      ),
    );
  });

  test('datagrams', () => {
    const AnyDatagram: fc.Arbitrary<Datagram> = fc.record({ host: fc.oneof(V4, V6), port: Port, data: Bytes });
    fc.assert(
      fc.property(AnyDatagram, (datagram) => {
        const read = readDatagram(encodeDatagram(datagram));
        expect({ ...read, data: Buffer.from(read?.data ?? []) }).toEqual({ ...datagram, data: Buffer.from(datagram.data) });
      }),
    );
  });

  test('as RFC 1928 lays them out', () => {
    expect(readRequest(Buffer.from('0501000412345678123456781234567812345678' + '01bb', 'hex'))).toEqual({
      state: 'done',
      value: { command: 'connect', host: '1234:5678:1234:5678:1234:5678:1234:5678', port: 443 },
      length: 22,
    });
    expect(readRequest(Buffer.from('0503000100000000' + '0000', 'hex'))).toEqual({
      state: 'done',
      value: { command: 'associate', host: '0.0.0.0', port: 0 },
      length: 10,
    });
    expect(Buffer.from(encodeReply(Reply.refused)).toString('hex')).toBe('05050001000000000000');
    expect(Buffer.from(encodeReply(Reply.succeeded, { host: '::1', port: 4_660 })).toString('hex')).toBe(`05000004${'0'.repeat(31)}11234`);
    expect(Buffer.from(encodeDatagram({ host: '198.18.0.7', port: 53, data: Buffer.from('ab') })).toString('hex')).toBe(
      '00000001c6120007' + '0035' + '6162',
    );
  });

  test('an IPv4 address as such, whichever way it is written', () => {
    const mapped = Buffer.concat([Uint8Array.of(5, 1, 0, 4), Buffer.from('00000000000000000000ffffc6120007', 'hex'), Uint8Array.of(0, 80)]);
    const name = Buffer.concat([Uint8Array.of(5, 1, 0, 3, 17), Buffer.from('::FFFF:198.18.0.7'), Uint8Array.of(0, 80)]);
    for (const bytes of [mapped, name])
      expect(readRequest(bytes)).toMatchObject({ state: 'done', value: { host: '198.18.0.7', port: 80 } });
  });
});

describe('turned down, with the reply that fits', () => {
  test.each([
    ['BIND', request(2, { host: '1.2.3.4', port: 5 }), Reply.commandUnknown],
    ['an unknown command', request(0xf0, { host: 'a.thicket', port: 5 }), Reply.commandUnknown],
    ['an unknown kind of address', Uint8Array.of(5, 1, 0, 2, 0, 0), Reply.addressUnknown],
    ['an empty name', Uint8Array.of(5, 1, 0, 3, 0, 0, 80), Reply.failed],
    ['no port', request(1, { host: '1.2.3.4', port: 0 }), Reply.failed],
    ['another version', Uint8Array.of(4, 1, 0), undefined],
  ])('%s', (_what, bytes, reply) => {
    expect(readRequest(bytes)).toMatchObject({ state: 'bad', reply });
  });

  test('HTTP and SOCKS4 are no greetings', () => {
    for (const bytes of [Buffer.from('CONNECT camera.home.thicket:80 HTTP/1.1\r\n'), Uint8Array.of(4, 1, 0, 80, 1, 2, 3, 4, 0)]) {
      expect(readGreeting(bytes)).toMatchObject({ state: 'bad' });
    }
  });

  test('fragments, and datagrams to nowhere', () => {
    const whole = encodeDatagram({ host: '198.18.0.7', port: 53, data: Buffer.from('ab') });
    const changed = (at: number, value: number): Uint8Array => Uint8Array.from(whole, (byte, index) => (index === at ? value : byte));
    expect(readDatagram(whole)).toBeDefined();
    for (const bytes of [changed(2, 1), changed(0, 1), changed(1, 1), changed(9, 0), changed(3, 9), whole.subarray(0, 9)]) {
      expect(readDatagram(bytes)).toBeUndefined();
    }
  });
});

test('any bytes at all are read without a throw, to legal values', () => {
  // Most random bytes end at the version: these get further.
  const Likely = fc
    .tuple(fc.constantFrom([5], [5, 1, 0], [5, 3, 0], [0, 0, 0]), fc.constantFrom([], [1], [3], [4]), Bytes)
    .map(([head, type, rest]) => Uint8Array.of(...head, ...type, ...rest));
  const legal = (target: Target | undefined): void => {
    if (target === undefined) return;
    expect(target.host.length).toBeGreaterThan(0);
    expect(target.port >= 0 && target.port <= 65_535).toBe(true);
    if (isIP(target.host) !== 0) expect(ipaddr.process(target.host).toString()).toBe(target.host);
  };
  fc.assert(
    fc.property(fc.oneof(Bytes, Likely), (bytes) => {
      const greeting = readGreeting(bytes);
      if (greeting.state === 'done') expect(greeting.length).toBeLessThanOrEqual(bytes.length);
      const read = readRequest(bytes);
      if (read.state === 'done') {
        expect(read.length).toBeLessThanOrEqual(bytes.length);
        legal(read.value);
      }
      legal(readDatagram(bytes));
    }),
    { numRuns: 20_000 },
  );
});

test('addresses written as names, in any form that Node.js takes for one, are read without a throw', () => {
  const Text = fc.oneof(
    fc.ipV4(),
    fc.ipV6(),
    fc.ipV4Extended(),
    fc.constantFrom('fe80::1%eth0', '::ffff:1.2.3.4', '::1.2.3.4', '::', '1::'),
  );
  fc.assert(
    fc.property(Text, (host) => {
      const name = Buffer.from(host, 'latin1');
      const read = readRequest(Uint8Array.of(5, 1, 0, 3, name.length, ...name, 0, 80));
      expect(read.state).toBe('done');
    }),
  );
});
