/**
 * Links: authenticated hops to the parents that we dial and the children that dial us. This file keeps who is connected under which
 * keys and when to shake hands again; what goes over a link is decided elsewhere.
 *
 * ```
 * parent:  idle ──dial──▶ calling ──message 2──▶ up ──no answer──▶ calling
 * child:   (message 1) ──▶ answered ──first valid frame──▶ up ──no answer, goodbye──▶ gone
 * ```
 */
import { lookup } from 'node:dns/promises';
import { isIP } from 'node:net';
import type { Logger } from 'pino';
import type { DataPlane, DataPlaneEvent, Generation, LinkId, SocketAddress } from '../dataplane/data-plane.js';
import { ThicketError } from '../errors.js';
import type { PublicKey, VerifiedIdentity } from '../trust/index.js';
import { type Clock, type Milliseconds, ms } from './clock.js';
import { type HandleSource, randomU32, randomU64 } from './handles.js';
import { frameKind, Liveness } from './liveness.js';
import type { EstablishedLink, Handshakes, LinkInitiation, RekeyInitiation } from './ports.js';

export type LinkRole = 'parent' | 'child';

/** A parent as configured: `udp://host:port#key`. */
export interface ParentAddress {
  readonly host: string;
  readonly port: number;
  readonly key: PublicKey;
}

/** A neighbour with live keys. */
export interface Link {
  readonly id: LinkId;
  readonly key: PublicKey;
  readonly role: LinkRole;
  readonly identity: VerifiedIdentity | undefined;
  /** What we send under. */
  readonly generation: Generation;
  readonly remote: SocketAddress;
  readonly socket: number;
  /** Boot epoch of the neighbour's running program. */
  readonly epoch: bigint;
  readonly rtt: Milliseconds | undefined;
  readonly since: Milliseconds;
}

export interface LinksListener {
  /** Keys agreed with a neighbour; `restarted`: it, or the link, is new, and labels over an earlier one are void. */
  linkUp(link: Link, restarted: boolean): void;
  linkDown(link: Link, reason: string): void;
  /** A control frame other than liveness and rekey, which are answered here. */
  linkFrame(link: Link, generation: Generation, frame: Uint8Array): void;
  /** Our boot epoch is behind what a neighbour has seen (a restored state directory): jump ahead. */
  behind(epoch: bigint): void;
}

export interface LinksOptions {
  readonly plane: DataPlane;
  readonly handshakes: () => Handshakes;
  readonly self: PublicKey;
  readonly clock: Clock;
  readonly handles: HandleSource;
  readonly log: Logger;
  readonly listener: LinksListener;
  /** Interval between rekeys of a link. */
  readonly rekey: () => Milliseconds;
  /** Throws a typed refusal unless we take this child: relay rules, caps. */
  readonly accept: (peer: PublicKey, identity: VerifiedIdentity | undefined, from: SocketAddress) => void;
}

/** First wait for an answer to message 1; doubled at each try up to the longest. */
const RETRY_FIRST = ms(300);
const RETRY_LONGEST = ms(4_000);
/** After so many unanswered tries the host name is resolved again. */
const TRIES_PER_ADDRESS = 3;
/** An answered child that sends no valid frame is forgotten after this. */
const HALF_OPEN = ms(15_000);
/** Old link keys still open frames for so long after newer ones were confirmed. */
const OVERLAP = ms(10_000);
const REKEY_RETRY = ms(1_000);
/** Children that may be half open at once, in all and under one key: what a flood, or replayed messages of a known one, can make us hold. */
const MAX_HALF_OPEN = 1_024;
const MAX_HALF_OPEN_PER_KEY = 4;
/** A link isn't given up while its far end is shaking hands anew, for so long. */
const RETURNING = ms(3_000);
/** A goodbye is said so often. */
const GOODBYES = 3;
/** New keys are shown to the far end so often until it uses them. */
const PROVE_EVERY = ms(500);

interface Entry {
  link: Mutable<Link>;
  liveness: Liveness;
  binding: Uint8Array;
  keyedAt: Milliseconds;
  /** True at the child, whose handshake made the link. */
  initiator: boolean;
  retired: { generation: Generation; at: Milliseconds }[];
  rekey: { generation: Generation; index: number; initiation: RekeyInitiation; sentAt: Milliseconds } | undefined;
  /** Keys that we send under and the far end hasn't used yet: it may not know that it can. */
  unproven: { generation: Generation; sentAt: Milliseconds } | undefined;
  /** The answer to the last rekey message 1, so that a repeated one gets the same. */
  answered: { question: Uint8Array; answer: Uint8Array; pending: Pending } | undefined;
}

/** Keys that the far end proposed and that its first valid frame will confirm. */
interface Pending {
  readonly key: PublicKey;
  readonly id: LinkId;
  readonly generation: Generation;
  readonly established: { readonly identity: VerifiedIdentity | undefined; readonly epoch: bigint; readonly binding: Uint8Array };
  readonly socket: number;
  readonly at: Milliseconds;
  readonly isRekey: boolean;
}

interface Calling {
  readonly address: ParentAddress;
  remote: SocketAddress | undefined;
  initiation: LinkInitiation | undefined;
  index: number;
  tries: number;
  nextAt: Milliseconds;
  resolving: boolean;
}

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

export class Links {
  readonly #o: LinksOptions;
  readonly #byKey = new Map<PublicKey, Entry>();
  readonly #byId = new Map<LinkId, Entry>();
  readonly #calling = new Map<PublicKey, Calling>();
  readonly #pending = new Map<Generation, Pending>();
  /** Refused handshake messages by reason, for `status`. */
  readonly counters: Record<string, number> = {};
  #closed = false;

  constructor(options: LinksOptions) {
    this.#o = options;
  }

  /** Dials a parent and keeps the link up until `removeParent`. */
  addParent(address: ParentAddress): void {
    if (this.#calling.has(address.key)) return;
    this.#calling.set(address.key, {
      address,
      remote: undefined,
      initiation: undefined,
      index: 0,
      tries: 0,
      nextAt: ms(0),
      resolving: false,
    });
    this.tick();
  }

  removeParent(key: PublicKey): void {
    this.#calling.delete(key);
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
    return [...this.#calling.values()].map(({ address }) => ({ address, link: this.byKey(address.key) }));
  }

  send(id: LinkId, frame: Uint8Array, generation?: Generation): void {
    if (!this.#byId.has(id)) return;
    this.#o.plane.linkSend(id, frame, generation === undefined ? {} : { generation });
  }

  /** Closes every link with a goodbye, so that neighbours needn't find out. */
  close(): void {
    this.#closed = true;
    for (const entry of [...this.#byKey.values()]) this.#drop(entry, 'closing', true);
    this.#calling.clear();
  }

  /** Ends a child's link (its network or key is no longer welcome). */
  disconnect(id: LinkId, reason: string): void {
    const entry = this.#byId.get(id);
    if (entry) this.#drop(entry, reason, true);
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
    for (const calling of this.#calling.values()) {
      if (!this.#callWanted(calling, now)) this.#callOff(calling);
      else if (!calling.resolving && now >= calling.nextAt) this.#call(calling, now);
    }
    for (const pending of [...this.#pending.values()]) if (now - pending.at >= HALF_OPEN) this.#forget(pending);
    if (this.#byKey.size === 0) return;
    const stats = new Map(this.#o.plane.stats().links.map((s) => [s.link, s]));
    for (const entry of [...this.#byKey.values()]) {
      const verdict = entry.liveness.tick(now, stats.get(entry.link.id));
      if (verdict.dead) {
        if (!this.#returns(entry, now)) this.#drop(entry, 'no answer', false);
        continue;
      }
      for (const frame of verdict.frames) this.#o.plane.linkSend(entry.link.id, frame.bytes, { keepAlive: frame.keepAlive });
      entry.link.rtt = entry.liveness.rtt;
      this.#proveIfNeeded(entry, now);
      entry.retired = entry.retired.filter(({ generation, at }) => {
        // As long as the far end may be sending under the old keys, they stay.
        if (now - at < OVERLAP || entry.unproven !== undefined) return true;
        this.#o.plane.linkRetire(entry.link.id, generation);
        return false;
      });
      this.#rekeyIfDue(entry, now);
    }
  }

  // ── dialling ──────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** A parent without a link is called; so is one that doesn't answer, since it may have started anew: its link stays until that is known. */
  #callWanted(calling: Calling, now: Milliseconds): boolean {
    const entry = this.#byKey.get(calling.address.key);
    return entry === undefined || entry.liveness.doubtful(now);
  }

  /** The parent has answered over its link after all. */
  #callOff(calling: Calling): void {
    if (calling.initiation === undefined) return;
    calling.initiation = undefined;
    calling.tries = 0;
    calling.nextAt = ms(0);
  }

  #call(calling: Calling, now: Milliseconds): void {
    if (calling.remote === undefined || calling.tries >= TRIES_PER_ADDRESS) {
      this.#resolve(calling);
      return;
    }
    if (calling.initiation === undefined) {
      calling.index = randomU32();
      calling.initiation = this.#o.handshakes().initiateLink(calling.address.key, calling.index);
    }
    calling.tries += 1;
    const wait = Math.min(RETRY_FIRST * 2 ** (calling.tries - 1), RETRY_LONGEST);
    calling.nextAt = ms(now + wait * (0.75 + Math.random() / 2));
    this.#o.plane.sendHandshake(this.#socketFor(calling.remote), calling.remote, calling.initiation.datagram);
  }

  #socketFor(remote: SocketAddress): number {
    const wanted = isIP(remote.host);
    const index = this.#o.plane.sockets.findIndex((socket) => isIP(socket.host) === wanted || socket.host === '::');
    return index < 0 ? 0 : index;
  }

  #resolve(calling: Calling): void {
    calling.resolving = true;
    const { host, port } = calling.address;
    const found = isIP(host) ? Promise.resolve([{ address: host }]) : lookup(host, { all: true });
    found
      .then((addresses) => {
        const pick = addresses[Math.floor(Math.random() * addresses.length)];
        if (pick === undefined) throw new Error('no address');
        calling.remote = { host: pick.address, port };
        calling.initiation = undefined;
        calling.tries = 0;
        calling.nextAt = ms(0);
      })
      .catch((error: unknown) => {
        calling.nextAt = ms(this.#o.clock.now() + RETRY_LONGEST);
        this.#o.log.debug({ error: String(error) }, 'a parent has no address yet');
      })
      .finally(() => {
        calling.resolving = false;
        if (!this.#closed && calling.nextAt === 0) this.tick();
      });
  }

  // ── handshakes ────────────────────────────────────────────────────────────────────────────────────────────────────────

  #handshake(socket: number, from: SocketAddress, bytes: Uint8Array): void {
    try {
      const type = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength).getUint32(0);
      if (type === 1) this.#answer(socket, from, bytes);
      else this.#answered(socket, from, bytes, type);
    } catch (error) {
      // Strangers' mistakes: silence towards them, a line for us.
      this.#count('handshake');
      this.#o.log.debug({ error: error instanceof Error ? error.message : String(error) }, 'a handshake was refused');
    }
  }

  #answered(socket: number, from: SocketAddress, bytes: Uint8Array, type: number): void {
    const index = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength).getUint32(type === 3 ? 4 : 8);
    for (const calling of this.#calling.values()) {
      const { initiation } = calling;
      if (initiation === undefined || calling.index !== index) continue;
      if (type === 3) {
        if (initiation.cookie(bytes)) calling.nextAt = this.#o.clock.now();
        else this.#count('cookie');
        return;
      }
      const result = initiation.finish(bytes);
      calling.initiation = undefined;
      calling.tries = 0;
      if ('behind' in result) {
        this.#o.listener.behind(result.behind);
        calling.nextAt = ms(0);
        return;
      }
      const live = this.#byKey.get(calling.address.key);
      if (live !== undefined && live.link.epoch === result.epoch) {
        // The same program as before holds the link's keys still: only datagrams were lost, and probes decide.
        calling.nextAt = ms(this.#o.clock.now() + RETRY_LONGEST);
        return;
      }
      if (live !== undefined) this.#drop(live, 'the neighbour has started anew', false);
      this.#adoptParent(calling, socket, from, result);
      return;
    }
    this.#count('unasked');
  }

  #count(reason: string): void {
    this.counters[reason] = (this.counters[reason] ?? 0) + 1;
  }

  #adoptParent(calling: Calling, socket: number, from: SocketAddress, established: EstablishedLink): void {
    const id = this.#o.handles.link();
    const generation = this.#o.handles.generation();
    this.#o.plane.linkInstall({
      link: id,
      generation,
      socket,
      remote: from,
      initiator: true,
      receiveIndex: calling.index,
      sendIndex: established.peerIndex,
      sendKey: established.sendKey,
      receiveKey: established.receiveKey,
      hopSecret: established.hopSecret,
      confirmed: true,
    });
    const entry = this.#newEntry(id, calling.address.key, 'parent', generation, established, socket, from);
    this.#byKey.set(entry.link.key, entry);
    this.#byId.set(id, entry);
    // The parent switches to these keys at our first valid frame: send it now.
    for (const frame of entry.liveness.probeNow(this.#o.clock.now())) this.#o.plane.linkSend(id, frame.bytes);
    this.#o.listener.linkUp(entry.link, true);
  }

  #newEntry(
    id: LinkId,
    key: PublicKey,
    role: LinkRole,
    generation: Generation,
    established: { readonly identity: VerifiedIdentity | undefined; readonly epoch: bigint; readonly binding: Uint8Array },
    socket: number,
    remote: SocketAddress,
  ): Entry {
    const now = this.#o.clock.now();
    return {
      link: {
        id,
        key,
        role,
        identity: established.identity,
        generation,
        remote,
        socket,
        epoch: established.epoch,
        rtt: undefined,
        since: now,
      },
      liveness: new Liveness(now, randomU64, role === 'parent' ? 'child' : 'parent'),
      binding: established.binding,
      keyedAt: now,
      initiator: role === 'parent',
      retired: [],
      rekey: undefined,
      unproven: undefined,
      answered: undefined,
    };
  }

  #answer(socket: number, from: SocketAddress, bytes: Uint8Array): void {
    const index = randomU32();
    const response = this.#o.handshakes().respondLink(bytes, index, (peer, identity) => {
      // A parent of ours can't be our child as well.
      if (this.#calling.has(peer)) throw new ThicketError('REFUSED', 'a parent called as a child');
      this.#o.accept(peer, identity, from);
    });
    const { established } = response;
    if (established !== undefined) {
      const known = this.#byKey.get(established.peer);
      const half = [...this.#pending.values()].filter((p) => p.key === established.peer && !p.isRekey);
      const id = known?.link.id ?? half[0]?.id ?? this.#o.handles.link();
      // The oldest gives way: whoever means it confirms within a round trip.
      const [oldest] = half.length >= MAX_HALF_OPEN_PER_KEY ? half : this.#pending.size >= MAX_HALF_OPEN ? this.#pending.values() : [];
      const generation = this.#o.handles.generation();
      this.#o.plane.linkInstall({
        link: id,
        generation,
        socket,
        remote: from,
        initiator: false,
        receiveIndex: index,
        sendIndex: established.peerIndex,
        sendKey: established.sendKey,
        receiveKey: established.receiveKey,
        hopSecret: established.hopSecret,
        confirmed: false,
      });
      this.#pending.set(generation, {
        key: established.peer,
        id,
        generation,
        established,
        socket,
        at: this.#o.clock.now(),
        isRekey: false,
      });
      if (oldest !== undefined) this.#forget(oldest);
    }
    this.#o.plane.sendHandshake(socket, from, response.datagram);
  }

  /** Proposed keys that nobody used, or that must make room. */
  #forget(pending: Pending): void {
    this.#pending.delete(pending.generation);
    const entry = this.#byId.get(pending.id);
    if (entry?.answered?.pending === pending) entry.answered = undefined;
    // The plane forgets a link with its last keys.
    this.#o.plane.linkRetire(pending.id, pending.generation);
  }

  /** Whether the far end of a silent link has just shaken hands anew. */
  #returns(entry: Entry, now: Milliseconds): boolean {
    return [...this.#pending.values()].some((p) => p.id === entry.link.id && !p.isRekey && now - p.at < RETURNING);
  }

  /** The first valid frame under keys that the far end proposed: only now do they replace anything. */
  #confirmed(id: LinkId, generation: Generation, from: SocketAddress): void {
    const pending = this.#pending.get(generation);
    if (pending === undefined) return;
    this.#pending.delete(generation);
    const now = this.#o.clock.now();
    const known = this.#byId.get(id);
    if (known === undefined) {
      const entry = this.#newEntry(id, pending.key, 'child', generation, pending.established, pending.socket, from);
      this.#byKey.set(pending.key, entry);
      this.#byId.set(id, entry);
      this.#o.listener.linkUp(entry.link, true);
      return;
    }
    known.retired.push({ generation: known.link.generation, at: now });
    known.link.generation = generation;
    known.binding = pending.established.binding;
    known.keyedAt = now;
    known.rekey = undefined;
    known.link.remote = from;
    if (pending.isRekey) return;
    known.answered = undefined;
    // A fresh handshake comes from a program that has lost its keys: even with the same boot epoch its labels are gone.
    known.link.socket = pending.socket;
    known.link.identity = pending.established.identity;
    known.link.epoch = pending.established.epoch;
    known.link.since = now;
    known.liveness = new Liveness(now, randomU64, 'parent');
    this.#o.listener.linkUp(known.link, true);
  }

  // ── frames ────────────────────────────────────────────────────────────────────────────────────────────────────────────

  #frame(entry: Entry, generation: Generation, from: SocketAddress, socket: number, bytes: Uint8Array): void {
    const now = this.#o.clock.now();
    if (generation === entry.unproven?.generation) entry.unproven = undefined;
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
        if (moved !== undefined && moved.host === from.host && moved.port === from.port) {
          this.#o.plane.linkMove(entry.link.id, socket, from);
          entry.link.remote = from;
          entry.link.socket = socket;
        }
        return;
      }
      case frameKind.rekey1:
        return this.#rekeyAsked(entry, bytes);
      case frameKind.rekey2:
        return this.#rekeyAnswered(entry, bytes, now);
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

  // ── rekeys ────────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** The child proposes new keys; only when it doesn't for long does the parent let the link go. */
  #rekeyIfDue(entry: Entry, now: Milliseconds): void {
    if (!entry.initiator) return;
    if (entry.rekey === undefined) {
      if (now - entry.keyedAt < this.#o.rekey()) return;
      const index = randomU32();
      const initiation = this.#o.handshakes().initiateRekey(this.#o.self, entry.link.key, entry.binding, index);
      entry.rekey = { generation: this.#o.handles.generation(), index, initiation, sentAt: ms(now - REKEY_RETRY) };
    }
    if (now - entry.rekey.sentAt < REKEY_RETRY) return;
    entry.rekey.sentAt = now;
    this.#o.plane.linkSend(entry.link.id, withKind(frameKind.rekey1, entry.rekey.initiation.message));
  }

  #rekeyAsked(entry: Entry, bytes: Uint8Array): void {
    const question = bytes.subarray(1);
    if (entry.answered !== undefined && equal(entry.answered.question, question)) {
      this.#o.plane.linkSend(entry.link.id, entry.answered.answer);
      return;
    }
    const index = randomU32();
    const response = this.#attempt(() => this.#o.handshakes().respondRekey(this.#o.self, entry.link.key, entry.binding, question, index));
    if (response === undefined) return;
    const generation = this.#o.handles.generation();
    const pending: Pending = {
      key: entry.link.key,
      id: entry.link.id,
      generation,
      established: { identity: entry.link.identity, epoch: entry.link.epoch, binding: entry.binding },
      socket: entry.link.socket,
      at: this.#o.clock.now(),
      isRekey: true,
    };
    this.#o.plane.linkInstall({
      link: entry.link.id,
      generation,
      socket: entry.link.socket,
      remote: entry.link.remote,
      initiator: entry.initiator,
      receiveIndex: index,
      sendIndex: response.peerIndex,
      sendKey: response.sendKey,
      receiveKey: response.receiveKey,
      hopSecret: response.hopSecret,
      confirmed: false,
    });
    this.#pending.set(generation, pending);
    entry.answered = { question: question.slice(), answer: withKind(frameKind.rekey2, response.message), pending };
    this.#o.plane.linkSend(entry.link.id, entry.answered.answer);
  }

  #rekeyAnswered(entry: Entry, bytes: Uint8Array, now: Milliseconds): void {
    const { rekey } = entry;
    if (rekey === undefined) return;
    const keys = this.#attempt(() => rekey.initiation.finish(bytes.subarray(1)));
    if (keys === undefined) return;
    entry.rekey = undefined;
    this.#o.plane.linkInstall({
      link: entry.link.id,
      generation: rekey.generation,
      socket: entry.link.socket,
      remote: entry.link.remote,
      initiator: entry.initiator,
      receiveIndex: rekey.index,
      sendIndex: keys.peerIndex,
      sendKey: keys.sendKey,
      receiveKey: keys.receiveKey,
      hopSecret: keys.hopSecret,
      confirmed: true,
    });
    entry.retired.push({ generation: entry.link.generation, at: now });
    entry.link.generation = rekey.generation;
    entry.keyedAt = now;
    entry.unproven = { generation: rekey.generation, sentAt: ms(now - PROVE_EVERY) };
    this.#proveIfNeeded(entry, now);
  }

  /** The far end sends under new keys from our first frame under them on; until it does, that frame may have been lost. */
  #proveIfNeeded(entry: Entry, now: Milliseconds): void {
    const { unproven } = entry;
    if (unproven === undefined || now - unproven.sentAt < PROVE_EVERY) return;
    unproven.sentAt = now;
    for (const frame of entry.liveness.probeNow(now)) this.#o.plane.linkSend(entry.link.id, frame.bytes);
  }

  #attempt<T>(run: () => T): T | undefined {
    try {
      return run();
    } catch (error) {
      this.#o.log.debug({ error: error instanceof Error ? error.message : String(error) }, 'a rekey was refused');
      return undefined;
    }
  }

  // ── the end ───────────────────────────────────────────────────────────────────────────────────────────────────────────

  #drop(entry: Entry, reason: string, goodbye: boolean): void {
    const { link } = entry;
    // Nothing repeats what is lost of these; the neighbour would only find out by its own probes.
    for (let n = 0; goodbye && n < GOODBYES; n += 1) this.#o.plane.linkSend(link.id, Uint8Array.of(frameKind.goodbye));
    this.#byKey.delete(link.key);
    this.#byId.delete(link.id);
    for (const [generation, pending] of this.#pending) if (pending.id === link.id) this.#pending.delete(generation);
    this.#o.plane.linkRemove(link.id);
    this.#o.listener.linkDown(link, reason);
    const calling = this.#calling.get(link.key);
    if (calling !== undefined) {
      calling.tries = 0;
      calling.initiation = undefined;
      calling.nextAt = this.#o.clock.now();
      // The address may have changed with the outage: ask again for a host name.
      calling.remote = isIP(calling.address.host) ? calling.remote : undefined;
    }
  }
}

function withKind(kind: number, body: Uint8Array): Uint8Array {
  const frame = new Uint8Array(1 + body.length);
  frame[0] = kind;
  frame.set(body, 1);
  return frame;
}

/** Public bytes only (repeated messages), so no constant time is needed. */
function equal(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}
