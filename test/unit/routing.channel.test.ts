/** The channel between two neighbours: every frame once and in order, whatever the link loses. */
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { Channel } from '../../ts/routing/channel.js';
import { type Announced, decodeFrame } from '../../ts/routing/frames.js';
import { Random } from '../sim/random.js';

interface Sides {
  readonly a: Channel;
  readonly b: Channel;
  readonly arrived: Uint8Array[];
  sent: number;
  /** Takes nothing of what comes. */
  deaf: boolean;
  step(): void;
}

function bodies(channel: Channel): Uint8Array[] {
  const found: Uint8Array[] = [];
  for (let body = channel.take(); body !== undefined; body = channel.take()) found.push(body);
  return found;
}

/** Two channels over a wire that delays, loses and doubles; time in steps of 20 ms. */
function connect(seed: number, loss: number): Sides {
  const random = new Random(seed);
  let now = 0;
  const wire: { at: number; to: 'a' | 'b'; frame: Uint8Array }[] = [];
  const sides: Sides = {
    a: new Channel({ send: (frame) => post('b', frame), now: () => now, most: () => 4_096 }),
    b: new Channel({ send: (frame) => post('a', frame), now: () => now, most: () => 4_096 }),
    arrived: [],
    sent: 0,
    deaf: false,
    step: () => {
      now += 20;
      for (const { to, frame } of wire.filter((f) => f.at <= now)) {
        const decoded = decodeFrame(frame);
        if (decoded?.kind === 'acknowledged') sides[to].acknowledged(decoded);
        if (decoded?.kind === 'numbered') {
          sides[to].receive(decoded);
          const ready = sides.deaf ? [] : bodies(sides[to]);
          sides[to].acknowledge();
          if (to === 'b') sides.arrived.push(...ready);
        }
      }
      wire.splice(0, wire.length, ...wire.filter((f) => f.at > now));
      sides.a.tick();
      sides.b.tick();
    },
  };
  function post(to: 'a' | 'b', frame: Uint8Array): void {
    sides.sent += 1;
    for (let copy = random.chance(0.05) ? 2 : 1; copy > 0; copy -= 1) {
      if (!random.chance(loss)) wire.push({ at: now + 10 + random.below(120), to, frame });
    }
  }
  return sides;
}

describe('a channel', () => {
  test('delivers everything once and in order, over a wire that loses, doubles and reorders', () => {
    fc.assert(
      fc.property(fc.nat(), fc.constantFrom(0, 0.1, 0.3), fc.integer({ min: 1, max: 120 }), (seed, loss, count) => {
        const sides = connect(seed, loss);
        for (let n = 0; n < count; n += 1) {
          sides.a.push(Uint8Array.of(100, n));
          if (n % 7 === 0) sides.step();
        }
        for (let steps = 0; sides.a.waiting > 0 && steps < 3_000; steps += 1) sides.step();
        expect(sides.arrived.map((frame) => frame[1])).toEqual(Array.from({ length: count }, (_, n) => n));
      }),
      { numRuns: 40 },
    );
  });

  test('packs announcements into few frames and keeps their order among other frames', () => {
    const sides = connect(1, 0.2);
    const items = Array.from({ length: 50 }, (_, n): Announced => ({ type: 'edge', bytes: new Uint8Array(240).fill(n) }));
    sides.a.announce(items.slice(0, 30));
    sides.a.push(Uint8Array.of(100, 1));
    sides.a.announce(items.slice(30));
    for (let steps = 0; sides.a.waiting > 0 && steps < 3_000; steps += 1) sides.step();
    const seen: (number | undefined)[] = [];
    for (const body of sides.arrived) {
      const frame = decodeFrame(body);
      if (frame?.kind === 'announce') seen.push(...frame.items.map((item) => item.bytes[0]));
      else seen.push(1_000);
    }
    expect(seen).toEqual([...Array.from({ length: 30 }, (_, n) => n), 1_000, ...Array.from({ length: 20 }, (_, n) => 30 + n)]);
    expect(sides.arrived.length).toBeLessThanOrEqual(16);
  });

  test('lets urgent frames overtake what waits for room', () => {
    const sides = connect(2, 0);
    for (let n = 0; n < 100; n += 1) sides.a.push(Uint8Array.of(100, n));
    sides.a.pushUrgent(Uint8Array.of(100, 255));
    for (let steps = 0; sides.a.waiting > 0 && steps < 3_000; steps += 1) sides.step();
    const at = sides.arrived.findIndex((frame) => frame[1] === 255);
    expect(at).toBe(32);
    expect(sides.arrived.length).toBe(101);
  });

  test('on a clean wire repeats nothing, however slow it is', () => {
    const sides = connect(3, 0);
    for (let round = 0; round < 50; round += 1) {
      sides.a.push(Uint8Array.of(100, round));
      for (let n = 0; n < 20; n += 1) sides.step();
    }
    // Each frame and its acknowledgement; the wire doubles none of what is counted here.
    expect(sides.sent).toBeLessThanOrEqual(50 * 2 + 10);
  });

  test('keeps no more ahead of its turn than a window, whatever the other side sends', () => {
    const acks: Uint8Array[] = [];
    const channel = new Channel({ send: (frame) => acks.push(frame), now: () => 0, most: () => 4_096 });
    for (let number = 1; number < 5_000; number += 1) channel.receive({ kind: 'numbered', number, body: Uint8Array.of(1) });
    channel.receive({ kind: 'numbered', number: 0, body: Uint8Array.of(0) });
    expect(bodies(channel).length).toBe(32);
    // Old and absurd numbers are acknowledged and forgotten.
    channel.receive({ kind: 'numbered', number: 3, body: Uint8Array.of(3) });
    channel.receive({ kind: 'numbered', number: 0xffff_ffff, body: Uint8Array.of(3) });
    channel.acknowledge();
    expect(bodies(channel)).toEqual([]);
    expect(acks.length).toBe(1);
    channel.acknowledged({ kind: 'acknowledged', next: 0xffff_ffff, later: 0xffff_ffff });
  });

  test('whose other side has no time stops at a window, and goes on where it stopped', () => {
    const sides = connect(4, 0.1);
    sides.deaf = true;
    for (let n = 0; n < 100; n += 1) sides.a.push(Uint8Array.of(100, n));
    for (let n = 0; n < 500; n += 1) sides.step();
    const sent = sides.sent;
    for (let n = 0; n < 500; n += 1) sides.step();
    // Only the frame whose turn it is is repeated, ever more rarely.
    expect(sides.sent - sent).toBeLessThan(20);
    expect(sides.a.waiting).toBeGreaterThanOrEqual(100 - 31);
    sides.deaf = false;
    for (let steps = 0; sides.a.waiting > 0 && steps < 3_000; steps += 1) sides.step();
    expect(sides.arrived.map((frame) => frame[1])).toEqual(Array.from({ length: 100 }, (_, n) => n));
    expect(sides.a.failure).toBeUndefined();
  });

  test('gives up a neighbour that acknowledges nothing for a minute, and holds a bounded heap for it until then', () => {
    let now = 0;
    const channel = new Channel({ send: () => {}, now: () => now, most: () => 4_096 });
    for (let n = 0; n < 1_000_000; n += 1) channel.pushUrgent(Uint8Array.of(7, 0, 0, 1, 0, 1));
    expect(channel.waiting).toBeLessThan(20_000);
    expect(channel.dropped).toBeGreaterThan(980_000);
    for (now = 0; now < 59_000; now += 200) channel.tick();
    expect(channel.failure).toBeUndefined();
    for (; now < 61_000; now += 200) channel.tick();
    expect(channel.failure).toBe('it acknowledges nothing');
  });

  test('gives up a neighbour for which more waits than may', () => {
    const channel = new Channel({ send: () => {}, now: () => 0, most: () => 4_096 });
    for (let n = 0; n < 5_000; n += 1) channel.push(Uint8Array.of(100));
    expect(channel.failure).toBe('it takes less than there is to say');
    expect(channel.waiting).toBeLessThan(4_200);
  });
});
