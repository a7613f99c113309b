/** Whether a far end owes us a sign, from counters alone. */
import { describe, expect, test } from '@jest/globals';
import { ms } from '../../ts/node/clock.js';
import { Liveness } from '../../ts/node/liveness.js';
import { Silence } from '../../ts/node/silence.js';

describe('silence', () => {
  test('begins with the first packet that is sent, and ends with whatever comes', () => {
    const silence = new Silence(ms(0));
    silence.note(ms(200), 0n, 0n);
    expect(silence.lasts(ms(200))).toBe(0);
    silence.note(ms(400), 0n, 3n);
    silence.note(ms(600), 0n, 5n);
    expect(silence.lasts(ms(1_000))).toBe(600);
    expect(silence.note(ms(1_200), 1n, 5n)).toBe(true);
    expect(silence.lasts(ms(1_200))).toBe(0);
  });

  test('is not what follows a probe, an answer to one, or a question and its answer', () => {
    const silence = new Silence(ms(0));
    silence.quiet();
    silence.note(ms(200), 0n, 1n);
    silence.noise();
    silence.quiet();
    silence.note(ms(400), 1n, 2n);
    expect(silence.lasts(ms(5_000))).toBe(0);
    expect(silence.unused(ms(5_000))).toBe(5_000);
    expect(silence.idle(ms(5_000))).toBe(4_600);
    silence.note(ms(5_200), 2n, 3n);
    expect(silence.lasts(ms(9_000))).toBe(0);
    expect(silence.unused(ms(5_200))).toBe(0);
  });

  test('is what follows a stream that stops', () => {
    const silence = new Silence(ms(0));
    for (let tick = 1n; tick <= 10n; tick += 1n) silence.note(ms(Number(tick) * 200), tick * 10n, tick * 5n);
    silence.note(ms(2_200), 100n, 50n);
    expect(silence.lasts(ms(4_000))).toBe(2_000);
  });

  test('counts a quiet packet that leaves late once', () => {
    const silence = new Silence(ms(0));
    silence.quiet();
    silence.note(ms(200), 0n, 0n);
    silence.note(ms(400), 0n, 1n);
    expect(silence.lasts(ms(600))).toBe(0);
    silence.note(ms(600), 0n, 2n);
    expect(silence.lasts(ms(800))).toBe(200);
  });
});

describe('two idle ends of a link', () => {
  test('ask each other nothing but what the child asks to keep its NAT open', () => {
    const ends = (['child', 'parent'] as const).map((side) => ({
      side,
      live: new Liveness(ms(0), () => 1n, side),
      rx: 0n,
      tx: 0n,
      asked: 0,
    }));
    for (let now = 200; now <= 600_000; now += 200) {
      for (const end of ends) {
        const other = ends.find((e) => e !== end);
        if (other === undefined) continue;
        const { frames, dead } = end.live.tick(ms(now), {
          link: 1 as never,
          rxBytes: 0n,
          txBytes: 0n,
          rxPackets: end.rx,
          txPackets: end.tx,
          idleMs: 0,
        });
        expect(dead).toBe(false);
        for (const { bytes } of frames) {
          end.asked += 1;
          end.tx += 1n;
          other.rx += 1n;
          other.live.noise();
          other.live.quiet();
          other.tx += 1n;
          end.rx += 1n;
          end.live.noise();
          end.live.pong(ms(now + 20), Uint8Array.of(2, ...bytes.subarray(1)));
        }
      }
    }
    const [child, parent] = ends.map((end) => end.asked);
    expect(child).toBeGreaterThanOrEqual(23);
    expect(child).toBeLessThanOrEqual(25);
    expect(parent).toBe(0);
  });
});
