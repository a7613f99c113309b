/**
 * Sessions: end-to-end tunnels between one of our keys and a remote one. A session outlives its paths: when a hop forgets, the ends set
 * another path up and the flows go on. Paths are keyed apart from each other; a rekey happens inside a path and no relay notices.
 */
import type { Logger } from 'pino';
import type { DataPlane, DataPlaneEvent, Hop, Ingress, LinkId, PathId, SessionId } from '../dataplane/data-plane.js';
import { ThicketError } from '../errors.js';
import type { PublicKey, VerifiedIdentity } from '../trust/index.js';
import { type Clock, type Milliseconds, ms } from './clock.js';
import { type HandleSource, randomU64 } from './handles.js';
import type { Established, Handshakes, RekeyInitiation, SessionInitiation } from './ports.js';
import { controlKind, decodeHello, encodeHello, nonceFrame, type OfferedService, readNonce } from './session-control.js';

export type SessionState = 'dialing' | 'up' | 'lost';

export interface Session {
  readonly id: SessionId;
  readonly own: PublicKey;
  readonly peer: PublicKey;
  readonly identity: VerifiedIdentity;
  readonly state: SessionState;
  /** Rekeys done since the session began. */
  readonly rekeys: number;
  /** What the far end lets us reach there, and whether it has told us yet. */
  readonly offered: readonly OfferedService[];
  readonly greeted: boolean;
  readonly since: Milliseconds;
  /** The hop by which our packets leave, for `trace`. */
  readonly egress: Hop | undefined;
  readonly ingress: Ingress | undefined;
}

/** How a path is set up and let go through the tree (ts/routing). */
export interface PathSetup {
  /**
   * Sends message 1 towards `destination`; calls back once: with the answer and the hops, or with the reason why not.
   * The returned function gives up.
   */
  open(destination: PublicKey, message: Uint8Array, done: (result: SetupResult) => void): () => void;
  /** A sealed close towards both neighbours of the path: relays free their labels. */
  close(ingress: Ingress, egress: Hop): void;
}

export type SetupResult =
  | { readonly ok: true; readonly message: Uint8Array; readonly ingress: Ingress; readonly egress: Hop }
  | { readonly ok: false; readonly reason: 'noRoute' | 'noParent' | 'timeout' | 'refused' };

/** Set-up that arrived for one of our keys: answer with the label that packets to us shall carry. */
export interface IncomingSetup {
  readonly destination: PublicKey;
  readonly message: Uint8Array;
  /** The way back. */
  readonly egress: Hop;
  /** Picks our label and sends message 2; returns the ingress to install first. */
  readonly reserve: () => Ingress;
  readonly answer: (ingress: Ingress, message: Uint8Array) => void;
}

export interface SessionsListener {
  /** Both ends admit each other: addresses, policy. Called before the first path is installed. */
  sessionOpened(session: Session): void;
  sessionUp(session: Session): void;
  sessionClosed(session: Session, reason: string): void;
  behind(own: PublicKey, epoch: bigint): void;
}

export interface SessionsOptions {
  readonly plane: DataPlane;
  readonly handshakes: () => Handshakes;
  readonly paths: PathSetup;
  readonly clock: Clock;
  readonly handles: HandleSource;
  readonly log: Logger;
  readonly listener: SessionsListener;
  readonly rekey: () => Milliseconds;
  /** Throws a typed refusal unless we admit this identity to sessions. */
  readonly admit: (identity: VerifiedIdentity) => void;
  /** What `session`'s far end may reach here, told to it in the hello. */
  readonly offer: (own: PublicKey, identity: VerifiedIdentity) => readonly OfferedService[];
  readonly isOwn: (key: PublicKey) => boolean;
}

const DIAL_TIMEOUT = ms(4_000);
/** A path that nobody confirmed is forgotten. */
const HALF_OPEN = ms(10_000);
/** Packets under way on a replaced path still count for so long. */
const PATH_OVERLAP = ms(10_000);
const REKEY_RETRY = ms(1_000);
/** Keys older than this are dead (WireGuard's REJECT_AFTER_TIME); then only a new path helps. */
const REFUSE_AFTER = ms(180_000);
const PROBE_AFTER = ms(1_500);
const PROBES = 3;
/** First and longest wait between attempts to get a lost path back. */
const REDIAL_FIRST = ms(250);
const REDIAL_LONGEST = ms(2_000);
/** A session without traffic for so long is let go by whoever opened it. */
const IDLE = ms(30 * 60_000);
const MAX_SESSIONS = 4_096;
const MAX_HALF_OPEN = 512;

interface Path {
  readonly id: PathId;
  readonly ingress: Ingress;
  readonly egress: Hop;
  readonly initiator: boolean;
  readonly binding: Uint8Array;
  readonly createdAt: Milliseconds;
  confirmed: boolean;
  replacedAt: Milliseconds | undefined;
  slot: number;
  keyedAt: Milliseconds;
  retiring: { slot: number; at: Milliseconds }[];
  rekey: { initiation: RekeyInitiation; slot: number; sentAt: Milliseconds } | undefined;
  answered: { question: Uint8Array; answer: Uint8Array; slot: number; confirmed: boolean } | undefined;
}

interface Entry {
  session: { -readonly [K in keyof Session]: Session[K] };
  paths: Map<PathId, Path>;
  current: Path | undefined;
  dial: Dial | undefined;
  wantedUntil: Milliseconds;
  redialAt: Milliseconds;
  redialWait: number;
  probes: number;
  probedAt: Milliseconds;
  pings: Map<bigint, { at: Milliseconds; done: (rtt: Milliseconds) => void }>;
  lastTx: bigint;
  activeAt: Milliseconds;
}

interface Dial {
  readonly own: PublicKey;
  readonly peer: PublicKey;
  readonly promise: Promise<Session>;
  cancel: () => void;
}

export class Sessions {
  readonly #o: SessionsOptions;
  readonly #byPair = new Map<string, Entry>();
  readonly #byId = new Map<SessionId, Entry>();
  readonly #dials = new Map<string, Dial>();
  #closed = false;

  constructor(options: SessionsOptions) {
    this.#o = options;
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
    return this.#dial(own, peer);
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
      this.#o.plane.sessionSend(id, nonceFrame(controlKind.ping, nonce));
    });
  }

  /** Policy changed: tell the far end what it may reach now. */
  offer(id: SessionId): void {
    const entry = this.#byId.get(id);
    if (entry?.current === undefined) return;
    const { own, identity } = entry.session;
    this.#o.plane.sessionSend(id, encodeHello(this.#o.offer(own, identity)));
  }

  close(id: SessionId, reason: string): void {
    const entry = this.#byId.get(id);
    if (entry !== undefined) this.#end(entry, reason, true);
  }

  closeAll(reason: string): void {
    this.#closed = true;
    for (const dial of this.#dials.values()) dial.cancel();
    for (const entry of [...this.#byId.values()]) this.#end(entry, reason, true);
  }

  /** A hop of a path is gone (a relay said so, or the link went down): set another path up if anybody still cares. */
  pathLost(label: number, link: LinkId): void {
    for (const entry of this.#byId.values()) {
      for (const path of entry.paths.values()) {
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
        if (entry && path) this.#slotConfirmed(entry, path, event.slot);
        return;
      }
      case 'sessionControl': {
        const entry = this.#byId.get(event.session);
        const path = entry?.paths.get(event.path);
        if (entry && path) this.#control(entry, path, event.bytes);
        return;
      }
      case 'rekeyNeeded': {
        const path = this.#byId.get(event.session)?.paths.get(event.path);
        if (path) path.keyedAt = ms(-this.#o.rekey());
        return;
      }
      default:
        return;
    }
  }

  /** Message 1 from somewhere for one of our keys. Throws a typed refusal; the caller keeps silent then. */
  incoming(setup: IncomingSetup): void {
    if (this.#closed || !this.#o.isOwn(setup.destination)) return;
    const response = this.#o.handshakes().respondSession(setup.destination, setup.message, (_, identity) => {
      if (identity === undefined) throw new ThicketError('NO_CERTIFICATE', 'a session needs a certificate');
      this.#o.admit(identity);
    });
    const { established } = response;
    if (established?.identity === undefined) {
      // A repeated question (its path stands already) or a refused epoch: an answer, and nothing to install.
      setup.answer(setup.reserve(), response.message);
      return;
    }
    const { identity } = established;
    const known = this.#byPair.get(pair(setup.destination, established.peer));
    if (known === undefined && this.#byId.size >= MAX_SESSIONS) throw new ThicketError('BUSY', 'too many sessions');
    if (this.#halfOpen() >= MAX_HALF_OPEN) throw new ThicketError('BUSY', 'too many half-open sessions');
    const entry = known ?? this.#open(setup.destination, established.peer, identity);
    entry.session.identity = identity;
    const ingress = setup.reserve();
    this.#install(entry, established, ingress, setup.egress, false);
    setup.answer(ingress, response.message);
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
      if (s !== undefined && s.txPackets !== entry.lastTx) {
        entry.lastTx = s.txPackets;
        if (s.flows > 0) entry.activeAt = now;
      }
      if (entry.session.state === 'lost') {
        if (now < entry.wantedUntil && now >= entry.redialAt) this.#redial(entry);
        continue;
      }
      if (entry.current === undefined) continue;
      this.#rekeyIfDue(entry, entry.current, now);
      if (s !== undefined) this.#probeIfSilent(entry, now, s.idleMs, s.sentMs);
      if (entry.current?.initiator && now - entry.activeAt > IDLE) this.#end(entry, 'idle', true);
    }
  }

  // ── setting up ────────────────────────────────────────────────────────────────────────────────────────────────────────

  #dial(own: PublicKey, peer: PublicKey): Promise<Session> {
    const key = pair(own, peer);
    const under = this.#dials.get(key);
    if (under !== undefined) return under.promise;
    if (this.#closed) return Promise.reject(new ThicketError('CLOSING', 'the node is stopping'));
    let cancel = (): void => {};
    const promise = new Promise<Session>((resolve, reject) => {
      const started = this.#o.clock.now();
      let stop = (): void => {};
      const attempt = (): void => {
        let initiation: SessionInitiation;
        try {
          initiation = this.#o.handshakes().initiateSession(own, peer);
        } catch (error) {
          reject(error);
          return;
        }
        stop = this.#o.paths.open(peer, initiation.message, (result) => {
          try {
            if (!result.ok) throw failure(result.reason, peer);
            const established = initiation.finish(result.message);
            if ('behind' in established) {
              this.#o.listener.behind(own, established.behind);
              this.#o.paths.close(result.ingress, result.egress);
              if (this.#o.clock.now() - started > DIAL_TIMEOUT) throw failure('timeout', peer);
              attempt();
              return;
            }
            resolve(this.#established(own, established, result.ingress, result.egress));
          } catch (error) {
            if (result.ok) this.#o.paths.close(result.ingress, result.egress);
            reject(error);
          }
        });
      };
      const timer = this.#o.clock.after(DIAL_TIMEOUT, () => {
        stop();
        reject(failure('timeout', peer));
      });
      cancel = () => {
        timer();
        stop();
        reject(new ThicketError('CLOSING', 'the node is stopping'));
      };
      attempt();
    });
    const dial: Dial = { own, peer, promise, cancel: () => cancel() };
    this.#dials.set(key, dial);
    const done = (): void => {
      if (this.#dials.get(key) === dial) this.#dials.delete(key);
    };
    promise.then(done, done);
    return promise;
  }

  #established(own: PublicKey, established: Established, ingress: Ingress, egress: Hop): Session {
    const identity = established.identity;
    if (identity === undefined) throw new ThicketError('NO_CERTIFICATE', 'the far end showed no certificate');
    this.#o.admit(identity);
    const entry = this.#byPair.get(pair(own, established.peer)) ?? this.#open(own, established.peer, identity);
    entry.session.identity = identity;
    const path = this.#install(entry, established, ingress, egress, true);
    this.#switchTo(entry, path);
    // The far end sends over this path only after our first valid packet.
    this.#o.plane.sessionSend(entry.session.id, encodeHello(this.#o.offer(own, identity)), path.id);
    this.#up(entry);
    return entry.session;
  }

  #open(own: PublicKey, peer: PublicKey, identity: VerifiedIdentity): Entry {
    const now = this.#o.clock.now();
    const entry: Entry = {
      session: {
        id: this.#o.handles.session(),
        own,
        peer,
        identity,
        state: 'dialing',
        rekeys: 0,
        offered: [],
        greeted: false,
        since: now,
        egress: undefined,
        ingress: undefined,
      },
      paths: new Map(),
      current: undefined,
      dial: undefined,
      wantedUntil: ms(0),
      redialAt: ms(0),
      redialWait: REDIAL_FIRST,
      probes: 0,
      probedAt: ms(0),
      pings: new Map(),
      lastTx: 0n,
      activeAt: now,
    };
    this.#byPair.set(pair(own, peer), entry);
    this.#byId.set(entry.session.id, entry);
    this.#o.listener.sessionOpened(entry.session);
    return entry;
  }

  #install(entry: Entry, established: Established, ingress: Ingress, egress: Hop, confirmed: boolean): Path {
    const now = this.#o.clock.now();
    const path: Path = {
      id: this.#o.handles.path(),
      ingress,
      egress,
      initiator: confirmed,
      binding: established.binding,
      createdAt: now,
      confirmed,
      replacedAt: undefined,
      slot: 0,
      keyedAt: now,
      retiring: [],
      rekey: undefined,
      answered: undefined,
    };
    entry.paths.set(path.id, path);
    this.#o.plane.pathInstall({
      path: path.id,
      session: entry.session.id,
      ingress,
      egress,
      sendKey: established.sendKey,
      receiveKey: established.receiveKey,
      confirmed,
    });
    return path;
  }

  #pathConfirmed(entry: Entry, path: Path): void {
    if (path.confirmed) return;
    path.confirmed = true;
    this.#switchTo(entry, path);
    this.#o.plane.sessionSend(entry.session.id, encodeHello(this.#o.offer(entry.session.own, entry.session.identity)), path.id);
    this.#up(entry);
  }

  #switchTo(entry: Entry, path: Path): void {
    const now = this.#o.clock.now();
    for (const other of entry.paths.values()) if (other !== path && other.confirmed) other.replacedAt ??= now;
    path.replacedAt = undefined;
    entry.current = path;
    entry.session.egress = path.egress;
    entry.session.ingress = path.ingress;
  }

  #up(entry: Entry): void {
    const was = entry.session.state;
    entry.session.state = 'up';
    entry.redialWait = REDIAL_FIRST;
    entry.probes = 0;
    if (was !== 'up') this.#o.listener.sessionUp(entry.session);
  }

  #halfOpen(): number {
    let count = 0;
    for (const entry of this.#byId.values()) for (const path of entry.paths.values()) if (!path.confirmed) count += 1;
    return count;
  }

  // ── keeping alive ─────────────────────────────────────────────────────────────────────────────────────────────────────

  #forget(entry: Entry, path: Path): void {
    entry.paths.delete(path.id);
    this.#o.plane.pathRemove(path.id);
    if (entry.current !== path) return;
    entry.current = [...entry.paths.values()].filter((p) => p.confirmed).at(-1);
    entry.session.egress = entry.current?.egress;
    entry.session.ingress = entry.current?.ingress;
    if (entry.current !== undefined) return;
    const now = this.#o.clock.now();
    entry.session.state = 'lost';
    // The initiator comes back at once; the other side only if nobody did, so that they don't cross.
    entry.redialAt = path.initiator ? now : ms(now + 2_000);
    entry.wantedUntil = ms(now + IDLE);
  }

  #redial(entry: Entry): void {
    const now = this.#o.clock.now();
    entry.redialAt = ms(now + entry.redialWait);
    entry.redialWait = Math.min(entry.redialWait * 2, REDIAL_LONGEST);
    const { own, peer } = entry.session;
    this.#dial(own, peer).catch((error: unknown) => {
      this.#o.log.debug({ error: error instanceof Error ? error.message : String(error) }, 'a path could not be set up again yet');
      entry.redialAt = ms(this.#o.clock.now() + entry.redialWait);
    });
  }

  #probeIfSilent(entry: Entry, now: Milliseconds, idleMs: number, sentMs: number): void {
    const waiting = sentMs >= 0 && sentMs < idleMs + 1 && sentMs < 5_000 && (idleMs < 0 || idleMs > PROBE_AFTER);
    if (idleMs >= 0 && idleMs <= PROBE_AFTER) entry.probes = 0;
    if (!waiting && entry.probes === 0) return;
    if (now - entry.probedAt < 1_000) return;
    const { current } = entry;
    if (current === undefined) return;
    if (entry.probes >= PROBES) {
      entry.probes = 0;
      this.#o.paths.close(current.ingress, current.egress);
      this.#forget(entry, current);
      return;
    }
    entry.probes += 1;
    entry.probedAt = now;
    this.#o.plane.sessionSend(entry.session.id, nonceFrame(controlKind.ping, randomU64()));
  }

  #expire(entry: Entry, now: Milliseconds): void {
    for (const path of [...entry.paths.values()]) {
      const halfOpen = !path.confirmed && now - path.createdAt > HALF_OPEN;
      const replaced = path.replacedAt !== undefined && now - path.replacedAt > PATH_OVERLAP;
      const stale = now - path.keyedAt > REFUSE_AFTER;
      if (halfOpen || replaced || stale) {
        this.#o.paths.close(path.ingress, path.egress);
        this.#forget(entry, path);
        continue;
      }
      path.retiring = path.retiring.filter(({ slot, at }) => {
        if (now < at) return true;
        this.#o.plane.pathRetire(path.id, slot);
        return false;
      });
    }
    const neverUp = entry.session.state === 'dialing' && entry.paths.size === 0;
    const unwanted = entry.session.state === 'lost' && now > entry.wantedUntil;
    if (neverUp || unwanted) this.#end(entry, 'nobody came back', false);
  }

  // ── rekeys and control ────────────────────────────────────────────────────────────────────────────────────────────────

  #rekeyIfDue(entry: Entry, path: Path, now: Milliseconds): void {
    if (!path.initiator) return;
    if (path.rekey === undefined) {
      if (now - path.keyedAt < this.#o.rekey()) return;
      const initiation = this.#o.handshakes().initiateRekey(entry.session.own, entry.session.peer, path.binding, 0);
      path.rekey = { initiation, slot: (path.slot + 1) & 3, sentAt: ms(now - REKEY_RETRY) };
    }
    if (now - path.rekey.sentAt < REKEY_RETRY) return;
    path.rekey.sentAt = now;
    this.#o.plane.sessionSend(entry.session.id, prefixed(controlKind.rekey1, path.rekey.initiation.message), path.id);
  }

  #control(entry: Entry, path: Path, bytes: Uint8Array): void {
    const now = this.#o.clock.now();
    const { session } = entry;
    switch (bytes[0]) {
      case controlKind.ping: {
        const nonce = readNonce(bytes);
        if (nonce !== undefined) this.#o.plane.sessionSend(session.id, nonceFrame(controlKind.pong, nonce), path.id);
        return;
      }
      case controlKind.pong: {
        const nonce = readNonce(bytes);
        const waiting = nonce === undefined ? undefined : entry.pings.get(nonce);
        if (nonce === undefined || waiting === undefined) return;
        entry.pings.delete(nonce);
        waiting.done(ms(now - waiting.at));
        return;
      }
      case controlKind.rekey1:
        return this.#rekeyAsked(entry, path, bytes.subarray(1));
      case controlKind.rekey2:
        return this.#rekeyAnswered(entry, path, bytes.subarray(1), now);
      case controlKind.close:
        return this.#end(entry, 'the far end closed it', false);
      case controlKind.hello: {
        const offered = decodeHello(bytes);
        if (offered === undefined) return;
        session.offered = offered;
        session.greeted = true;
        this.#o.listener.sessionUp(session);
        return;
      }
      default:
        return;
    }
  }

  #rekeyAsked(entry: Entry, path: Path, question: Uint8Array): void {
    const { answered } = path;
    if (answered !== undefined && same(answered.question, question)) {
      this.#o.plane.sessionSend(entry.session.id, answered.answer, path.id);
      return;
    }
    // Until the last exchange is confirmed another one could only be an echo of it.
    if (answered !== undefined && !answered.confirmed) return;
    const slot = (path.slot + 1) & 3;
    try {
      const r = this.#o.handshakes().respondRekey(entry.session.own, entry.session.peer, path.binding, question, 0);
      this.#o.plane.pathRekey(path.id, slot, r.sendKey, r.receiveKey, false);
      path.answered = { question: question.slice(), answer: prefixed(controlKind.rekey2, r.message), slot, confirmed: false };
      this.#o.plane.sessionSend(entry.session.id, path.answered.answer, path.id);
    } catch (error) {
      this.#o.log.debug({ error: error instanceof Error ? error.message : String(error) }, 'a rekey was refused');
    }
  }

  #rekeyAnswered(entry: Entry, path: Path, answer: Uint8Array, now: Milliseconds): void {
    const { rekey } = path;
    if (rekey === undefined) return;
    try {
      const keys = rekey.initiation.finish(answer);
      path.rekey = undefined;
      this.#o.plane.pathRekey(path.id, rekey.slot, keys.sendKey, keys.receiveKey, true);
      this.#advance(entry, path, rekey.slot, now);
      // The far end switches at our first packet under the new keys.
      this.#o.plane.sessionSend(entry.session.id, nonceFrame(controlKind.pong, 0n), path.id);
    } catch (error) {
      this.#o.log.debug({ error: error instanceof Error ? error.message : String(error) }, "a rekey's answer was refused");
    }
  }

  #slotConfirmed(entry: Entry, path: Path, slot: number): void {
    if (path.answered === undefined || path.answered.slot !== slot || path.answered.confirmed) return;
    path.answered.confirmed = true;
    this.#advance(entry, path, slot, this.#o.clock.now());
  }

  #advance(entry: Entry, path: Path, slot: number, now: Milliseconds): void {
    // Packets sealed under the old keys are still under way; with four slots the old one must be free two rekeys later.
    const overlap = Math.min(PATH_OVERLAP, this.#o.rekey() * 1.5);
    path.retiring.push({ slot: path.slot, at: ms(now + overlap) });
    path.slot = slot;
    path.keyedAt = now;
    entry.session.rekeys += 1;
  }

  // ── the end ───────────────────────────────────────────────────────────────────────────────────────────────────────────

  #end(entry: Entry, reason: string, tell: boolean): void {
    const { session } = entry;
    if (tell && entry.current !== undefined) this.#o.plane.sessionSend(session.id, Uint8Array.of(controlKind.close, 0));
    for (const path of entry.paths.values()) this.#o.paths.close(path.ingress, path.egress);
    this.#byId.delete(session.id);
    this.#byPair.delete(pair(session.own, session.peer));
    this.#o.plane.sessionRemove(session.id);
    session.state = 'lost';
    this.#o.listener.sessionClosed(session, reason);
  }
}

const pair = (own: PublicKey, peer: PublicKey): string => `${own} ${peer}`;

function prefixed(kind: number, body: Uint8Array): Uint8Array {
  const frame = new Uint8Array(1 + body.length);
  frame[0] = kind;
  frame.set(body, 1);
  return frame;
}

/** Public bytes only (repeated messages), so no constant time is needed. */
function same(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}

function failure(reason: 'noRoute' | 'noParent' | 'timeout' | 'refused', peer: PublicKey): ThicketError {
  switch (reason) {
    case 'noRoute':
      return new ThicketError('NO_ROUTE', `nobody in the tree knows ${peer}: is its gateway up?`);
    case 'noParent':
      return new ThicketError('NO_PARENT', 'no parent is connected: see thicket status');
    case 'refused':
      return new ThicketError('REFUSED', `a relay refused the path to ${peer}: try again`);
    case 'timeout':
      return new ThicketError('TIMEOUT', `no answer from ${peer}: it may not admit us`);
  }
}
