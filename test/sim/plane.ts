/**
 * An in-memory twin of native/core behind the `DataPlane` seam: links, labels, paths and sessions with the core's rules on confirmation, replay, roaming and
 * expiry (native/core/src: receive.rs, commands.rs, deliver.rs, tables.rs). Packets aren't enciphered: a datagram carries the name of the key that
 * would have sealed it, and opens under that key only.
 */
import type {
  DataPlane,
  DataPlaneEvent,
  DataPlaneStats,
  Generation,
  Hop,
  Label,
  LinkId,
  LinkKeys,
  OnEvents,
  PathId,
  PathKeys,
  SessionAddresses,
  SessionId,
  SessionPolicy,
  SocketAddress,
} from '../../ts/dataplane/data-plane.js';
import { writeMacs } from '../../ts/handshake/index.js';
import type { VirtualClock } from './clock.js';
import { type Datagram, text, type Wire } from './wire.js';

const KEY_LIFE = 180_000;
const LABEL_IDLE = 600_000;
const LABEL_HALF_OPEN = 20_000;
const FRAME_MAX = 1_200;
const CONTROL_MAX = 1_192;
const HANDSHAKE = 1_232;
const COOKIE = 64;
/** From the core's queue to JavaScript. */
const EVENT_DELAY = 0.1;
const WINDOW = 8_192;

class Window {
  #next = 0;
  readonly #seen = new Set<number>();

  isNewest(counter: number): boolean {
    return counter >= this.#next;
  }

  accept(counter: number): boolean {
    if (counter < this.#next - WINDOW || this.#seen.has(counter)) return false;
    this.#seen.add(counter);
    this.#next = Math.max(this.#next, counter + 1);
    if (this.#seen.size > 2 * WINDOW) for (const old of this.#seen) if (old < this.#next - WINDOW) this.#seen.delete(old);
    return true;
  }
}

interface LinkGeneration {
  readonly keys: LinkKeys;
  readonly window: Window;
  counter: number;
  readonly since: number;
  confirmed: boolean;
}

interface SimLink {
  readonly id: LinkId;
  remote: SocketAddress;
  readonly generations: LinkGeneration[];
  current: Generation;
  heard: number;
  roamed: number | undefined;
  reports: { at: number; count: number };
  rx: bigint;
  tx: bigint;
}

interface LabelEntry {
  readonly link: LinkId;
  readonly hop: string;
  readonly action:
    | { readonly to: 'path'; readonly path: PathId }
    | { readonly to: 'link'; readonly egress: Hop; readonly hop: string; readonly window: Window };
  valid: number;
  carried: boolean;
}

interface Slot {
  readonly send: string;
  readonly receive: string;
  readonly since: number;
  confirmed: boolean;
}

interface SimPath {
  readonly keys: PathKeys;
  readonly egressHop: string;
  readonly slots: (Slot | undefined)[];
  sendSlot: number;
  counter: number;
  readonly window: Window;
  confirmed: boolean;
}

interface SimSession {
  readonly id: SessionId;
  path: PathId | undefined;
  readonly paths: PathId[];
  rx: bigint;
  tx: bigint;
  heard: number | undefined;
  sent: number | undefined;
}

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

export interface SimPlaneOptions {
  readonly clock: VirtualClock;
  readonly wire: Wire;
  readonly address: SocketAddress;
  readonly nodeKey: Uint8Array;
  readonly listening: boolean;
  readonly onEvents: OnEvents;
  readonly onData: (session: SessionId, bytes: Uint8Array) => void;
}

export class SimPlane implements DataPlane {
  readonly backend = 'native';
  readonly sockets: readonly SocketAddress[];
  readonly tun = undefined;
  readonly userspace = undefined;
  readonly drops: Record<string, number> = {};
  relayed = 0;
  /** What programs have open in each session. */
  flows = 1;
  readonly #o: SimPlaneOptions;
  readonly #shut: (() => void)[] = [];
  readonly #links = new Map<LinkId, SimLink>();
  readonly #indexes = new Map<number, { link: LinkId; generation: Generation }>();
  readonly #addresses = new Map<string, LinkId>();
  readonly #labels = new Map<Label, LabelEntry>();
  readonly #paths = new Map<PathId, SimPath>();
  readonly #sessions = new Map<SessionId, SimSession>();
  #events: DataPlaneEvent[] = [];

  constructor(options: SimPlaneOptions) {
    this.#o = options;
    this.sockets = [options.address];
    this.#shut.push(options.wire.open(options.address, (from, datagram) => this.#receive(from, datagram)));
    this.#shut.push(options.clock.every(1_000 as never, () => this.#sweep()));
  }

  // ── what tests look at ────────────────────────────────────────────────────────────────────────────────────────────────

  get labels(): number {
    return this.#labels.size;
  }

  get relayLabels(): number {
    return [...this.#labels.values()].filter((entry) => entry.action.to === 'link').length;
  }

  get counts(): { links: number; indexes: number; paths: number; sessions: number } {
    return { links: this.#links.size, indexes: this.#indexes.size, paths: this.#paths.size, sessions: this.#sessions.size };
  }

  /** The path that a session sends over now. */
  currentPath(session: SessionId): PathKeys | undefined {
    const path = this.#sessions.get(session)?.path;
    return path === undefined ? undefined : this.#paths.get(path)?.keys;
  }

  /** A program's packet; false when there is no way for it now. */
  sendData(session: SessionId, bytes: Uint8Array): boolean {
    const path = this.#sessions.get(session)?.path;
    return path !== undefined && this.#seal(path, 'user', bytes);
  }

  /** Frees every relay label, as if nothing had come under any for ten minutes. */
  expire(): void {
    for (const [label, entry] of this.#labels) if (entry.action.to === 'link') this.#labels.delete(label);
  }

  /** As if 2^60 packets had been sealed. */
  exhaust(session: SessionId): void {
    const path = this.#sessions.get(session)?.path;
    if (path !== undefined) this.#emit({ type: 'rekeyNeeded', session, path });
  }

  // ── commands ──────────────────────────────────────────────────────────────────────────────────────────────────────────

  sendHandshake(_socket: number, to: SocketAddress, bytes: Uint8Array): void {
    this.#o.wire.send(this.#o.address, to, { type: 'handshake', bytes: bytes.slice() });
  }

  linkInstall(keys: LinkKeys): void {
    if (this.#indexes.has(keys.receiveIndex)) return this.#drop('staleCommand');
    const link: SimLink = this.#links.get(keys.link) ?? {
      id: keys.link,
      remote: keys.remote,
      generations: [],
      current: keys.generation,
      heard: this.#now,
      roamed: undefined,
      reports: { at: 0, count: 0 },
      rx: 0n,
      tx: 0n,
    };
    if (link.generations.some((g) => g.keys.generation >= keys.generation)) return this.#drop('staleCommand');
    this.#links.set(keys.link, link);
    const live = this.#isConfirmed(link);
    link.generations.push({ keys: { ...keys }, window: new Window(), counter: 0, since: this.#now, confirmed: keys.confirmed });
    if (keys.confirmed) {
      link.current = keys.generation;
      if (!live) this.#moveTo(link, keys.remote);
    }
    this.#indexes.set(keys.receiveIndex, { link: keys.link, generation: keys.generation });
  }

  linkSend(
    id: LinkId,
    frame: Uint8Array,
    options: { generation?: Generation; to?: { socket: number; remote: SocketAddress }; keepAlive?: boolean } = {},
  ): void {
    const link = this.#links.get(id);
    const keys = link?.generations.find((g) => g.keys.generation === (options.generation ?? link.current));
    if (link === undefined || keys === undefined || !keys.confirmed) return this.#drop('staleCommand');
    if (this.#now - keys.since > KEY_LIFE) return this.#drop('noKey');
    if (this.#now - keys.since > KEY_LIFE) return this.#drop('noKey');
    if (frame.length === 0 || frame.length > FRAME_MAX) return this.#drop('tooLong');
    const counter = keys.counter;
    keys.counter += 1;
    link.tx += 1n;
    this.#o.wire.send(this.#o.address, options.to?.remote ?? link.remote, {
      type: 'link',
      index: keys.keys.sendIndex,
      counter,
      key: hex(keys.keys.sendKey),
      plain: frame.slice(),
    });
  }

  linkMove(id: LinkId, _socket: number, remote: SocketAddress): void {
    const link = this.#links.get(id);
    if (link === undefined) return this.#drop('staleCommand');
    link.roamed = undefined;
    this.#moveTo(link, remote);
  }

  linkRetire(id: LinkId, generation: Generation): void {
    const link = this.#links.get(id);
    const at = link?.generations.findIndex((g) => g.keys.generation === generation) ?? -1;
    if (link === undefined || at < 0 || (generation === link.current && this.#isConfirmed(link))) return this.#drop('staleCommand');
    for (const gone of link.generations.splice(at, 1)) this.#indexes.delete(gone.keys.receiveIndex);
    if (link.generations.length === 0) this.linkRemove(id);
  }

  linkRemove(id: LinkId): void {
    const link = this.#links.get(id);
    if (link === undefined) return this.#drop('staleCommand');
    this.#links.delete(id);
    if (this.#addresses.get(text(link.remote)) === id) this.#addresses.delete(text(link.remote));
    for (const g of link.generations) this.#indexes.delete(g.keys.receiveIndex);
    for (const [label, entry] of this.#labels) {
      if (entry.link === id || (entry.action.to === 'link' && entry.action.egress.link === id)) this.#labels.delete(label);
    }
  }

  labelForward(ingress: Hop, egress: Hop): void {
    const [hop, onward] = [this.#hopKey(ingress, true), this.#hopKey(egress, false)];
    if (hop === undefined || onward === undefined) return this.#drop('staleCommand');
    this.#addLabel(ingress, hop, { to: 'link', egress, hop: onward, window: new Window() });
  }

  labelRemove(label: Label): void {
    if (!this.#labels.delete(label)) this.#drop('staleCommand');
  }

  sessionOpen(addresses: SessionAddresses): void {
    if (this.#sessions.has(addresses.session)) return;
    this.#sessions.set(addresses.session, {
      id: addresses.session,
      path: undefined,
      paths: [],
      rx: 0n,
      tx: 0n,
      heard: undefined,
      sent: undefined,
    });
  }

  sessionAliasRemove(_: SessionAddresses): void {}

  sessionPolicy(_: SessionPolicy): void {}

  pathInstall(keys: PathKeys): void {
    const session = this.#sessions.get(keys.session);
    const [hop, egressHop] = [this.#hopKey(keys.ingress, true), this.#hopKey(keys.egress, false)];
    if (session === undefined || this.#paths.has(keys.path) || hop === undefined || egressHop === undefined)
      return this.#drop('staleCommand');
    if (!this.#addLabel(keys.ingress, hop, { to: 'path', path: keys.path })) return;
    const slot: Slot = { send: hex(keys.sendKey), receive: hex(keys.receiveKey), since: this.#now, confirmed: keys.confirmed };
    this.#paths.set(keys.path, {
      keys: { ...keys },
      egressHop,
      slots: [slot, undefined, undefined, undefined],
      sendSlot: 0,
      counter: 0,
      window: new Window(),
      confirmed: keys.confirmed,
    });
    session.paths.push(keys.path);
    if (keys.confirmed) session.path = keys.path;
  }

  pathRekey(id: PathId, slot: number, sendKey: Uint8Array, receiveKey: Uint8Array, confirmed: boolean): void {
    const path = this.#paths.get(id);
    if (path === undefined || (slot & 3) === path.sendSlot) return this.#drop('staleCommand');
    path.slots[slot & 3] = { send: hex(sendKey), receive: hex(receiveKey), since: this.#now, confirmed };
    if (confirmed) path.sendSlot = slot & 3;
  }

  pathRetire(id: PathId, slot: number): void {
    const path = this.#paths.get(id);
    if (path === undefined || path.sendSlot === (slot & 3) || path.slots[slot & 3] === undefined) return this.#drop('staleCommand');
    path.slots[slot & 3] = undefined;
  }

  pathRemove(id: PathId): void {
    const path = this.#paths.get(id);
    if (path === undefined) return this.#drop('staleCommand');
    this.#paths.delete(id);
    this.#labels.delete(path.keys.ingress.label);
    const session = this.#sessions.get(path.keys.session);
    if (session === undefined) return;
    session.paths.splice(session.paths.indexOf(id), 1);
    if (session.path === id) session.path = session.paths.filter((p) => this.#paths.get(p)?.confirmed).at(-1);
  }

  sessionSend(session: SessionId, bytes: Uint8Array, path?: PathId): void {
    const id = path ?? this.#sessions.get(session)?.path;
    const found = id === undefined ? undefined : this.#paths.get(id);
    if (id === undefined || found?.keys.session !== session || !found.confirmed) return this.#drop('staleCommand');
    if (bytes.length === 0 || bytes.length > CONTROL_MAX) return this.#drop('tooLong');
    this.#seal(id, 'control', bytes);
  }

  sessionRemove(id: SessionId): void {
    const session = this.#sessions.get(id);
    if (session === undefined) return this.#drop('staleCommand');
    for (const path of [...session.paths]) this.pathRemove(path);
    this.#sessions.delete(id);
  }

  stats(): DataPlaneStats {
    const since = (at: number | undefined): number => (at === undefined ? -1 : this.#now - at);
    return {
      links: [...this.#links.values()].map((l) => ({
        link: l.id,
        rxBytes: l.rx * 100n,
        txBytes: l.tx * 100n,
        rxPackets: l.rx,
        txPackets: l.tx,
        idleMs: this.#now - l.heard,
      })),
      sessions: [...this.#sessions.values()].map((s) => ({
        session: s.id,
        rxBytes: s.rx * 100n,
        txBytes: s.tx * 100n,
        rxPackets: s.rx,
        txPackets: s.tx,
        flows: this.flows,
        idleMs: since(s.heard),
        sentMs: since(s.sent),
        pathMtu: 0,
      })),
      services: [],
      media: 0,
      relay: { packets: BigInt(this.relayed), bytes: 0n, labels: this.relayLabels },
      ledger: { payload: 0n, overhead: 0n, control: 0n, keepAlive: 0n },
      trains: { sealed: [], opened: [] },
      drops: Object.fromEntries(Object.entries(this.drops).map(([name, count]) => [name, BigInt(count)])),
    };
  }

  close(): Promise<void> {
    for (const shut of this.#shut.splice(0)) shut();
    this.#events = [];
    return Promise.resolve();
  }

  // ── from the wire ─────────────────────────────────────────────────────────────────────────────────────────────────────

  #receive(from: SocketAddress, datagram: Datagram): void {
    switch (datagram.type) {
      case 'handshake':
        return this.#handshake(from, datagram.bytes);
      case 'link':
        return this.#linkFrame(from, datagram);
      case 'data':
        return this.#data(from, datagram);
    }
  }

  #handshake(from: SocketAddress, bytes: Uint8Array): void {
    const type = bytes.length < 4 ? 0 : new DataView(bytes.buffer, bytes.byteOffset).getUint32(0);
    if (type < 1 || type > 3 || bytes.length !== (type === 3 ? COOKIE : HANDSHAKE)) return this.#drop('malformed');
    if (type === 1 && !this.#o.listening) return this.#drop('notListening');
    if (type !== 3) {
      const again = bytes.slice();
      writeMacs(again, this.#o.nodeKey, undefined);
      const holds = again.subarray(HANDSHAKE - 32, HANDSHAKE - 16).every((byte, i) => byte === bytes[HANDSHAKE - 32 + i]);
      if (!holds) return this.#drop('badMac1');
    }
    this.#emit({ type: 'handshake', socket: 0, from, bytes: bytes.slice() });
  }

  #linkFrame(from: SocketAddress, frame: Datagram & { type: 'link' }): void {
    const place = this.#indexes.get(frame.index);
    const link = place === undefined ? undefined : this.#links.get(place.link);
    if (place === undefined || link === undefined) return this.#drop('unknownIndex');
    const live = this.#isConfirmed(link);
    const newer = place.generation >= link.current || !live;
    const keys = link.generations.find((g) => g.keys.generation === place.generation);
    if (keys === undefined || this.#now - keys.since > KEY_LIFE) return this.#drop('noKey');
    if (hex(keys.keys.receiveKey) !== frame.key) return this.#drop('badTag');
    const newest = keys.window.isNewest(frame.counter);
    if (!keys.window.accept(frame.counter)) return this.#drop('replayed');
    const first = !keys.confirmed;
    keys.confirmed = true;
    link.heard = this.#now;
    link.rx += 1n;
    if (first && newer) {
      link.current = place.generation;
      const moved = live && text(link.remote) !== text(from);
      if (!moved) this.#moveTo(link, from);
      this.#emit({ type: 'linkConfirmed', link: link.id, generation: place.generation, from });
      link.roamed = undefined;
      if (moved) this.#roams(link, from);
    } else if (newest && place.generation === link.current) {
      this.#roams(link, from);
    }
    this.#emit({ type: 'linkFrame', link: link.id, generation: place.generation, socket: 0, from, bytes: frame.plain.slice() });
  }

  #data(from: SocketAddress, packet: Datagram & { type: 'data' }): void {
    const entry = this.#labels.get(packet.label as Label);
    if (entry === undefined) {
      this.#drop('unknownLabel');
      return this.#reportUnknown(from, packet.label as Label);
    }
    if (entry.hop !== packet.hop) return this.#drop('badHopTag');
    const valid = entry.action.to === 'path' ? this.#deliver(entry.action.path, packet) : this.#relay(entry.action, packet);
    if (!valid) return;
    entry.valid = this.#now;
    entry.carried = true;
    const link = this.#links.get(entry.link);
    if (link === undefined) return;
    link.heard = this.#now;
    link.rx += 1n;
    this.#roams(link, from);
  }

  #relay(action: LabelEntry['action'] & { to: 'link' }, packet: Datagram & { type: 'data' }): boolean {
    const egress = this.#links.get(action.egress.link);
    if (egress === undefined) return this.#not('noPath');
    if (!action.window.accept(packet.counter)) return this.#not('replayed');
    egress.tx += 1n;
    this.relayed += 1;
    this.#o.wire.send(this.#o.address, egress.remote, { ...packet, label: action.egress.label, hop: action.hop });
    return true;
  }

  #deliver(id: PathId, packet: Datagram & { type: 'data' }): boolean {
    const path = this.#paths.get(id);
    const slot = path?.slots[packet.slot];
    if (path === undefined || slot === undefined || this.#now - slot.since > KEY_LIFE) return this.#not('noKey');
    if (slot.receive !== packet.key) return this.#not('badTag');
    if (!path.window.accept(packet.counter)) return this.#not('replayed');
    const newPath = !path.confirmed;
    path.confirmed = true;
    const newSlot = !slot.confirmed;
    slot.confirmed = true;
    if (newSlot) path.sendSlot = packet.slot;
    const session = this.#sessions.get(path.keys.session);
    if (session === undefined) return true;
    session.heard = this.#now;
    session.rx += 1n;
    if (newPath) session.path = id;
    if (newPath) this.#emit({ type: 'pathConfirmed', session: session.id, path: id });
    else if (newSlot) this.#emit({ type: 'pathKeyConfirmed', session: session.id, path: id, slot: packet.slot });
    if (packet.kind === 'control') this.#emit({ type: 'sessionControl', session: session.id, path: id, bytes: packet.plain.slice() });
    else this.#o.onData(session.id, packet.plain);
    return true;
  }

  // ── inside ────────────────────────────────────────────────────────────────────────────────────────────────────────────

  get #now(): number {
    return this.#o.clock.now();
  }

  #seal(id: PathId, kind: 'control' | 'user', plain: Uint8Array): boolean {
    const path = this.#paths.get(id);
    const link = path === undefined ? undefined : this.#links.get(path.keys.egress.link);
    if (path === undefined || link === undefined) return this.#not('noPath');
    const slot = path.slots[path.sendSlot];
    if (slot === undefined || this.#now - slot.since > KEY_LIFE) return this.#not('noKey');
    const counter = path.counter;
    path.counter += 1;
    link.tx += 1n;
    const session = this.#sessions.get(path.keys.session);
    if (session !== undefined) {
      session.tx += 1n;
      session.sent = this.#now;
    }
    this.#o.wire.send(this.#o.address, link.remote, {
      type: 'data',
      label: path.keys.egress.label,
      slot: path.sendSlot,
      counter,
      hop: path.egressHop,
      key: slot.send,
      kind,
      plain: plain.slice(),
    });
    return true;
  }

  #hopKey(hop: Hop, incoming: boolean): string | undefined {
    const keys = this.#links.get(hop.link)?.generations.find((g) => g.keys.generation === hop.generation)?.keys;
    if (keys === undefined) return undefined;
    return `${hex(keys.hopSecret)} ${hop.label} ${keys.initiator === incoming ? 'from responder' : 'from initiator'}`;
  }

  #addLabel(ingress: Hop, hop: string, action: LabelEntry['action']): boolean {
    if (ingress.label < 256 || this.#labels.has(ingress.label)) return this.#not('staleCommand');
    this.#labels.set(ingress.label, { link: ingress.link, hop, action, valid: this.#now, carried: false });
    return true;
  }

  #isConfirmed(link: SimLink): boolean {
    return link.generations.some((g) => g.keys.generation === link.current && g.confirmed);
  }

  #moveTo(link: SimLink, remote: SocketAddress): void {
    if (this.#addresses.get(text(link.remote)) === link.id) this.#addresses.delete(text(link.remote));
    link.remote = remote;
    this.#addresses.set(text(remote), link.id);
  }

  #roams(link: SimLink, from: SocketAddress): void {
    const told = link.roamed !== undefined && this.#now - link.roamed < 500;
    if (text(link.remote) === text(from) || told) return;
    link.roamed = this.#now;
    this.#emit({ type: 'linkRoamed', link: link.id, socket: 0, from });
  }

  #reportUnknown(from: SocketAddress, label: Label): void {
    const id = this.#addresses.get(text(from));
    const link = id === undefined ? undefined : this.#links.get(id);
    if (link === undefined) return;
    if (this.#now - link.reports.at >= 1_000) link.reports = { at: this.#now, count: 0 };
    link.reports.count += 1;
    if (link.reports.count <= 20) this.#emit({ type: 'labelUnknown', link: link.id, label });
  }

  #sweep(): void {
    for (const [label, entry] of this.#labels) {
      const limit = entry.carried ? LABEL_IDLE : LABEL_HALF_OPEN;
      if (entry.action.to !== 'link' || this.#now - entry.valid < limit) continue;
      this.#labels.delete(label);
      this.#emit({ type: 'labelExpired', link: entry.link, label });
    }
  }

  #emit(event: DataPlaneEvent): void {
    this.#events.push(event);
    if (this.#events.length > 1) return;
    this.#o.clock.after(EVENT_DELAY, () => {
      const events = this.#events;
      this.#events = [];
      if (events.length > 0) this.#o.onEvents(events);
    });
  }

  #drop(reason: string): void {
    this.drops[reason] = (this.drops[reason] ?? 0) + 1;
  }

  #not(reason: string): false {
    this.#drop(reason);
    return false;
  }
}
