/**
 * Sessions: end-to-end tunnels between one of our keys and a remote one. A session outlives its paths: when a hop forgets, the ends set
 * another path up and the flows go on. Paths are keyed apart from each other; a rekey happens inside a path and no relay notices.
 */
import type { DataPlaneEvent, Hop, Ingress, LinkId, PathId, SessionId } from '../dataplane/data-plane.js';
import { describe, ThicketError } from '../errors.js';
import { equalBytes, keyBytes, type PublicKey, type VerifiedIdentity } from '../trust/index.js';
import { Callers } from './callers.js';
import { Calls, pair } from './calls.js';
import { type Milliseconds, ms } from './clock.js';
import { Greeting } from './greeting.js';
import { randomU64 } from './handles.js';
import { PathRekey } from './path-rekey.js';
import type { Admit, Established } from './ports.js';
import type { IncomingSetup, Session, SessionsOptions } from './session.js';
import { controlKind, decodeHello, helloNonce, nonceFrame, readNonce } from './session-control.js';
import { type Entry, excessHalfOpen, newEntry, type Path, REDIAL_FIRST } from './session-entry.js';

export type { Session } from './session.js';

/** A path that nobody confirmed is forgotten. */
const HALF_OPEN = ms(10_000);
/** Packets under way on a replaced path still count for so long. */
const PATH_OVERLAP = ms(10_000);
/** Keys older than this are dead (WireGuard's REJECT_AFTER_TIME); then only a new path helps. */
const REFUSE_AFTER = ms(180_000);
/** Silence after something was sent that makes us ask; questions, one each `PROBE_EVERY`, until the path counts as dead. */
const PROBE_AFTER = ms(1_500);
const PROBE_EVERY = ms(500);
const PROBES = 6;
/** Longest wait between attempts to get a lost path back, and once it has been lost for `LOST_LONG`. */
const REDIAL_LONGEST = ms(2_000);
const LOST_LONG = ms(60_000);
const REDIAL_RARELY = ms(30_000);
/** A session without traffic for so long is let go by whoever opened it. */
const IDLE = ms(30 * 60_000);
const MAX_SESSIONS = 4_096;
export class Sessions {
  readonly #o: SessionsOptions;
  readonly #byPair = new Map<string, Entry>();
  readonly #byId = new Map<SessionId, Entry>();
  readonly #calls: Calls;
  readonly #callers: Callers;
  #closed = false;

  constructor(options: SessionsOptions) {
    const { handshakes, paths, clock, listener } = options;
    this.#o = options;
    this.#callers = new Callers(clock);
    this.#calls = new Calls({
      handshakes,
      paths,
      clock,
      behind: (own, epoch) => listener.behind(own, epoch),
      established: (own, established, ingress, egress) => this.#established(own, established, ingress, egress),
    });
  }

  all(): Session[] {
    return [...this.#byId.values()].map((entry) => entry.session);
  }

  get(own: PublicKey, peer: PublicKey): Session | undefined {
    return this.#byPair.get(pair(own, peer))?.session;
  }

  byId(id: SessionId): Session | undefined {
    return this.#byId.get(id)?.session;
  }

  /** Resolves with a session that is up, setting it up first if needed. Rejects with a ThicketError. */
  dial(own: PublicKey, peer: PublicKey): Promise<Session> {
    const entry = this.#byPair.get(pair(own, peer));
    if (entry?.session.state === 'up') return Promise.resolve(entry.session);
    return this.#calls.dial(own, peer);
  }

  /** Somebody wants to send: get the path back if it is lost. */
  wake(session: SessionId): void {
    const entry = this.#byId.get(session);
    if (entry === undefined) return;
    entry.activeAt = this.#o.clock.now();
    if (entry.session.state === 'lost') this.#redial(entry);
  }

  /** One round trip through the session, by sealed control packets. */
  ping(id: SessionId, timeout: Milliseconds): Promise<Milliseconds> {
    const entry = this.#byId.get(id);
    if (entry === undefined) return Promise.reject(new ThicketError('SESSION_CLOSED', 'the session is closed'));
    const nonce = randomU64();
    return new Promise((resolve, reject) => {
      const cancel = this.#o.clock.after(timeout, () => {
        entry.pings.delete(nonce);
        reject(new ThicketError('TIMEOUT', 'no answer'));
      });
      entry.pings.set(nonce, {
        at: this.#o.clock.now(),
        done: (rtt) => {
          cancel();
          resolve(rtt);
        },
      });
      this.#send(entry, nonceFrame(controlKind.ping, nonce), undefined, true);
    });
  }

  /** Policy changed: tell the far end what it may reach now. */
  offer(id: SessionId): void {
    const entry = this.#byId.get(id);
    if (entry?.current !== undefined) this.#greet(entry, entry.current);
  }

  close(id: SessionId, reason: string): void {
    const entry = this.#byId.get(id);
    if (entry !== undefined) this.#end(entry, reason, true);
  }

  closeAll(reason: string): void {
    this.#closed = true;
    this.#calls.close();
    for (const entry of [...this.#byId.values()]) this.#end(entry, reason, true);
  }

  /** Where our certificates have changed far ends see the new ones in the handshake of another path; what flows goes on meanwhile. */
  renew(): void {
    for (const entry of this.#byId.values()) {
      const { current, session } = entry;
      if (current === undefined || !this.#o.isOwn(session.own)) continue;
      if (!equalBytes(current.shown, this.#o.handshakes().shown(session.own))) this.#renew(entry);
    }
  }

  /** Sessions whose far end's certificate, or its gateway's, is past its date at `time`, seconds since 1970: they are to be closed. */
  expired(time: number): Session[] {
    return this.all().filter(({ identity }) => identity.notAfter < time);
  }

  /** A hop of a path is gone (a relay said so, or the link went down): set another path up if anybody still cares. */
  pathLost(label: number, link: LinkId): void {
    for (const entry of this.#byId.values()) {
      for (const path of [...entry.paths.values()]) {
        if ((path.egress.label === label && path.egress.link === link) || (path.ingress.label === label && path.ingress.link === link)) {
          this.#forget(entry, path);
        }
      }
    }
  }

  linkLost(link: LinkId): void {
    for (const entry of this.#byId.values()) {
      for (const path of [...entry.paths.values()]) {
        if (path.egress.link === link || path.ingress.link === link) this.#forget(entry, path);
      }
    }
  }

  /** A parent is back: lost sessions needn't wait for their timers. */
  linkUp(): void {
    for (const entry of this.#byId.values()) {
      entry.redialWait = REDIAL_FIRST;
      entry.redialAt = ms(0);
    }
  }

  handle(event: DataPlaneEvent): void {
    switch (event.type) {
      case 'pathConfirmed': {
        const entry = this.#byId.get(event.session);
        const path = entry?.paths.get(event.path);
        if (entry && path) this.#pathConfirmed(entry, path);
        return;
      }
      case 'pathKeyConfirmed': {
        const entry = this.#byId.get(event.session);
        const path = entry?.paths.get(event.path);
        if (entry && path) path.rekey.confirmed(event.slot, this.#o.clock.now());
        return;
      }
      case 'sessionControl': {
        const entry = this.#byId.get(event.session);
        const path = entry?.paths.get(event.path);
        if (entry && path) this.#control(entry, path, event.bytes);
        return;
      }
      case 'rekeyNeeded': {
        this.#byId.get(event.session)?.paths.get(event.path)?.rekey.hurry();
        return;
      }
      default:
        return;
    }
  }

  /** Message 1 from somewhere for one of our keys. Throws a typed refusal; the caller keeps silent then. */
  incoming(setup: IncomingSetup): void {
    const { destination: own, message } = setup;
    if (this.#closed || !this.#o.isOwn(own)) return;
    const reads = this.#callers.enter(setup.renews);
    const admit: Admit = (peer, identity) => {
      if (identity === undefined) throw new ThicketError('NO_CERTIFICATE', 'a session needs a certificate');
      this.#o.admit(identity);
      // Both at once: the call of the lower key goes through, and is answered by who waits for its own.
      if (this.#calls.isCalling(own, peer) && Buffer.compare(keyBytes(own), keyBytes(peer)) < 0)
        throw new ThicketError('REFUSED', 'both ends call, and ours goes first');
    };
    const response = this.#o.handshakes().respondSession(own, message, admit, reads);
    const { established } = response;
    // A repeated question (its path stands already) or a refused epoch: an answer, and nothing to install.
    if (established?.identity === undefined) return setup.refuse(response.message);
    const { peer, identity } = established;
    const known = this.#byPair.get(pair(own, peer));
    if (known === undefined && this.#byId.size >= MAX_SESSIONS) throw new ThicketError('BUSY', 'too many sessions');
    this.#makeRoom(known);
    const entry = known ?? this.#open(own, peer, identity);
    const ingress = setup.reserve();
    this.#install(entry, established, identity, ingress, setup.egress, false);
    this.#calls.overtaken(own, peer);
    setup.answer(ingress, response.message);
  }

  /** Makes room for one more path of `known`, or of a new session. */
  #makeRoom(known: Entry | undefined): void {
    const excess = excessHalfOpen(this.#byId.values(), known);
    if (excess === undefined) return;
    const { entry, path } = excess;
    this.#letGo(entry, path);
    if (entry.paths.size === 0 && entry !== known && entry.session.state === 'dialing') this.#end(entry, 'nobody came back', false);
  }

  /** Retries, rekeys, probes and clean-up; called a few times a second. */
  tick(): void {
    if (this.#closed || this.#byId.size === 0) return;
    const now = this.#o.clock.now();
    const stats = new Map(this.#o.plane.stats().sessions.map((s) => [s.session, s]));
    for (const entry of [...this.#byId.values()]) {
      this.#expire(entry, now);
      if (!this.#byId.has(entry.session.id)) continue;
      const s = stats.get(entry.session.id);
      if (s !== undefined) {
        if (entry.silence.note(now, s.rxPackets, s.txPackets)) entry.probes = 0;
        if (s.flows > 0 && entry.silence.unused(now) === 0) entry.activeAt = now;
      }
      for (const path of entry.paths.values()) if (path.confirmed && path.replacedAt === undefined) path.rekey.tick(now);
      if (entry.session.state === 'lost' && now < entry.wantedUntil && now >= entry.redialAt) this.#redial(entry);
      if (entry.current === undefined) continue;
      this.#greetAgain(entry, now);
      this.#probeIfSilent(entry, now);
      if (entry.current?.initiator && now - entry.activeAt > IDLE) this.#end(entry, 'idle', true);
    }
  }

  // ── setting up ────────────────────────────────────────────────────────────────────────────────────────────────────────

  #established(own: PublicKey, established: Established, ingress: Ingress, egress: Hop): void {
    const identity = established.identity;
    if (identity === undefined) throw new ThicketError('NO_CERTIFICATE', 'the far end showed no certificate');
    this.#o.admit(identity);
    this.#callers.learn(established.peer);
    const entry = this.#byPair.get(pair(own, established.peer)) ?? this.#open(own, established.peer, identity);
    // The far end sends over this path only after our first valid packet.
    this.#switchTo(entry, this.#install(entry, established, identity, ingress, egress, true));
  }

  #open(own: PublicKey, peer: PublicKey, identity: VerifiedIdentity): Entry {
    const entry = newEntry({ id: this.#o.handles.session(), own, peer, identity }, this.#o.clock.now());
    this.#byPair.set(pair(own, peer), entry);
    this.#byId.set(entry.session.id, entry);
    this.#o.listener.sessionOpened(entry.session);
    return entry;
  }

  #install(entry: Entry, established: Established, identity: VerifiedIdentity, ingress: Ingress, egress: Hop, initiator: boolean): Path {
    const now = this.#o.clock.now();
    const id = this.#o.handles.path();
    const { session } = entry;
    const { plane, handshakes, log, rekey: interval } = this.#o;
    const rekey = new PathRekey(now, {
      plane,
      handshakes,
      log,
      path: id,
      own: session.own,
      peer: session.peer,
      binding: established.binding,
      chain: established.chain,
      initiator,
      interval,
      send: (bytes, wantsAnswer) => this.#send(entry, bytes, id, wantsAnswer),
      rekeyed: () => {
        session.rekeys += 1;
      },
      renew: () => this.#renew(entry),
    });
    const path: Path = {
      id,
      ingress,
      egress,
      initiator,
      identity,
      shown: handshakes().shown(session.own),
      createdAt: now,
      rekey,
      confirmed: initiator,
      proven: false,
      replacedAt: undefined,
    };
    entry.paths.set(id, path);
    const { sendKey, receiveKey } = established;
    plane.pathInstall({ path: id, session: session.id, ingress, egress, sendKey, receiveKey, confirmed: initiator });
    return path;
  }

  #pathConfirmed(entry: Entry, path: Path): void {
    if (path.confirmed) return;
    path.confirmed = true;
    path.proven = true;
    this.#callers.learn(entry.session.peer);
    // A straggler's first packet: the data plane must not go back to it.
    if (entry.current !== undefined && entry.current.id > path.id) return this.#letGo(entry, path);
    this.#switchTo(entry, path);
  }

  /** A new path, and with it whatever its handshake proved: nothing of that counts before. */
  #switchTo(entry: Entry, path: Path): void {
    const { session } = entry;
    const now = this.#o.clock.now();
    for (const other of entry.paths.values()) if (other !== path && other.confirmed) other.replacedAt ??= now;
    entry.current = path;
    session.identity = path.identity;
    session.egress = path.egress;
    session.ingress = path.ingress;
    session.state = 'up';
    entry.redialWait = REDIAL_FIRST;
    entry.probes = 0;
    this.#greet(entry, path);
    this.#calls.up(session);
    this.#o.listener.sessionUp(session);
  }

  /** Says what the far end may reach here, until it has heard. */
  #greet(entry: Entry, path: Path): void {
    entry.greeting = new Greeting(this.#o.offer(entry.session.own, entry.session.identity), path.id, this.#o.clock.now());
    this.#send(entry, entry.greeting.bytes, path.id, true);
  }

  #greetAgain(entry: Entry, now: Milliseconds): void {
    const { greeting, current } = entry;
    const due = greeting?.due(now);
    if (greeting === undefined || due === 'wait') return;
    if (due === 'again') return this.#send(entry, greeting.bytes, greeting.path, true);
    entry.greeting = undefined;
    // A way forth without a way back, or the other way round.
    if (current?.id === greeting.path && !current.proven) this.#letGo(entry, current);
  }

  /** `wantsAnswer`: silence after it means that the path is dead. */
  #send(entry: Entry, bytes: Uint8Array, path: PathId | undefined, wantsAnswer: boolean): void {
    if (!wantsAnswer) entry.silence.quiet();
    this.#o.plane.sessionSend(entry.session.id, bytes, path);
  }

  // ── keeping alive ─────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Closes a path of which relays and the far end may not know that it is over. */
  #letGo(entry: Entry, path: Path): void {
    this.#o.paths.close(path.ingress, path.egress);
    this.#forget(entry, path);
  }

  #forget(entry: Entry, path: Path): void {
    const { session } = entry;
    entry.paths.delete(path.id);
    this.#o.plane.pathRemove(path.id);
    if (entry.current !== path) return;
    entry.current = [...entry.paths.values()].filter((p) => p.confirmed).at(-1);
    session.egress = entry.current?.egress;
    session.ingress = entry.current?.ingress;
    if (entry.current !== undefined) {
      entry.current.replacedAt = undefined;
      return;
    }
    const now = this.#o.clock.now();
    session.state = 'lost';
    entry.lostAt = now;
    // The initiator comes back at once; the other side only if nobody did, so that they don't cross.
    entry.redialAt = path.initiator ? now : ms(now + 2_000);
    entry.wantedUntil = ms(now + IDLE);
  }

  #redial(entry: Entry): void {
    const { own, peer } = entry.session;
    entry.redialAt = ms(Number.POSITIVE_INFINITY);
    this.#calls.dial(own, peer).catch((error: unknown) => {
      this.#o.log.debug({ error: describe(error) }, 'a path could not be set up again yet');
      const now = this.#o.clock.now();
      entry.redialAt = ms(now + entry.redialWait);
      const longest = now - entry.lostAt < LOST_LONG ? REDIAL_LONGEST : REDIAL_RARELY;
      entry.redialWait = Math.min(entry.redialWait * 2, longest);
    });
  }

  /** Another path, beside the one in use. */
  #renew({ session }: Entry): void {
    this.#calls.dial(session.own, session.peer).catch((error: unknown) => {
      this.#o.log.debug({ error: describe(error) }, 'a path could not be renewed yet');
    });
  }

  #probeIfSilent(entry: Entry, now: Milliseconds): void {
    const { current } = entry;
    if (current === undefined || (entry.probes === 0 && entry.silence.lasts(now) < PROBE_AFTER)) return;
    if (now - entry.probedAt < PROBE_EVERY) return;
    if (entry.probes >= PROBES) {
      entry.probes = 0;
      return this.#letGo(entry, current);
    }
    entry.probes += 1;
    entry.probedAt = now;
    this.#send(entry, nonceFrame(controlKind.ping, randomU64()), current.id, false);
  }

  #expire(entry: Entry, now: Milliseconds): void {
    for (const path of [...entry.paths.values()]) {
      const halfOpen = !path.confirmed && now - path.createdAt > HALF_OPEN;
      const replaced = path.replacedAt !== undefined && now - path.replacedAt > PATH_OVERLAP;
      const stale = now - path.rekey.keyedAt > REFUSE_AFTER;
      if (halfOpen || replaced || stale) this.#letGo(entry, path);
    }
    const neverUp = entry.session.state === 'dialing' && entry.paths.size === 0;
    const unwanted = entry.session.state === 'lost' && now > entry.wantedUntil;
    if (neverUp || unwanted) this.#end(entry, 'nobody came back', false);
  }

  // ── control ───────────────────────────────────────────────────────────────────────────────────────────────────────────

  #control(entry: Entry, path: Path, bytes: Uint8Array): void {
    const now = this.#o.clock.now();
    const { session } = entry;
    path.proven = true;
    switch (bytes[0]) {
      case controlKind.ping: {
        entry.silence.noise();
        const nonce = readNonce(bytes);
        if (nonce !== undefined) this.#send(entry, nonceFrame(controlKind.pong, nonce), path.id, false);
        return;
      }
      case controlKind.pong: {
        entry.silence.noise();
        const nonce = readNonce(bytes);
        if (nonce === undefined || path.rekey.pong(nonce, now)) return;
        const waiting = entry.pings.get(nonce);
        entry.pings.delete(nonce);
        waiting?.done(ms(now - waiting.at));
        return;
      }
      case controlKind.rekey1:
        return path.rekey.question(bytes.subarray(1));
      case controlKind.rekey2:
        return path.rekey.answer(bytes.subarray(1), now);
      case controlKind.close:
        return this.#end(entry, 'the far end closed it', false);
      case controlKind.hello: {
        const offered = decodeHello(bytes);
        if (offered === undefined) return;
        const nonce = helloNonce(bytes);
        this.#send(entry, nonceFrame(controlKind.heard, nonce), path.id, false);
        if (entry.greeted === nonce && session.greeted) return;
        entry.greeted = nonce;
        session.offered = offered;
        session.greeted = true;
        this.#o.listener.sessionUp(session);
        return;
      }
      case controlKind.heard: {
        const nonce = readNonce(bytes);
        if (nonce !== undefined && nonce === entry.greeting?.nonce && entry.greeting.path === path.id) entry.greeting = undefined;
        return;
      }
      default:
        return;
    }
  }

  // ── the end ───────────────────────────────────────────────────────────────────────────────────────────────────────────

  #end(entry: Entry, reason: string, tell: boolean): void {
    const { session } = entry;
    if (tell && entry.current !== undefined) this.#send(entry, Uint8Array.of(controlKind.close, 0), undefined, false);
    for (const path of entry.paths.values()) this.#o.paths.close(path.ingress, path.egress);
    this.#byId.delete(session.id);
    this.#byPair.delete(pair(session.own, session.peer));
    this.#o.plane.sessionRemove(session.id);
    session.state = 'lost';
    this.#o.listener.sessionClosed(session, reason);
  }
}
