/** Ways into the overlay: what belongs to it, and dials that are given up. */
import { Duplex } from 'node:stream';
import { expect, test } from '@jest/globals';
import type { UserSpace } from '../../ts/dataplane/index.js';
import { isThicketError, ThicketError } from '../../ts/errors.js';
import type { AddressPool, Subject } from '../../ts/naming/index.js';
import { type Clock, ms } from '../../ts/node/clock.js';
import { Outward } from '../../ts/node/outward.js';
import type { Resolver } from '../../ts/node/resolver.js';
import { Uplink } from '../../ts/node/uplink.js';

const KEY = 'q'.repeat(51).concat('a');
const CAMERA: Subject = { kind: 'name', name: 'camera', network: KEY as never };

/** A pool in which two addresses are somebody's. */
const pool = {
  first: { v4: '198.18.0.1' },
  lookup: (address: string): Subject | undefined =>
    ({ '198.18.0.7': CAMERA, '198.18.0.8': { kind: 'own', key: KEY } as unknown as Subject })[address],
} as unknown as AddressPool;

function outward(dial: UserSpace['dial'] = () => new Duplex()): { outward: Outward; asked: unknown[] } {
  const asked: unknown[] = [];
  const resolver = {
    address: async (name: string) => {
      asked.push(name);
      return { v4: '198.18.0.7' };
    },
    wanted: async (subject: Subject) => {
      asked.push(subject);
    },
  } as unknown as Resolver;
  return { outward: new Outward({ pool, userspace: { dial } as UserSpace, resolver, domain: 'thicket' }), asked };
}

test('programs that do not know what belongs to the overlay are let through to that, and to nothing else', async () => {
  const { outward: way, asked } = outward();
  expect(await way.find('Camera.Home.Thicket.')).toBe('198.18.0.7');
  expect(await way.find('198.18.0.7')).toBe('198.18.0.7');
  expect(asked).toEqual(['Camera.Home.Thicket.', CAMERA]);
  // Without the domain, the domain alone is not there to be found, an endpoint of our own, our own address, and others.
  for (const host of [
    'camera.home',
    'example.com',
    'thicket.example.com',
    '198.18.0.8',
    '198.18.0.1',
    '198.18.0.9',
    '127.0.0.1',
    '::1',
    '',
  ]) {
    const error: unknown = await way.find(host).catch((reason: unknown) => reason);
    expect([host, isThicketError(error) && error.code]).toEqual([host, 'REFUSED']);
  }
  expect(asked.length).toBe(2);
});

test('a stream that is given up before it is connected is destroyed', async () => {
  const dialled: Duplex[] = [];
  const { outward: way } = outward(() => {
    const stream = new Duplex({ read: () => {} });
    dialled.push(stream);
    return stream;
  });
  const abort = new AbortController();
  const connecting = way.connect('198.18.0.7', 80, abort.signal);
  abort.abort();
  await expect(connecting).rejects.toBeInstanceOf(ThicketError);
  expect(dialled.map(({ destroyed }) => destroyed)).toEqual([true]);
  await expect(way.connect('198.18.0.7', 80, abort.signal)).rejects.toMatchObject({ name: 'AbortError' });
  expect(dialled.length).toBe(1);
});

test('the tree is waited for until it is in reach, or patience is over', async () => {
  const timers: (() => void)[] = [];
  const clock = {
    after: (_delay: number, run: () => void) => {
      timers.push(run);
      return () => timers.splice(timers.indexOf(run), 1);
    },
  } as unknown as Clock;
  let up = true;
  const uplink = new Uplink({ isUp: () => up, clock });
  await uplink.wait(ms(10));
  expect(timers).toEqual([]);
  up = false;
  let waited = 0;
  const both = [uplink.wait(ms(10)), uplink.wait(ms(10))].map((wait) => wait.then(() => (waited += 1)));
  await Promise.resolve();
  expect([waited, timers.length]).toEqual([0, 2]);
  timers[0]?.();
  await both[0];
  expect(waited).toBe(1);
  uplink.rose();
  await both[1];
  expect(waited).toBe(2);
});
