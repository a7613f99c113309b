/** Look-ups in a routing table by key: what the first message of a session costs each relay, besides its labels. */
import { randomBytes } from 'node:crypto';
import { RoutingTable } from '../../ts/routing/index.js';
import { keyFromBytes, type PublicKey } from '../../ts/trust/index.js';
import { rate } from './measure.js';
import type { Micro } from './results.js';

/** Look-ups in one call: one alone is shorter than the call. */
const BATCH = 1_000;

/** Tables of made-up children: nothing here verifies a signature. */
export function routeRows(sizes: readonly number[], seconds: number): Micro['routes'] {
  return sizes.map((nodes) => {
    const table = new RoutingTable(key());
    const bytes = new Uint8Array(0);
    const nonce = new Uint8Array(16);
    const parent = key();
    const keys = Array.from({ length: nodes }, key);
    for (const child of keys) table.addChild({ child, parent, nonce, epoch: 1n, seq: 1n }, bytes, 0);
    let at = 0;
    const run = (): void => {
      for (let n = 0; n < BATCH; n += 1) {
        // A stride that visits all in no order that a cache could know.
        at = (at + 7_919) % nodes;
        if (table.via(keys[at] ?? parent) === undefined) throw new Error('a key that was added is not there');
      }
    };
    const { perSecond, margin } = rate(run, seconds);
    return { what: 'look-ups', nodes, perSecond: perSecond * BATCH, margin };
  });
}

const key = (): PublicKey => keyFromBytes(randomBytes(32));
