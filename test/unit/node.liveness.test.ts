/** When a link is doubted, and when it is given up. */
import { describe, expect, test } from '@jest/globals';
import type { LinkId, LinkStats } from '../../ts/dataplane/data-plane.js';
import { ms } from '../../ts/node/clock.js';
import { Liveness } from '../../ts/node/liveness.js';

const TICK = 200;

/** A link on which we send something with each tick, and whose far end last spoke at `heardUntil`. Tells what happens when. */
function silentFrom(heardUntil: number, answers: boolean): { readonly doubted: number | undefined; readonly dead: number | undefined } {
  let nonce = 0n;
  const liveness = new Liveness(ms(0), () => nonce++);
  let [rx, tx] = [0n, 0n];
  let doubted: number | undefined;
  for (let now = TICK; now < 20_000; now += TICK) {
    tx += 1n;
    if (now <= heardUntil) rx += 1n;
    const stats: LinkStats = { link: 1 as LinkId, rxBytes: rx, txBytes: tx, rxPackets: rx, txPackets: tx, idleMs: 0 };
    const { dead, frames } = liveness.tick(ms(now), stats);
    if (dead) return { doubted, dead: now };
    tx += BigInt(frames.length);
    for (const { bytes } of frames) {
      if (!answers) continue;
      rx += 1n;
      liveness.pong(ms(now + 50), Uint8Array.of(2, ...bytes.subarray(1)));
    }
    if (liveness.doubtful(ms(now))) doubted ??= now;
  }
  return { doubted, dead: undefined };
}

describe('liveness', () => {
  test('a far end that falls silent under traffic is doubted within 2 s and given up within 4.5 s', () => {
    const { doubted, dead } = silentFrom(1_000, false);
    expect(doubted).toBeGreaterThan(2_000);
    expect(doubted).toBeLessThanOrEqual(3_000);
    expect(dead).toBeGreaterThan(3_500);
    expect(dead).toBeLessThanOrEqual(5_500);
  });

  test('a far end that only answers questions is neither', () => {
    expect(silentFrom(1_000, true)).toEqual({ doubted: undefined, dead: undefined });
  });
});
