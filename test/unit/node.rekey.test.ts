/** Rekeys of one path at both of its ends, call by call. */
import { describe, expect, test } from '@jest/globals';
import { pino } from 'pino';
import type { DataPlane, PathId } from '../../ts/dataplane/data-plane.js';
import { chainHash } from '../../ts/handshake/index.js';
import { ms } from '../../ts/node/clock.js';
import { NodeHandshakes } from '../../ts/node/handshakes.js';
import { PathRekey } from '../../ts/node/path-rekey.js';
import { controlKind, readNonce } from '../../ts/node/session-control.js';
import { KeyPair, sodium } from '../../ts/trust/index.js';

/** One end: its slots as the data plane has them, and what it sends. */
class End {
  readonly pair = KeyPair.generate();
  readonly sent: Uint8Array[] = [];
  readonly slots = new Map<number, 'in use' | 'retired'>([[0, 'in use']]);
  rekeyed = 0;
  renewals = 0;
  /** What it shows; opaque here. */
  certificates: readonly Uint8Array[] = [sodium.randombytes_buf(100)];
  interval = 120_000;
  rekey: PathRekey | undefined;

  start(peer: End, binding: Uint8Array, initiator: boolean): void {
    const handshakes = new NodeHandshakes({
      pair: () => this.pair,
      chain: () => ({ chain: this.certificates, grant: undefined }),
      epoch: () => 1n,
      node: this.pair.publicKey,
      floor: () => 0,
      now: () => 0,
      generationOf: () => 0,
    });
    const plane = {
      pathRekey: (_: PathId, slot: number) => this.slots.set(slot, 'in use'),
      pathRetire: (_: PathId, slot: number) => this.slots.set(slot, 'retired'),
    } as unknown as DataPlane;
    this.rekey = new PathRekey(ms(0), {
      plane,
      handshakes: () => handshakes,
      log: pino({ enabled: false }),
      path: 1 as PathId,
      own: this.pair.publicKey,
      peer: peer.pair.publicKey,
      binding,
      chain: chainHash(peer.certificates, undefined),
      initiator,
      interval: () => ms(this.interval),
      send: (bytes) => this.sent.push(bytes),
      rekeyed: () => {
        this.rekeyed += 1;
      },
      renew: () => {
        this.renewals += 1;
      },
    });
  }

  get live(): PathRekey {
    if (this.rekey === undefined) throw new RangeError('not started');
    return this.rekey;
  }

  /** Takes what it has sent since, of one kind. */
  take(kind: number): Uint8Array[] {
    const found = this.sent.filter((bytes) => bytes[0] === kind);
    this.sent.length = 0;
    return found;
  }
}

function ends(): { a: End; b: End } {
  const [a, b] = [new End(), new End()];
  const binding = sodium.randombytes_buf(32);
  a.start(b, binding, true);
  b.start(a, binding, false);
  return { a, b };
}

/** One rekey from question to proof at `now`. */
function whole(a: End, b: End, now: number, slot: number): void {
  a.live.hurry();
  a.live.tick(ms(now));
  for (const question of a.take(controlKind.rekey1)) b.live.question(question.subarray(1));
  for (const answer of b.take(controlKind.rekey2)) a.live.answer(answer.subarray(1), ms(now));
  b.live.confirmed(slot, ms(now));
  for (const ping of a.take(controlKind.ping)) expect(a.live.pong(readNonce(ping) ?? 0n, ms(now))).toBe(true);
}

describe('a rekey', () => {
  test('is asked for when due, repeated until answered, and answered alike each time', () => {
    const { a, b } = ends();
    a.live.tick(ms(119_000));
    expect(a.take(controlKind.rekey1)).toEqual([]);
    for (let now = 120_000; now < 122_000; now += 200) a.live.tick(ms(now));
    const questions = a.take(controlKind.rekey1);
    expect(questions.length).toBeGreaterThanOrEqual(3);
    expect(new Set(questions.map((q) => Buffer.from(q).toString('hex'))).size).toBe(1);
    for (const question of questions) b.live.question(question.subarray(1));
    const answers = b.take(controlKind.rekey2);
    expect(new Set(answers.map((q) => Buffer.from(q).toString('hex'))).size).toBe(1);
    expect(answers.length).toBe(questions.length);
    for (const answer of answers) a.live.answer(answer.subarray(1), ms(122_000));
    expect([a.rekeyed, b.rekeyed]).toEqual([1, 0]);
    b.live.confirmed(1, ms(122_100));
    b.live.confirmed(1, ms(122_200));
    expect(b.rekeyed).toBe(1);
  });

  test('keeps the old keys until the far end is known to use the new ones, and the overlap is over', () => {
    const { a, b } = ends();
    a.live.hurry();
    a.live.tick(ms(1_000));
    b.live.question((a.take(controlKind.rekey1)[0] ?? new Uint8Array(1)).subarray(1));
    a.live.answer((b.take(controlKind.rekey2)[0] ?? new Uint8Array(1)).subarray(1), ms(1_000));
    // Our first packets under the new keys are lost for a minute: they are repeated, and the old keys stay.
    for (let now = 1_200; now < 60_000; now += 200) a.live.tick(ms(now));
    const proofs = a.take(controlKind.ping);
    expect(proofs.length).toBeGreaterThan(100);
    expect(a.slots.get(0)).toBe('in use');
    expect(a.live.pong(readNonce(proofs[0] ?? new Uint8Array(0)) ?? 0n, ms(60_000))).toBe(true);
    a.live.tick(ms(69_900));
    expect(a.slots.get(0)).toBe('in use');
    a.live.tick(ms(70_100));
    expect(a.slots.get(0)).toBe('retired');
    expect(a.slots.get(1)).toBe('in use');
  });

  test('that comes more often than our own interval expects never retires keys before their time', () => {
    const { a, b } = ends();
    for (const end of [a, b]) end.interval = 120_000;
    let slot = 0;
    const replacedAt = new Map<number, number>();
    for (let now = 1_000; now < 60_000; now += 200) {
      if (now % 2_000 === 0) {
        replacedAt.set(slot, now);
        slot = (slot + 1) & 3;
        replacedAt.delete(slot);
        whole(a, b, now, slot);
      }
      for (const end of [a, b]) {
        end.live.tick(ms(now));
        expect(end.slots.get(slot)).toBe('in use');
        for (const [old, at] of replacedAt) if (now - at < 6_000) expect([now, old, end.slots.get(old)]).toEqual([now, old, 'in use']);
      }
    }
    expect([a.rekeyed, b.rekeyed]).toEqual([29, 29]);
  });

  test('is not answered by who asks, nor again before the last one is confirmed', () => {
    const { a, b } = ends();
    a.live.hurry();
    a.live.tick(ms(1_000));
    const [question = new Uint8Array(1)] = a.take(controlKind.rekey1);
    a.live.question(question.subarray(1));
    expect(a.sent).toEqual([]);
    b.live.question(question.subarray(1));
    expect(b.take(controlKind.rekey2).length).toBe(1);
    const { a: other } = ends();
    other.live.hurry();
    other.live.tick(ms(1_000));
    b.live.question((other.take(controlKind.rekey1)[0] ?? new Uint8Array(1)).subarray(1));
    b.live.question(sodium.randombytes_buf(400));
    b.live.question(new Uint8Array(0));
    expect(b.sent).toEqual([]);
  });

  test('of an end that shows other certificates than in the handshake wants another handshake: no new keys before', () => {
    const { a, b } = ends();
    a.certificates = [sodium.randombytes_buf(100)];
    a.live.hurry();
    a.live.tick(ms(1_000));
    for (const question of a.take(controlKind.rekey1)) b.live.question(question.subarray(1));
    for (const answer of b.take(controlKind.rekey2)) a.live.answer(answer.subarray(1), ms(1_000));
    expect([a.renewals, b.renewals, a.rekeyed, b.rekeyed]).toEqual([1, 0, 0, 0]);
    expect([...a.slots.keys(), ...b.slots.keys()]).toEqual([0, 0]);
    // It isn't asked again at once: another path comes, or time passes.
    for (let now = 1_200; now < 10_800; now += 200) a.live.tick(ms(now));
    expect(a.take(controlKind.rekey1)).toEqual([]);
    a.live.tick(ms(11_200));
    expect(a.take(controlKind.rekey1).length).toBe(1);
  });

  test('tells who asks of other certificates that the far end shows now; these keys serve until its handshake', () => {
    const { a, b } = ends();
    b.certificates = [];
    whole(a, b, 1_000, 1);
    expect([a.renewals, b.renewals, a.rekeyed, b.rekeyed]).toEqual([1, 0, 1, 1]);
  });
});
