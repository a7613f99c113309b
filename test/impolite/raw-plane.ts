/**
 * A data plane for tests: the WASM core over node:dgram, without a TUN. It keeps the keys that it is given, so that a test can seal and send
 * whatever it likes, on any label, past every policy of its own side.
 *
 * An impolite one seals all session packets itself, with counters of its own: the core's and the crafted ones would else use the same numbers
 * twice. What the core seals by itself in sessions (refusals, echo replies) it throws away: it answers nobody.
 */
import { randomBytes } from 'node:crypto';
import { createSocket, type Socket } from 'node:dgram';
import { isIPv4 } from 'node:net';
import type {
  DataPlane,
  DataPlaneEvent,
  DataPlaneOptions,
  DataPlaneStats,
  Generation,
  Hop,
  Ingress,
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
import { LabError } from '../lab/errors.js';
import { inner, kind } from './inner.js';
import { type HopKey, type OutgoingDatagram, type WasmCore, wasm } from './wasm.js';

/** Datagrams remembered in each direction. */
const REMEMBERED = 4_096;

/** A datagram as it went out or came in. */
export interface Datagram {
  readonly socket: number;
  readonly remote: SocketAddress;
  readonly bytes: Uint8Array;
}

interface Bound {
  readonly socket: Socket;
  readonly dual: boolean;
}

interface RawPath {
  readonly keys: PathKeys;
  readonly slots: Map<number, Uint8Array>;
  slot: number;
  counter: bigint;
  confirmed: boolean;
}

export interface RawPlaneOptions extends DataPlaneOptions {
  /** The core seals, and its answers go out: then nothing can be crafted in sessions. Default false. */
  readonly polite?: boolean;
}

interface Crafted {
  /** Sealing key; default the path's, or 32 random bytes on a foreign label. */
  readonly sendKey?: Uint8Array;
  /** Key slot, 0–3. */
  readonly slot?: number;
  /** Default: the next one. */
  readonly counter?: bigint;
  /** 8 bytes; default: what the link's hop secret gives for the label. */
  readonly hopTag?: Uint8Array;
}

export class RawPlane implements DataPlane {
  readonly backend = 'wasm';
  readonly tun = undefined;
  readonly userspace = undefined;
  readonly sockets: readonly SocketAddress[];
  /** Every datagram sent and received, oldest first, up to a bound. */
  readonly sent: Datagram[] = [];
  readonly received: Datagram[] = [];
  /** IP packets that policy let through to local programs, of which there are none. */
  readonly delivered: Uint8Array[] = [];
  readonly #core: WasmCore;
  readonly #bound: readonly Bound[];
  readonly #onEvents: OnEvents;
  readonly #polite: boolean;
  readonly #timer: NodeJS.Timeout;
  readonly #links = new Map<LinkId, LinkKeys[]>();
  readonly #paths = new Map<PathId, RawPath>();
  readonly #sessionTx = new Map<SessionId, { bytes: bigint; packets: bigint }>();
  #events: DataPlaneEvent[] = [];
  #closed = false;

  /** Binds as a real data plane does: `listen`, or one ephemeral dual-stack socket. */
  static async open(options: RawPlaneOptions, onEvents: OnEvents): Promise<RawPlane> {
    if (options.tun !== undefined) throw new LabError('a raw plane has no TUN');
    const leaf = options.listen.length === 0;
    const bound = leaf ? [await bindDual()] : await Promise.all(options.listen.map(({ host, port }) => bind(host, port)));
    return new RawPlane(options, bound, onEvents);
  }

  private constructor(options: RawPlaneOptions, bound: readonly Bound[], onEvents: OnEvents) {
    this.#core = new wasm.WasmCore(options.nodeKey, randomBytes(32), options.listen.length > 0);
    this.#bound = bound;
    this.#onEvents = onEvents;
    this.#polite = options.polite ?? false;
    this.sockets = bound.map(({ socket }) => ({ host: socket.address().address, port: socket.address().port }));
    bound.forEach(({ socket }, index) => {
      socket.on('message', (bytes, from) =>
        this.#receive(index, { host: from.address.replace(/^::ffff:(?=\d+\.)/, ''), port: from.port }, bytes),
      );
      // Reports about earlier sends, as ECONNREFUSED: the datagram is lost, nothing else.
      socket.on('error', () => undefined);
    });
    this.#timer = setInterval(() => {
      this.#core.handleTimeout(now());
      this.#flush();
    }, 500);
    this.#timer.unref();
  }

  // ── crafting ──────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Link keys as they were handed over, newest last. */
  linkKeys(link: LinkId): readonly LinkKeys[] {
    return this.#links.get(link) ?? [];
  }

  /** Paths of a session as they were handed over, newest last. */
  pathKeys(session: SessionId): readonly PathKeys[] {
    return [...this.#paths.values()].filter((path) => path.keys.session === session).map((path) => path.keys);
  }

  /** Any inner packet over a session: `packet` is inner header and body, or whatever is to stand there. Returns the datagram that was sent. */
  sendInner(session: SessionId, packet: Uint8Array, crafted: Crafted & { readonly path?: PathId } = {}): Uint8Array {
    if (this.#polite) throw new LabError('a polite plane crafts nothing in sessions');
    const path = crafted.path === undefined ? this.#current(session) : this.#paths.get(crafted.path);
    if (path === undefined) throw new LabError(`session ${session} has no path`);
    const { egress } = path.keys;
    const slot = crafted.slot ?? path.slot;
    const counter = crafted.counter ?? path.counter++;
    const sendKey = crafted.sendKey ?? path.slots.get(slot) ?? path.keys.sendKey;
    const datagram = this.#dataPacket(egress, packet, { ...crafted, sendKey, slot, counter });
    const tx = this.#sessionTx.get(session) ?? { bytes: 0n, packets: 0n };
    this.#sessionTx.set(session, { bytes: tx.bytes + BigInt(datagram.length), packets: tx.packets + 1n });
    this.#sendOver(egress.link, datagram);
    return datagram;
  }

  /** A data packet over a link under any label, by default sealed under a random key and tagged as if the label had been announced to us. */
  sendOnLabel(link: LinkId, label: number, packet: Uint8Array, crafted: Crafted = {}): Uint8Array {
    const generation = this.linkKeys(link).at(-1)?.generation;
    if (generation === undefined) throw new LabError(`link ${link} has no keys`);
    const datagram = this.#dataPacket({ link, label: label as Label, generation }, packet, { sendKey: randomBytes(32), ...crafted });
    this.#sendOver(link, datagram);
    return datagram;
  }

  /** A link frame sealed here, with any counter, index or key. `linkSend` is for merely impolite content. */
  sendRawLinkFrame(
    link: LinkId,
    frame: Uint8Array,
    crafted: { readonly counter: bigint; readonly sendKey?: Uint8Array; readonly index?: number },
  ): Uint8Array {
    const keys = this.linkKeys(link).at(-1);
    if (keys === undefined) throw new LabError(`link ${link} has no keys`);
    const datagram = wasm.linkFrame(crafted.sendKey ?? keys.sendKey, crafted.counter, crafted.index ?? keys.sendIndex, frame);
    this.#sendOver(link, datagram);
    return datagram;
  }

  /** Any bytes to anybody, from our own socket. */
  sendDatagram(socket: number, to: SocketAddress, bytes: Uint8Array): void {
    const bound = this.#bound[socket];
    if (this.#closed || bound === undefined) return;
    remember(this.sent, { socket, remote: to, bytes });
    bound.socket.send(bytes, to.port, bound.dual && isIPv4(to.host) ? `::ffff:${to.host}` : to.host);
  }

  #dataPacket(hop: Hop, packet: Uint8Array, crafted: Crafted & { readonly sendKey: Uint8Array }): Uint8Array {
    const field = wasm.counterField(crafted.slot ?? 0, crafted.counter ?? 0n);
    const datagram = wasm.dataPacket(crafted.sendKey, field, hop.label, this.#hopKey(hop), packet);
    if (crafted.hopTag !== undefined) datagram.set(crafted.hopTag, 12);
    return datagram;
  }

  #hopKey(hop: Hop): HopKey {
    const keys = this.linkKeys(hop.link).find(({ generation }) => generation === hop.generation);
    if (keys === undefined) throw new LabError(`link ${hop.link} has no keys of generation ${hop.generation}`);
    return wasm.HopKey.derive(keys.hopSecret, hop.label, keys.initiator);
  }

  #sendOver(link: LinkId, datagram: Uint8Array): void {
    const keys = this.linkKeys(link).at(-1);
    if (keys !== undefined) this.sendDatagram(keys.socket, keys.remote, datagram);
  }

  /** The path that the core would send over: the newest confirmed one. */
  #current(session: SessionId): RawPath | undefined {
    return [...this.#paths.values()].filter((path) => path.keys.session === session && path.confirmed).at(-1);
  }

  // ── DataPlane ─────────────────────────────────────────────────────────────────────────────────────────────────────────

  sendHandshake(socket: number, to: SocketAddress, bytes: Uint8Array): void {
    this.#command('sendHandshake', { socket, to, bytes });
  }

  linkInstall(keys: LinkKeys): void {
    this.#links.set(keys.link, [...this.linkKeys(keys.link), keys]);
    this.#command('linkInstall', keys);
  }

  linkSend(link: LinkId, frame: Uint8Array, options: Parameters<DataPlane['linkSend']>[2] = {}): void {
    this.#command('linkSend', { link, frame, ...options });
  }

  linkMove(link: LinkId, socket: number, remote: SocketAddress): void {
    this.#links.set(
      link,
      this.linkKeys(link).map((keys) => ({ ...keys, socket, remote })),
    );
    this.#command('linkMove', { link, socket, remote });
  }

  linkRetire(link: LinkId, generation: Generation): void {
    this.#command('linkRetire', { link, generation });
  }

  linkRemove(link: LinkId): void {
    this.#command('linkRemove', { link });
  }

  labelForward(ingress: Ingress, egress: Hop): void {
    this.#command('labelForward', { ingress, egress });
  }

  labelRemove(label: Label): void {
    this.#command('labelRemove', { label });
  }

  sessionOpen(addresses: SessionAddresses): void {
    this.#command('sessionOpen', addresses);
  }

  sessionAliasRemove(addresses: SessionAddresses): void {
    this.#command('sessionAliasRemove', addresses);
  }

  sessionPolicy(policy: SessionPolicy): void {
    this.#command('sessionPolicy', policy);
  }

  pathInstall(keys: PathKeys): void {
    this.#paths.set(keys.path, { keys, slots: new Map([[0, keys.sendKey]]), slot: 0, counter: 0n, confirmed: keys.confirmed });
    this.#command('pathInstall', keys);
  }

  pathRekey(path: PathId, slot: number, sendKey: Uint8Array, receiveKey: Uint8Array, confirmed: boolean): void {
    const raw = this.#paths.get(path);
    raw?.slots.set(slot, sendKey);
    if (raw !== undefined && confirmed) raw.slot = slot;
    this.#command('pathRekey', { path, slot, sendKey, receiveKey, confirmed });
  }

  pathRetire(path: PathId, slot: number): void {
    this.#command('pathRetire', { path, slot });
  }

  pathRemove(path: PathId): void {
    this.#paths.delete(path);
    this.#command('pathRemove', { path });
  }

  sessionSend(session: SessionId, bytes: Uint8Array, path?: PathId): void {
    if (this.#polite) {
      this.#command('sessionSend', { session, bytes, path });
      return;
    }
    const known = path === undefined ? this.#current(session) : this.#paths.get(path);
    if (known?.confirmed) this.sendInner(session, inner(kind.control, bytes), { path: known.keys.path });
  }

  sessionRemove(session: SessionId): void {
    for (const { path } of this.pathKeys(session)) this.#paths.delete(path);
    this.#sessionTx.delete(session);
    this.#command('sessionRemove', { session });
  }

  stats(): DataPlaneStats {
    const stats = this.#core.stats(now());
    const sessions = stats.sessions.map((session) => {
      const tx = this.#sessionTx.get(session.session);
      return tx === undefined ? session : { ...session, txBytes: tx.bytes, txPackets: tx.packets };
    });
    return { ...stats, sessions };
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    clearInterval(this.#timer);
    await Promise.all(this.#bound.map(({ socket }) => new Promise<void>((resolve) => socket.close(resolve))));
    this.#core.free();
  }

  // ── driving the core ──────────────────────────────────────────────────────────────────────────────────────────────────

  #command(name: string, parameters: object): void {
    if (this.#closed) return;
    this.#core.command(now(), name, parameters);
    this.#flush();
  }

  #receive(socket: number, from: SocketAddress, bytes: Uint8Array): void {
    if (this.#closed) return;
    remember(this.received, { socket, remote: from, bytes });
    this.#core.handleDatagram(now(), socket, from.host, from.port, bytes);
    this.#flush();
  }

  #flush(): void {
    for (const datagram of this.#core.takeDatagrams()) {
      const { socket, host, port, bytes } = datagram;
      if (this.#polite || !isOwnData(datagram)) this.sendDatagram(socket, { host, port }, bytes);
    }
    this.delivered.push(...this.#core.takePackets());
    const events = this.#core.takeEvents();
    if (events.length === 0) return;
    for (const event of events) this.#note(event);
    // In a batch and later, as from another thread.
    if (this.#events.length === 0) setImmediate(() => this.#tell());
    this.#events.push(...events);
  }

  #tell(): void {
    const events = this.#events;
    this.#events = [];
    if (!this.#closed) this.#onEvents(events);
  }

  #note(event: DataPlaneEvent): void {
    if (event.type === 'pathConfirmed' || event.type === 'pathKeyConfirmed') {
      const path = this.#paths.get(event.path);
      if (path === undefined) return;
      path.confirmed = true;
      if (event.type === 'pathKeyConfirmed') path.slot = event.slot;
    }
  }
}

/** A session's packet that the core made, as against one that it forwards, a handshake or a link frame. */
function isOwnData({ relayed, bytes }: OutgoingDatagram): boolean {
  return !relayed && new DataView(bytes.buffer, bytes.byteOffset).getUint32(0) >= 256;
}

/** Microseconds, from one second on, as the core wants them. */
function now(): bigint {
  return 1_000_000n + BigInt(Math.round(performance.now() * 1_000));
}

function remember(log: Datagram[], datagram: Datagram): void {
  log.push(datagram);
  if (log.length > REMEMBERED) log.shift();
}

function bind(host: string, port: number): Promise<Bound> {
  const dual = host === '::';
  const socket = createSocket(isIPv4(host) ? { type: 'udp4' } : { type: 'udp6', ipv6Only: !dual });
  return new Promise((resolve, reject) => {
    socket.once('error', (cause) => reject(new LabError(`udp://${host}:${port} can't be bound`, { cause })));
    socket.bind({ address: host, port, exclusive: true }, () => resolve({ socket, dual }));
  });
}

async function bindDual(): Promise<Bound> {
  try {
    return await bind('::', 0);
  } catch {
    return bind('0.0.0.0', 0);
  }
}
