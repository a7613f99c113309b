/**
 * Links: authenticated hops to the parents that we dial and the children that dial us. This file keeps who is connected, where, and whether it is still there;
 * dialling is in parent-calls.ts, rekeys in link-keys.ts, and what goes over a link is decided elsewhere.
 *
 * ```
 * parent:  idle ──dial──▶ calling ──message 2──▶ up ──no answer──▶ calling
 * child:   (message 1) ──▶ answered ──first valid frame──▶ up ──no answer, goodbye──▶ gone
 * ```
 */
import type { DataPlaneEvent, Generation, LinkId, SocketAddress } from '../dataplane/data-plane.js';
import { describe, isThicketError, ThicketError } from '../errors.js';
import { equalBytes, type PublicKey } from '../trust/index.js';
import { type Milliseconds, ms } from './clock.js';
import { randomU32, randomU64 } from './handles.js';
import type { Link, LinkRole, LinksOptions, ParentAddress } from './link.js';
import { LinkKeys } from './link-keys.js';
import { frameKind, Liveness } from './liveness.js';
import { ParentCalls, type Wanted } from './parent-calls.js';
import type { EstablishedLink } from './ports.js';

export type { Link, LinkRole, ParentAddress } from './link.js';

/** An answered child that sends no valid frame is forgotten after this. */
const HALF_OPEN = ms(15_000);
/** Keys older than this are dead (WireGuard's REJECT_AFTER_TIME), and their link with them. */
const REFUSE_AFTER = ms(180_000);
/** Children that may be half open at once, in all and under one key: what a flood, or replayed messages of a known one, can make us hold. */
const MAX_HALF_OPEN = 1_024;
const MAX_HALF_OPEN_PER_KEY = 4;
/** A link isn't given up while its far end is shaking hands anew, for so long. */
const RETURNING = ms(3_000);
/** A goodbye is said so often. */
const GOODBYES = 3;

interface Entry {
  link: Mutable<Link>;
  liveness: Liveness;
  readonly keys: LinkKeys;
  /** What names the certificates that we showed. */
  shown: Uint8Array;
  /** Other certificates are to be shown in a first handshake, while the link stands. */
  renewing: boolean;
}

/** A child that was answered; its first valid frame confirms the keys. */
interface Pending {
  readonly id: LinkId;
  readonly generation: Generation;
  readonly established: EstablishedLink;
  readonly socket: number;
  /** Where it was answered. */
  readonly remote: SocketAddress;
  readonly at: Milliseconds;
}

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

export class Links {
  readonly #o: LinksOptions;
  readonly #byKey = new Map<PublicKey, Entry>();
  readonly #byId = new Map<LinkId, Entry>();
  readonly #calls: ParentCalls;
  readonly #pending = new Map<Generation, Pending>();
  /** Refused handshake messages by reason, for `status`. */
  readonly counters: Record<string, number> = {};
  #closed = false;

  constructor(options: LinksOptions) {
    const { plane, handshakes, clock, log, listener } = options;
    this.#o = options;
    this.#calls = new ParentCalls({
      plane,
      handshakes,
      clock,
      log,
      wanted: (key, now) => this.#wanted(key, now),
      answered: (key, established, index, socket, from) => this.#parentAnswered(key, established, index, socket, from),
      behind: (epoch) => listener.behind(epoch),
      count: (reason) => this.#count(reason),
    });
  }

  /** Dials a parent and keeps the link up until `removeParent`. */
  addParent(address: ParentAddress): void {
    this.#calls.add(address);
  }

  removeParent(key: PublicKey): void {
    this.#calls.remove(key);
    const entry = this.#byKey.get(key);
    if (entry) this.#drop(entry, 'no longer a parent', true);
  }

  get(id: LinkId): Link | undefined {
    return this.#byId.get(id)?.link;
  }

  byKey(key: PublicKey): Link | undefined {
    return this.#byKey.get(key)?.link;
  }

  all(): Link[] {
    return [...this.#byKey.values()].map((entry) => entry.link);
  }

  /** Parents that are configured, connected or not. */
  parents(): { readonly address: ParentAddress; readonly link: Link | undefined }[] {
    return this.#calls.addresses().map((address) => ({ address, link: this.byKey(address.key) }));
  }

  send(id: LinkId, frame: Uint8Array, generation?: Generation): void {
    if (!this.#byId.has(id)) return;
    this.#o.plane.linkSend(id, frame, generation === undefined ? {} : { generation });
  }

  /** Closes every link with a goodbye, so that neighbours needn't find out. */
  close(): void {
    this.#closed = true;
    for (const entry of [...this.#byKey.values()]) this.#drop(entry, 'closing', true);
    this.#calls.clear();
  }

  /** Ends a child's link (its network or key is no longer welcome). */
  disconnect(id: LinkId, reason: string): void {
    const entry = this.#byId.get(id);
    if (entry) this.#drop(entry, reason, true);
  }

  /** The relay rules have changed: children that they no longer allow go, the latest first. */
  judge(): void {
    for (const entry of [...this.#byKey.values()].reverse()) this.#judge(entry);
  }

  /** Where our certificate has changed parents see the new one in a fresh handshake, while their links stand. Children see it with their next rekey. */
  renew(): void {
    const shown = this.#o.handshakes().shown(this.#o.self);
    for (const entry of this.#byKey.values()) if (!equalBytes(entry.shown, shown)) this.#renew(entry);
    this.#calls.tick();
  }

  /** Neighbours whose certificates are past their date at `time`, seconds since 1970, are without from now on. */
  expire(time: number): void {
    for (const entry of [...this.#byKey.values()]) {
      const { link } = entry;
      if (link.identity === undefined || link.identity.notAfter >= time) continue;
      link.identity = undefined;
      this.#o.log.warn({ key: link.key }, "a neighbour's certificate has expired");
      if (this.#judge(entry)) this.#o.listener.linkRenewed(link);
    }
  }

  handle(event: DataPlaneEvent): void {
    if (this.#closed) return;
    switch (event.type) {
      case 'handshake':
        return this.#handshake(event.socket, event.from, event.bytes);
      case 'linkFrame': {
        const entry = this.#byId.get(event.link);
        if (entry) this.#frame(entry, event.generation, event.from, event.socket, event.bytes);
        return;
      }
      case 'linkConfirmed':
        return this.#confirmed(event.link, event.generation, event.from);
      case 'linkRoamed': {
        const entry = this.#byId.get(event.link);
        if (entry) this.#probe(entry, event.socket, event.from);
        return;
      }
      default:
        return;
    }
  }

  /** Retries, rekeys, liveness and clean-up; called a few times a second. */
  tick(): void {
    if (this.#closed) return;
    const now = this.#o.clock.now();
    this.#calls.tick();
    for (const pending of [...this.#pending.values()]) if (now - pending.at >= HALF_OPEN) this.#forget(pending);
    if (this.#byKey.size === 0) return;
    const stats = new Map(this.#o.plane.stats().links.map((s) => [s.link, s]));
    for (const entry of [...this.#byKey.values()]) {
      const verdict = entry.liveness.tick(now, stats.get(entry.link.id));
      if (now - entry.keys.keyedAt >= REFUSE_AFTER) {
        this.#drop(entry, 'its keys are too old', true);
        continue;
      }
      if (verdict.dead) {
        if (!this.#returns(entry, now)) this.#drop(entry, 'no answer', false);
        continue;
      }
      for (const frame of verdict.frames) this.#o.plane.linkSend(entry.link.id, frame.bytes, { keepAlive: frame.keepAlive });
      entry.link.rtt = entry.liveness.rtt;
      entry.keys.tick(now);
      entry.link.generation = entry.keys.generation;
    }
  }

  // ── parents ───────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** A parent without a link is called; so is one that doesn't answer, since it may have started anew: its link stays until that is known. */
  #wanted(key: PublicKey, now: Milliseconds): Wanted {
    const entry = this.#byKey.get(key);
    if (entry === undefined || entry.liveness.doubtful(now)) return 'anew';
    return entry.renewing ? 'renew' : 'nothing';
  }

  #parentAnswered(key: PublicKey, established: EstablishedLink, index: number, socket: number, from: SocketAddress): 'done' | 'later' {
    const live = this.#byKey.get(key);
    if (live !== undefined && live.link.epoch === established.epoch) {
      // The same program as before holds the link's keys still: where it is in doubt only datagrams were lost, and probes decide.
      if (!established.renews) return 'later';
      const { socket: here, remote } = live.link;
      this.#renewed(live, this.#install(live.link.id, established, index, here, remote, true), established, true);
      return 'done';
    }
    if (live !== undefined) this.#drop(live, 'the neighbour has started anew', false);
    const id = this.#o.handles.link();
    const entry = this.#newEntry(id, 'parent', this.#install(id, established, index, socket, from, true), established, socket, from);
    // The parent switches to these keys at our first valid frame: send it now.
    this.#ask(entry);
    this.#o.listener.linkUp(entry.link, true);
    return 'done';
  }

  #renew(entry: Entry): void {
    if (entry.link.role === 'parent') entry.renewing = true;
  }

  /** A first handshake over a link that stands: its labels, and what is under way, stay. */
  #renewed(entry: Entry, generation: Generation, established: EstablishedLink, show: boolean): void {
    entry.renewing = false;
    entry.shown = this.#o.handshakes().shown(this.#o.self);
    entry.link.identity = established.identity;
    entry.keys.adopt({ ...established, generation }, this.#o.clock.now(), show);
    entry.link.generation = generation;
    this.#o.listener.linkRenewed(entry.link);
  }

  // ── children ──────────────────────────────────────────────────────────────────────────────────────────────────────────

  #handshake(socket: number, from: SocketAddress, bytes: Uint8Array): void {
    try {
      const type = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength).getUint32(0);
      if (type === 1) this.#answer(socket, from, bytes);
      else this.#calls.answered(socket, from, bytes, type);
    } catch (error) {
      // Strangers' mistakes: silence towards them, a line for us.
      this.#count('handshake');
      this.#o.log.debug({ error: describe(error) }, 'a handshake was refused');
    }
  }

  #answer(socket: number, from: SocketAddress, bytes: Uint8Array): void {
    const index = randomU32();
    const { datagram, established } = this.#o.handshakes().respondLink(bytes, index, (peer, identity, { epoch, renews }) => {
      // A parent of ours can't be our child as well.
      if (this.#calls.has(peer)) throw new ThicketError('REFUSED', 'a parent called as a child');
      if (renews && this.#byKey.get(peer)?.link.epoch !== epoch) throw new ThicketError('REFUSED', 'there is no link to renew');
      this.#o.accept(peer, identity, from);
    });
    if (established !== undefined) {
      const known = this.#byKey.get(established.peer);
      const half = [...this.#pending.values()].filter((p) => p.established.peer === established.peer);
      const id = known?.link.id ?? half[0]?.id ?? this.#o.handles.link();
      // The oldest gives way: whoever means it confirms within a round trip.
      const [oldest] = half.length >= MAX_HALF_OPEN_PER_KEY ? half : this.#pending.size >= MAX_HALF_OPEN ? this.#pending.values() : [];
      const generation = this.#install(id, established, index, socket, from, false);
      this.#pending.set(generation, { id, generation, established, socket, remote: from, at: this.#o.clock.now() });
      if (oldest !== undefined) this.#forget(oldest);
    }
    this.#o.plane.sendHandshake(socket, from, datagram);
  }

  /** Proposed keys that nobody used, or that must make room. */
  #forget(pending: Pending): void {
    this.#pending.delete(pending.generation);
    // The plane forgets a link with its last keys.
    this.#o.plane.linkRetire(pending.id, pending.generation);
  }

  /** Whether the far end of a silent link has just shaken hands anew. */
  #returns(entry: Entry, now: Milliseconds): boolean {
    return [...this.#pending.values()].some((p) => p.id === entry.link.id && now - p.at < RETURNING);
  }

  /** The first valid frame under keys that the far end proposed: only now do they replace anything. */
  #confirmed(id: LinkId, generation: Generation, from: SocketAddress): void {
    const now = this.#o.clock.now();
    const known = this.#byId.get(id);
    const pending = this.#pending.get(generation);
    // Where the far end is changes with an answered probe only: the data plane reports frames from elsewhere.
    if (known?.keys.confirmed(generation, now)) known.link.generation = known.keys.generation;
    if (pending === undefined) return;
    this.#pending.delete(generation);
    if (!this.#welcome(pending, known, from)) return;
    const { established, socket } = pending;
    if (known === undefined) {
      const entry = this.#newEntry(id, 'child', generation, established, socket, from);
      this.#o.listener.linkUp(entry.link, true);
      return;
    }
    if (established.renews) return this.#renewed(known, generation, established, false);
    // Any other fresh handshake comes from a program that has lost its keys: even with the same boot epoch its labels are gone.
    known.keys.adopt({ ...established, generation }, now, false);
    Object.assign(known.link, { generation, identity: established.identity, epoch: established.epoch, since: now });
    known.liveness = new Liveness(now, randomU64, 'parent');
    // It used keys that only message 2 could give it: it is where that was sent, as surely as if it had answered a probe there.
    if (same(from, pending.remote)) this.#move(known, socket, from);
    else this.#probe(known, socket, from);
    this.#o.listener.linkUp(known.link, true);
  }

  /** When it called others may have been half open that are up by now. */
  #welcome({ id, established }: Pending, known: Entry | undefined, from: SocketAddress): boolean {
    try {
      this.#o.accept(established.peer, established.identity, from);
      return true;
    } catch (error) {
      if (!isThicketError(error)) throw error;
      this.#count('handshake');
      if (known !== undefined) this.#drop(known, describe(error), true);
      else this.#remove(id, true);
      return false;
    }
  }

  /** Ends a child's link unless the rules allow it; whether it may stay. */
  #judge(entry: Entry): boolean {
    const { role, key, identity, remote } = entry.link;
    if (role === 'parent') return true;
    try {
      this.#o.accept(key, identity, remote);
      return true;
    } catch (error) {
      if (!isThicketError(error)) throw error;
      this.#drop(entry, describe(error), true);
      return false;
    }
  }

  // ── frames ────────────────────────────────────────────────────────────────────────────────────────────────────────────

  #frame(entry: Entry, generation: Generation, from: SocketAddress, socket: number, bytes: Uint8Array): void {
    const now = this.#o.clock.now();
    entry.keys.used(generation);
    switch (bytes[0]) {
      case frameKind.keepAlive:
        return entry.liveness.noise();
      case frameKind.ping: {
        entry.liveness.noise();
        entry.liveness.quiet();
        const pong = bytes.slice();
        pong[0] = frameKind.pong;
        this.#o.plane.linkSend(entry.link.id, pong, { to: { socket, remote: from } });
        return;
      }
      case frameKind.pong: {
        entry.liveness.noise();
        const moved = entry.liveness.pong(now, bytes);
        entry.link.rtt = entry.liveness.rtt;
        // The answer to an address probe, from the address probed: the neighbour really is there now.
        if (moved !== undefined && same(moved, from)) this.#move(entry, socket, from);
        return;
      }
      case frameKind.rekey1:
        return entry.keys.question(bytes.subarray(1), now);
      case frameKind.rekey2:
        entry.keys.answer(bytes.subarray(1), now);
        entry.link.generation = entry.keys.generation;
        return;
      case frameKind.goodbye:
        return this.#drop(entry, 'the neighbour said goodbye', false);
      default:
        this.#o.listener.linkFrame(entry.link, generation, bytes);
    }
  }

  #probe(entry: Entry, socket: number, remote: SocketAddress): void {
    const frame = entry.liveness.addressProbe(this.#o.clock.now(), remote);
    if (frame !== undefined) this.#o.plane.linkSend(entry.link.id, frame, { to: { socket, remote } });
  }

  #move(entry: Entry, socket: number, remote: SocketAddress): void {
    this.#o.plane.linkMove(entry.link.id, socket, remote);
    entry.link.remote = remote;
    entry.link.socket = socket;
  }

  /** A question under the keys in use. */
  #ask(entry: Entry): void {
    for (const frame of entry.liveness.probeNow(this.#o.clock.now())) this.#o.plane.linkSend(entry.link.id, frame.bytes);
  }

  // ── beginning and end ─────────────────────────────────────────────────────────────────────────────────────────────────

  #install(
    link: LinkId,
    established: EstablishedLink,
    receiveIndex: number,
    socket: number,
    remote: SocketAddress,
    initiator: boolean,
  ): Generation {
    const generation = this.#o.handles.generation();
    const { sendKey, receiveKey, hopSecret, peerIndex: sendIndex } = established;
    const keys = { receiveIndex, sendIndex, sendKey, receiveKey, hopSecret };
    this.#o.plane.linkInstall({ link, generation, socket, remote, initiator, ...keys, confirmed: initiator });
    return generation;
  }

  #newEntry(
    id: LinkId,
    role: LinkRole,
    generation: Generation,
    established: EstablishedLink,
    socket: number,
    remote: SocketAddress,
  ): Entry {
    const now = this.#o.clock.now();
    const { plane, handshakes, handles, log, self, rekey: interval } = this.#o;
    const { peer: key, identity, epoch } = established;
    const keys = new LinkKeys({ ...established, generation }, now, {
      plane,
      handshakes,
      handles,
      log,
      self,
      peer: key,
      link: id,
      initiator: role === 'parent',
      interval,
      at: () => ({ socket: entry.link.socket, remote: entry.link.remote }),
      show: () => this.#ask(entry),
      renew: () => this.#renew(entry),
    });
    const entry: Entry = {
      link: { id, key, role, identity, generation, remote, socket, epoch, rtt: undefined, since: now },
      liveness: new Liveness(now, randomU64, role === 'parent' ? 'child' : 'parent'),
      keys,
      shown: handshakes().shown(self),
      renewing: false,
    };
    this.#byKey.set(key, entry);
    this.#byId.set(id, entry);
    return entry;
  }

  #drop(entry: Entry, reason: string, goodbye: boolean): void {
    const { link } = entry;
    this.#byKey.delete(link.key);
    this.#byId.delete(link.id);
    this.#remove(link.id, goodbye);
    this.#o.listener.linkDown(link, reason);
    this.#calls.restart(link.key);
  }

  #remove(id: LinkId, goodbye: boolean): void {
    // Nothing repeats what is lost of these; the neighbour would only find out by its own probes.
    for (let n = 0; goodbye && n < GOODBYES; n += 1) this.#o.plane.linkSend(id, Uint8Array.of(frameKind.goodbye));
    for (const [generation, pending] of this.#pending) if (pending.id === id) this.#pending.delete(generation);
    this.#o.plane.linkRemove(id);
  }

  #count(reason: string): void {
    this.counters[reason] = (this.counters[reason] ?? 0) + 1;
  }
}

const same = (a: SocketAddress, b: SocketAddress): boolean => a.host === b.host && a.port === b.port;
