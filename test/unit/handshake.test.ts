/** Handshakes between two nodes: what is agreed, what is refused, and what a repeated, forged or bent message does. */
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { isThicketError } from '../../ts/errors.js';
import { Callee, chainHash, Initiator, readCookie, SIZES, writeMacs } from '../../ts/handshake/index.js';
import { encodeIdentity } from '../../ts/handshake/payload.js';
import { type HandshakeSelf, NodeHandshakes } from '../../ts/node/handshakes.js';
import {
  agreementKey,
  encodeCertificate,
  encodeEndpointCertificate,
  encodeGrant,
  KeyPair,
  keyBytes,
  type PublicKey,
  type Right,
  sodium,
  type VerifiedIdentity,
} from '../../ts/trust/index.js';

const NOW = 1_800_000_000;
const network = KeyPair.generate();

function certificate(key: PublicKey, name: string, rights: readonly Right[] = [], notAfter = NOW + 1_000): Uint8Array {
  const statement = { network: network.publicKey, key, name, groups: ['staff'], rights, delegable: ['cameras'], serial: 1 };
  return encodeCertificate({ ...statement, issuedAt: NOW, notAfter }, network);
}

class Party implements HandshakeSelf {
  readonly own = KeyPair.generate();
  readonly handshakes = new NodeHandshakes(this);
  bootEpoch = 5n;
  certificates: readonly Uint8Array[];
  endpoint: { readonly pair: KeyPair; readonly chain: readonly Uint8Array[]; readonly grant: Uint8Array } | undefined;
  generation = 0;

  constructor(name: string, rights: readonly Right[] = ['gateway']) {
    this.certificates = [certificate(this.node, name, rights)];
  }

  get node(): PublicKey {
    return this.own.publicKey;
  }

  /** A device of this gateway, with a grant for its short name. */
  host(name: string, generation = 1): PublicKey {
    const pair = KeyPair.generate();
    const statement = { gateway: this.node, key: pair.publicKey, name, groups: ['cameras'], serial: 1, issuedAt: NOW, notAfter: NOW + 900 };
    const grant = { network: network.publicKey, gateway: this.node, name, generation, serial: 1, issuedAt: NOW };
    const chain = [...this.certificates, encodeEndpointCertificate(statement, this.own)];
    this.endpoint = { pair, chain, grant: encodeGrant(grant, network) };
    return pair.publicKey;
  }

  pair(key: PublicKey): KeyPair | undefined {
    return key === this.node ? this.own : key === this.endpoint?.pair.publicKey ? this.endpoint.pair : undefined;
  }

  chain(key: PublicKey): { readonly chain: readonly Uint8Array[]; readonly grant: Uint8Array | undefined } {
    return key === this.node || this.endpoint === undefined ? { chain: this.certificates, grant: undefined } : this.endpoint;
  }

  epoch(): bigint {
    return this.bootEpoch;
  }

  floor(): number {
    return NOW - 10;
  }

  now(): number {
    return NOW;
  }

  generationOf(): number {
    return this.generation;
  }
}

const anyone = (): void => {};
const code = (run: () => unknown): string => {
  try {
    run();
  } catch (error) {
    if (isThicketError(error)) return error.code;
    throw error;
  }
  return 'none';
};

describe('a link handshake', () => {
  test('gives both sides the same keys, each other way round, and who the other is', () => {
    const [child, parent] = [new Party('child', ['relay']), new Party('parent')];
    const call = child.handshakes.initiateLink(parent.node, 77);
    let admitted: readonly [PublicKey, VerifiedIdentity | undefined] | undefined;
    const { datagram, established } = parent.handshakes.respondLink(call.datagram, 88, (key, identity) => {
      admitted = [key, identity];
    });
    const result = call.finish(datagram);
    if (established === undefined || 'behind' in result) throw new RangeError('no link');
    expect([call.datagram.length, datagram.length]).toEqual([1_232, 1_232]);
    expect(admitted?.[0]).toBe(child.node);
    expect(admitted?.[1]).toMatchObject({ name: 'child', rights: ['relay'], groups: ['staff'] });
    expect(result.sendKey).toEqual(established.receiveKey);
    expect(result.receiveKey).toEqual(established.sendKey);
    expect(result.sendKey).not.toEqual(result.receiveKey);
    expect(result.hopSecret).toEqual(established.hopSecret);
    expect(result.binding).toEqual(established.binding);
    expect([result.peerIndex, established.peerIndex]).toEqual([88, 77]);
    expect([result.peer, result.epoch, established.peer, established.epoch]).toEqual([parent.node, 5n, child.node, 5n]);
  });

  test('needs no certificate, and one that does not verify counts as none', () => {
    const parent = new Party('parent');
    const cases: readonly (readonly Uint8Array[])[] = [
      [],
      [certificate(KeyPair.generate().publicKey, 'another')],
      [Uint8Array.of(1, 2, 3)],
      [certificate(new Party('x').node, 'x', [], NOW - 100)],
    ];
    for (const chain of cases) {
      const child = new Party('child');
      child.certificates = chain;
      const call = child.handshakes.initiateLink(parent.node, 1);
      const { established } = parent.handshakes.respondLink(call.datagram, 2, anyone);
      expect(established?.peer).toBe(child.node);
      expect(established?.identity).toBeUndefined();
    }
  });

  test("takes no endpoint's chain for a node's identity", () => {
    const [child, parent] = [new Party('gw'), new Party('parent')];
    child.host('camera');
    child.certificates = child.endpoint?.chain ?? [];
    const { established } = parent.handshakes.respondLink(child.handshakes.initiateLink(parent.node, 1).datagram, 2, anyone);
    expect(established?.identity).toBeUndefined();
  });

  test('repeated gets the same answer, and nothing to install', () => {
    const [child, parent] = [new Party('child'), new Party('parent')];
    const call = child.handshakes.initiateLink(parent.node, 1);
    const first = parent.handshakes.respondLink(call.datagram, 2, anyone);
    const again = parent.handshakes.respondLink(call.datagram, 3, anyone);
    expect(again.datagram).toEqual(first.datagram);
    expect(again.established).toBeUndefined();
  });

  test('refused by the listener is neither answered nor remembered, and raises no epoch', () => {
    const [child, parent] = [new Party('child'), new Party('parent')];
    const call = child.handshakes.initiateLink(parent.node, 1);
    const refuse = (): void => {
      throw new RangeError('not welcome');
    };
    child.bootEpoch = 1_000n;
    const later = child.handshakes.initiateLink(parent.node, 1);
    expect(() => parent.handshakes.respondLink(later.datagram, 2, refuse)).toThrow('not welcome');
    // The lower epoch is still good.
    expect(parent.handshakes.respondLink(call.datagram, 2, anyone).established?.epoch).toBe(5n);
  });

  test('of an earlier life is told the epoch that was seen, under its own challenge', () => {
    const [child, parent] = [new Party('child'), new Party('parent')];
    const old = child.handshakes.initiateLink(parent.node, 1);
    child.bootEpoch = 9n;
    parent.handshakes.respondLink(child.handshakes.initiateLink(parent.node, 1).datagram, 2, anyone);
    const { datagram, established } = parent.handshakes.respondLink(old.datagram, 3, anyone);
    expect(established).toBeUndefined();
    expect(datagram.length).toBe(1_232);
    expect(old.finish(datagram)).toEqual({ behind: 9n });
    // A refusal for one call says nothing to another.
    expect(code(() => child.handshakes.initiateLink(parent.node, 1).finish(datagram))).toBe('BAD_HANDSHAKE');
  });

  test('goes on after a forged answer', () => {
    const [child, parent] = [new Party('child'), new Party('parent')];
    const call = child.handshakes.initiateLink(parent.node, 1);
    const { datagram } = parent.handshakes.respondLink(call.datagram, 2, anyone);
    const forged = datagram.slice();
    forged.set(sodium.randombytes_buf(1_000), 12);
    expect(code(() => call.finish(forged))).toBe('BAD_HANDSHAKE');
    const smallOrder = datagram.slice();
    smallOrder.fill(0, 12, 44);
    expect(code(() => call.finish(smallOrder))).toBe('BAD_HANDSHAKE');
    expect(call.finish(datagram)).toMatchObject({ peer: parent.node });
  });

  test('with any byte of message 1 or 2 bent is refused', () => {
    const [child, parent] = [new Party('child'), new Party('parent')];
    const call = child.handshakes.initiateLink(parent.node, 1);
    const { datagram } = parent.handshakes.respondLink(call.datagram, 2, anyone);
    // Behind the header (type and indexes, which the keys' first frame proves) and before the MACs (which the data plane judges).
    for (let at = 8; at < 1_200; at += 1) {
      const bent = call.datagram.slice();
      bent[at] = (bent[at] ?? 0) ^ (1 << (at % 8));
      expect(code(() => parent.handshakes.respondLink(bent, 2, anyone))).not.toBe('none');
    }
    for (let at = 12; at < 1_200; at += 1) {
      const bent = datagram.slice();
      bent[at] = (bent[at] ?? 0) ^ (1 << (at % 8));
      expect(code(() => call.finish(bent))).not.toBe('none');
    }
    expect(call.finish(datagram)).toMatchObject({ peer: parent.node });
  });

  test('of another length is refused', () => {
    const [child, parent] = [new Party('child'), new Party('parent')];
    const { datagram } = child.handshakes.initiateLink(parent.node, 1);
    for (const bytes of [datagram.subarray(0, 1_231), new Uint8Array([...datagram, 0]), new Uint8Array(0)]) {
      expect(code(() => parent.handshakes.respondLink(bytes, 2, anyone))).not.toBe('none');
    }
  });

  test('of any bytes throws typed refusals only', () => {
    const parent = new Party('parent');
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 1_232, maxLength: 1_232 }), (bytes) => {
        expect(code(() => parent.handshakes.respondLink(bytes, 2, anyone))).not.toBe('none');
        expect(code(() => parent.handshakes.respondSession(parent.node, bytes.subarray(0, 1_148), anyone))).not.toBe('none');
      }),
      { numRuns: 60 },
    );
  });

  test('for another node does not open', () => {
    const [child, parent, other] = [new Party('child'), new Party('parent'), new Party('other')];
    const { datagram } = child.handshakes.initiateLink(parent.node, 1);
    expect(code(() => other.handshakes.respondLink(datagram, 2, anyone))).toBe('BAD_HANDSHAKE');
    expect(code(() => child.handshakes.initiateSession(other.node, parent.node))).toBe('NO_KEY');
  });
});

describe('the two keys of a caller', () => {
  test('must belong together', () => {
    const [caller, parent] = [new Party('caller'), new Party('parent')];
    const stranger = KeyPair.generate();
    // Noise proves the stranger's X25519 key; the payload claims, and signs as, the caller.
    const prologue = new Uint8Array([...new TextEncoder().encode('thicket 1 session\0'), ...keyBytes(parent.node)]);
    const secrets = { publicKey: agreementKey(stranger.publicKey), secret: stranger.agreementSecret() };
    const identity = { chain: caller.certificates, grant: undefined, epoch: 1n, features: 0 };
    const message = new Initiator(prologue, secrets, agreementKey(parent.node)).writeMessage1((transcript) =>
      encodeIdentity(caller.own, identity, transcript, SIZES.session.first - 96),
    );
    const callee = new Callee('session', { pair: parent.own, chain: [], grant: undefined, epoch: 1n }, message);
    expect(code(() => callee.identify())).toBe('WRONG_KEY');
  });

  test('are named by the certificate, or the chain is refused', () => {
    const [caller, gateway] = [new Party('caller'), new Party('gw')];
    caller.certificates = [certificate(KeyPair.generate().publicKey, 'somebody')];
    const { message } = caller.handshakes.initiateSession(caller.node, gateway.node);
    expect(code(() => gateway.handshakes.respondSession(gateway.node, message, anyone))).toBe('WRONG_KEY');
  });
});

describe('a session handshake', () => {
  test('reaches an endpoint by its own key, with chain and grant', () => {
    const [viewer, gateway] = [new Party('viewer'), new Party('gw')];
    const camera = gateway.host('camera', 3);
    const call = viewer.handshakes.initiateSession(viewer.node, camera);
    const { message, established } = gateway.handshakes.respondSession(camera, call.message, anyone);
    const result = call.finish(message);
    if (established === undefined || 'behind' in result) throw new RangeError('no session');
    expect([call.message.length, message.length]).toEqual([1_148, 1_148]);
    expect(result.identity).toMatchObject({
      name: 'camera.gw',
      shortName: 'camera',
      generation: 3,
      gateway: gateway.node,
      groups: ['cameras'],
      rights: [],
    });
    expect(established.identity).toMatchObject({ name: 'viewer', key: viewer.node });
    expect(result.sendKey).toEqual(established.receiveKey);
  });

  test('without a certificate, or with one that does not verify, is refused on both sides', () => {
    const [viewer, gateway] = [new Party('viewer'), new Party('gw')];
    const good = viewer.certificates;
    viewer.certificates = [];
    const silent = viewer.handshakes.initiateSession(viewer.node, gateway.node);
    expect(code(() => gateway.handshakes.respondSession(gateway.node, silent.message, anyone))).toBe('NO_CERTIFICATE');
    viewer.certificates = [certificate(viewer.node, 'viewer', [], NOW - 1)];
    const expired = viewer.handshakes.initiateSession(viewer.node, gateway.node);
    expect(code(() => gateway.handshakes.respondSession(gateway.node, expired.message, anyone))).toBe('EXPIRED');
    viewer.certificates = good;
    gateway.certificates = [];
    const call = viewer.handshakes.initiateSession(viewer.node, gateway.node);
    const { message } = gateway.handshakes.respondSession(gateway.node, call.message, anyone);
    expect(code(() => call.finish(message))).toBe('NO_CERTIFICATE');
  });

  test('with a grant of a lower generation than was seen is refused', () => {
    const [viewer, gateway] = [new Party('viewer'), new Party('gw')];
    const camera = gateway.host('camera', 3);
    viewer.generation = 4;
    const call = viewer.handshakes.initiateSession(viewer.node, camera);
    const { message } = gateway.handshakes.respondSession(camera, call.message, anyone);
    expect(code(() => call.finish(message))).toBe('REVOKED');
  });

  test('to a stranger does not even tell that its epoch is behind', () => {
    const [viewer, gateway] = [new Party('viewer'), new Party('gw')];
    viewer.bootEpoch = 9n;
    gateway.handshakes.respondSession(gateway.node, viewer.handshakes.initiateSession(viewer.node, gateway.node).message, anyone);
    viewer.bootEpoch = 2n;
    const call = viewer.handshakes.initiateSession(viewer.node, gateway.node);
    const refuse = (): void => {
      throw new RangeError('not admitted');
    };
    expect(() => gateway.handshakes.respondSession(gateway.node, call.message, refuse)).toThrow('not admitted');
    const { message } = gateway.handshakes.respondSession(gateway.node, call.message, anyone);
    expect(call.finish(message)).toEqual({ behind: 9n });
  });
});

/** What names the certificates that a party shows. */
const shown = (party: Party): Uint8Array => {
  const { chain, grant } = party.chain(party.node);
  return chainHash(chain, grant);
};

describe('a rekey', () => {
  test('renews the keys of the handshake that it names, for these two keys, and of no other', () => {
    const [a, b, c] = [new Party('a'), new Party('b'), new Party('c')];
    const binding = sodium.randombytes_buf(32);
    const other = sodium.randombytes_buf(32);
    const call = a.handshakes.initiateRekey(a.node, b.node, binding, 7);
    expect(call.message.length).toBe(400);
    expect(code(() => b.handshakes.respondRekey(b.node, a.node, other, call.message, 8, shown(a)))).toBe('BAD_HANDSHAKE');
    expect(code(() => b.handshakes.respondRekey(b.node, c.node, binding, call.message, 8, shown(c)))).toBe('WRONG_KEY');
    const { message, keys: theirs } = b.handshakes.respondRekey(b.node, a.node, binding, call.message, 8, shown(a));
    expect(message.length).toBe(400);
    const forged = message.slice();
    forged[100] = (forged[100] ?? 0) ^ 1;
    expect(code(() => call.finish(forged))).toBe('BAD_HANDSHAKE');
    const ours = call.finish(message);
    if (ours === 'sendAll' || theirs === undefined) throw new RangeError('no keys');
    expect(ours.sendKey).toEqual(theirs.receiveKey);
    expect(ours.receiveKey).toEqual(theirs.sendKey);
    expect([ours.peerIndex, theirs.peerIndex]).toEqual([8, 7]);
    expect([ours.chain, theirs.chain]).toEqual([shown(b), shown(a)]);
  });

  test('under other certificates than the far end knows is answered by asking for them, without keys', () => {
    const [a, b] = [new Party('a'), new Party('b')];
    const binding = sodium.randombytes_buf(32);
    const call = a.handshakes.initiateRekey(a.node, b.node, binding, 7);
    const { message, keys } = b.handshakes.respondRekey(b.node, a.node, binding, call.message, 8, sodium.randombytes_buf(16));
    expect(message.length).toBe(400);
    expect(keys).toBeUndefined();
    expect(call.finish(message)).toBe('sendAll');
  });

  test('with any byte bent is refused', () => {
    const [a, b] = [new Party('a'), new Party('b')];
    const binding = sodium.randombytes_buf(32);
    const call = a.handshakes.initiateRekey(a.node, b.node, binding, 7);
    const { message } = b.handshakes.respondRekey(b.node, a.node, binding, call.message, 8, shown(a));
    for (let at = 0; at < 400; at += 1) {
      const bend = (bytes: Uint8Array): Uint8Array => bytes.map((byte, i) => (i === at ? byte ^ (1 << (at % 8)) : byte));
      expect(code(() => b.handshakes.respondRekey(b.node, a.node, binding, bend(call.message), 8, shown(a)))).not.toBe('none');
      expect(code(() => call.finish(bend(message)))).not.toBe('none');
    }
  });
});

describe('mac1, mac2 and cookies', () => {
  /** As native/core/src/gate.rs makes a cookie reply. */
  function cookieReply(responder: PublicKey, message: Uint8Array, cookie: Uint8Array): Uint8Array {
    const label = new TextEncoder().encode('thicket cookie');
    const key = sodium.crypto_generichash(32, new Uint8Array([...label, ...keyBytes(responder)]), null);
    const nonce = sodium.randombytes_buf(24);
    const mac1 = message.subarray(message.length - 32, message.length - 16);
    const sealed = sodium.crypto_aead_xchacha20poly1305_ietf_encrypt(cookie, mac1, null, nonce, key);
    return new Uint8Array([0, 0, 0, 3, ...message.subarray(4, 8), ...nonce, ...sealed]);
  }

  test('mac1 is keyed by the receiver, mac2 is zero until a cookie is known, and follows the cookie then', () => {
    const [child, parent] = [new Party('child'), new Party('parent')];
    const call = child.handshakes.initiateLink(parent.node, 5);
    const label = new TextEncoder().encode('thicket mac1');
    const key = sodium.crypto_generichash(32, new Uint8Array([...label, ...keyBytes(parent.node)]), null);
    expect(call.datagram.subarray(1_200, 1_216)).toEqual(sodium.crypto_generichash(16, call.datagram.subarray(0, 1_200), key));
    expect(call.datagram.subarray(1_216)).toEqual(new Uint8Array(16));
    const cookie = sodium.randombytes_buf(16);
    expect(call.cookie(cookieReply(parent.node, call.datagram, cookie))).toBe(true);
    expect(call.datagram.subarray(1_216)).toEqual(sodium.crypto_generichash(16, call.datagram.subarray(0, 1_216), cookie));
    // What it says is the same as before: it is answered.
    const { datagram } = parent.handshakes.respondLink(call.datagram, 6, anyone);
    expect(call.finish(datagram)).toMatchObject({ peer: parent.node });
  });

  test('a cookie for another message, from another node, or bent, is none', () => {
    const [child, parent, other] = [new Party('child'), new Party('parent'), new Party('other')];
    const call = child.handshakes.initiateLink(parent.node, 5);
    const cookie = sodium.randombytes_buf(16);
    const reply = cookieReply(parent.node, call.datagram, cookie);
    expect(readCookie(reply, keyBytes(parent.node), call.datagram)).toEqual(cookie);
    expect(call.cookie(cookieReply(other.node, call.datagram, cookie))).toBe(false);
    expect(call.cookie(cookieReply(parent.node, child.handshakes.initiateLink(parent.node, 5).datagram, cookie))).toBe(false);
    for (let at = 8; at < reply.length; at += 1) {
      expect(call.cookie(reply.map((byte, i) => (i === at ? byte ^ 1 : byte)))).toBe(false);
    }
    expect(call.cookie(reply.subarray(0, 63))).toBe(false);
    expect(call.datagram.subarray(1_216)).toEqual(new Uint8Array(16));
  });

  test('answers carry mac1 for the caller', () => {
    const [child, parent] = [new Party('child'), new Party('parent')];
    const { datagram } = parent.handshakes.respondLink(child.handshakes.initiateLink(parent.node, 5).datagram, 6, anyone);
    const expected = datagram.slice();
    writeMacs(expected, keyBytes(child.node), undefined);
    expect(datagram).toEqual(expected);
  });
});
