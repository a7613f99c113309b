/** Handshakes with certificates, both ends and all checks, on one core. */
import { randomBytes } from 'node:crypto';
import { chainHash } from '../../ts/handshake/index.js';
import { NodeHandshakes } from '../../ts/node/handshakes.js';
import type { Handshakes } from '../../ts/node/ports.js';
import { BUILD_TIME, encodeCertificate, KeyPair } from '../../ts/trust/index.js';
import { type Measured, measure } from './measure.js';

export interface HandshakeRow extends Measured {
  readonly what: string;
}

const YEAR = 31_536_000;

function member(network: KeyPair, name: string): { readonly pair: KeyPair; readonly chain: Uint8Array; readonly handshakes: Handshakes } {
  const pair = KeyPair.generate();
  const rest = { groups: ['staff'], rights: [], delegable: [], serial: 1, issuedAt: BUILD_TIME, notAfter: BUILD_TIME + YEAR };
  const certificate = encodeCertificate({ network: network.publicKey, key: pair.publicKey, name, ...rest }, network);
  const handshakes = new NodeHandshakes({
    node: pair.publicKey,
    pair: (key) => (key === pair.publicKey ? pair : undefined),
    chain: () => ({ chain: [certificate], grant: undefined }),
    epoch: () => 1n,
    floor: () => BUILD_TIME,
    now: () => BUILD_TIME,
    generationOf: () => 0,
  });
  return { pair, chain: chainHash([certificate], undefined), handshakes };
}

/** Both ends of each kind; half of that is what one node does. */
export function handshakeRows(seconds: number): HandshakeRow[] {
  const network = KeyPair.generate();
  const [a, b] = [member(network, 'a'), member(network, 'b')];
  const binding = randomBytes(32);
  const admit = (): void => {};
  const kinds: Readonly<Record<string, () => unknown>> = {
    link: () => {
      const call = a.handshakes.initiateLink(b.pair.publicKey, 1);
      return call.finish(b.handshakes.respondLink(call.datagram, 2, admit).datagram);
    },
    session: () => {
      const call = a.handshakes.initiateSession(a.pair.publicKey, b.pair.publicKey);
      return call.finish(b.handshakes.respondSession(b.pair.publicKey, call.message, admit).message);
    },
    rekey: () => {
      const call = a.handshakes.initiateRekey(a.pair.publicKey, b.pair.publicKey, binding, 0);
      return call.finish(b.handshakes.respondRekey(b.pair.publicKey, a.pair.publicKey, binding, call.message, 0, a.chain).message);
    },
  };
  return Object.entries(kinds).map(([what, run]) => ({ what, ...measure(() => void run(), seconds) }));
}
