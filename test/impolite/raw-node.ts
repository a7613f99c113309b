/**
 * A node on a raw plane: the product's own links, handshakes, routing and sessions, wired as ts/node/node.ts wires them, without names, policy,
 * configuration, TUN and control. It can do everything that a certified node can, and nothing keeps it from doing what it may not.
 */
import { randomBytes } from 'node:crypto';
import { pino } from 'pino';
import type { DataPlaneEvent, LinkId, Listen, SessionPolicy } from '../../ts/dataplane/data-plane.js';
import { describe } from '../../ts/errors.js';
import { ms, systemClock } from '../../ts/node/clock.js';
import { HandleSource } from '../../ts/node/handles.js';
import { NodeHandshakes } from '../../ts/node/handshakes.js';
import { type Link, Links, type ParentAddress } from '../../ts/node/links.js';
import { type Session, Sessions } from '../../ts/node/sessions.js';
import { type ChildRights, Router } from '../../ts/routing/index.js';
import { BUILD_TIME, type KeyPair, keyBytes, NodeStore, type PublicKey } from '../../ts/trust/index.js';
import { LabError } from '../lab/errors.js';
import { Numbering } from './numbering.js';
import { RawPlane } from './raw-plane.js';

export interface RawNodeOptions {
  readonly pair: KeyPair;
  /** What it shows of itself; empty: no certificate. */
  readonly chain: readonly Uint8Array[];
  readonly listen?: readonly Listen[];
  readonly parents?: readonly ParentAddress[];
  /** Boot epoch; default 1. */
  readonly epoch?: bigint;
  /** What was told to have been seen of our epoch; returns the one to go on with. Default: one more. */
  readonly jump?: (current: bigint, seen: bigint) => bigint;
  /** Default: reaches out, lets nothing in. */
  readonly policy?: Omit<SessionPolicy, 'session'>;
  /** What children may announce here; default nothing. */
  readonly rights?: ChildRights;
  readonly rekeyMs?: number;
  /** See RawPlane. */
  readonly polite?: boolean;
}

const TICK = ms(50);
/** How often what was slipped in is repeated until it is acknowledged. */
const REPEAT = ms(500);
const CLOSED: Omit<SessionPolicy, 'session'> = { inbound: [], outbound: true, echo: false, rtspPorts: [] };

export class RawNode {
  readonly key: PublicKey;
  readonly plane: RawPlane;
  readonly links: Links;
  readonly sessions: Sessions;
  readonly router: Router;
  /** What the data plane told, but for handshakes and control frames. */
  readonly events: DataPlaneEvent[] = [];
  /** What others told us: frames of links, control packets of sessions. */
  readonly heard: { readonly in: 'link' | 'session'; readonly key: PublicKey | undefined; readonly bytes: Uint8Array }[] = [];
  /** Why set-ups for us were refused. */
  readonly refusals: string[] = [];
  readonly #o: RawNodeOptions;
  readonly #numbering = new Map<LinkId, Numbering>();
  readonly #stop: () => void;
  #epoch: bigint;
  #repeatedAt = systemClock.now();

  static async start(options: RawNodeOptions): Promise<RawNode> {
    let deliver: (event: DataPlaneEvent) => void = () => {};
    const plane = await RawPlane.open(
      { nodeKey: keyBytes(options.pair.publicKey), listen: options.listen ?? [], ...(options.polite ? { polite: true } : {}) },
      (events) => {
        for (const event of events) deliver(event);
      },
    );
    const node = new RawNode(options, plane);
    deliver = (event) => node.#handle(event);
    for (const parent of options.parents ?? []) node.links.addParent(parent);
    return node;
  }

  /** The node whose state lies in `folder`, made by `thicket node init` and `thicket join`. */
  static async fromState(folder: string, options: Omit<RawNodeOptions, 'pair' | 'chain' | 'epoch' | 'jump'>): Promise<RawNode> {
    const store = NodeStore.open(folder);
    const membership = store.membership(systemClock.wallSeconds());
    return RawNode.start({
      ...options,
      pair: store.pair,
      chain: membership === undefined ? [] : [membership.certificate],
      epoch: store.nextEpoch(),
      jump: (current, seen) => store.jumpEpoch(current, seen),
    });
  }

  private constructor(options: RawNodeOptions, plane: RawPlane) {
    this.#o = options;
    this.#epoch = options.epoch ?? 1n;
    this.key = options.pair.publicKey;
    this.plane = plane;
    const handles = new HandleSource();
    const handshakes = this.#makeHandshakes();
    const common = { plane, handshakes: () => handshakes, clock: systemClock, handles, log: pino({ level: 'silent' }) };
    const rekey = () => ms(options.rekeyMs ?? 120_000);
    this.links = new Links({
      ...common,
      self: this.key,
      rekey,
      accept: () => {},
      listener: {
        linkUp: (link, restarted) => {
          if (restarted) this.sessions.linkLost(link.id);
          this.#numbering.set(link.id, new Numbering());
          this.router.linkUp(link);
          if (link.role === 'parent') this.sessions.linkUp();
        },
        linkDown: (link) => {
          this.router.linkDown(link);
          this.sessions.linkLost(link.id);
        },
        linkRenewed: (link) => this.router.linkRenewed(link),
        linkFrame: (link, generation, frame) =>
          this.router.handle(link, generation, this.#numbering.get(link.id)?.incoming(frame) ?? frame),
        behind: (seen) => this.#behind(seen),
      },
    });
    this.router = this.#makeRouter();
    this.sessions = new Sessions({
      ...common,
      paths: {
        open: (destination, message, done) => this.router.open(destination, message, done),
        close: (ingress, egress) => this.router.setups.close(ingress, egress),
      },
      rekey,
      admit: () => {},
      offer: () => (options.policy?.inbound ?? []).map(({ protocol, port, rtsp }) => ({ protocol, port, rtsp: rtsp !== undefined })),
      isOwn: (key) => key === this.key,
      listener: {
        sessionOpened: (session) => this.#opened(session),
        sessionUp: () => {},
        sessionClosed: () => {},
        behind: (_, seen) => this.#behind(seen),
      },
    });
    this.#stop = systemClock.every(TICK, () => {
      this.links.tick();
      this.sessions.tick();
      this.router.tick();
      this.#repeat();
    });
  }

  /** The link to the first parent, once it is up. */
  parentLink(): Link | undefined {
    return this.links.all().find((link) => link.role === 'parent');
  }

  dial(peer: PublicKey): Promise<Session> {
    return this.sessions.dial(this.key, peer);
  }

  /** A control frame to our parent among those that must arrive in order, past our router. */
  slipIn(frame: Uint8Array): void {
    const link = this.parentLink();
    const numbering = link === undefined ? undefined : this.#numbering.get(link.id);
    if (link === undefined || numbering === undefined) throw new LabError('no parent is connected');
    this.links.send(link.id, numbering.slipIn(frame));
  }

  /** Without a goodbye: as if it had been killed. */
  async kill(): Promise<void> {
    this.#stop();
    await this.plane.close();
  }

  async stop(): Promise<void> {
    this.sessions.closeAll('the node stops');
    this.links.close();
    await this.kill();
  }

  #handle(event: DataPlaneEvent): void {
    if (event.type === 'linkFrame') this.heard.push({ in: 'link', key: this.links.get(event.link)?.key, bytes: event.bytes });
    if (event.type === 'sessionControl')
      this.heard.push({ in: 'session', key: this.sessions.byId(event.session)?.peer, bytes: event.bytes });
    if (event.type === 'labelUnknown') {
      this.router.setups.unknownLabel(event.link, event.label);
    } else {
      this.links.handle(event);
      this.sessions.handle(event);
    }
    if (event.type !== 'handshake' && event.type !== 'linkFrame' && event.type !== 'sessionControl') this.events.push(event);
  }

  #repeat(): void {
    const now = systemClock.now();
    if (now - this.#repeatedAt < REPEAT) return;
    this.#repeatedAt = now;
    for (const [link, numbering] of this.#numbering) for (const frame of numbering.waiting()) this.links.send(link, frame);
  }

  /** Addresses that mean nothing: without a TUN no program uses them, but the core wants some. */
  #opened(session: Session): void {
    const peer4 = `198.18.${(session.id >> 8) & 255}.${session.id & 255}`;
    this.plane.sessionOpen({ session: session.id, own4: '198.19.0.1', peer4 });
    this.plane.sessionPolicy({ session: session.id, ...(this.#o.policy ?? CLOSED) });
  }

  #behind(seen: bigint): void {
    this.#epoch = this.#o.jump?.(this.#epoch, seen) ?? seen + 1n;
  }

  #makeHandshakes(): NodeHandshakes {
    return new NodeHandshakes({
      node: this.key,
      pair: (key) => (key === this.key ? this.#o.pair : undefined),
      chain: () => ({ chain: this.#o.chain, grant: undefined }),
      epoch: () => this.#epoch,
      floor: () => BUILD_TIME,
      now: () => systemClock.wallSeconds(),
      generationOf: () => 0,
    });
  }

  #makeRouter(): Router {
    return new Router({
      pair: this.#o.pair,
      epoch: () => this.#epoch,
      parents: () => this.links.parents().map(({ address }) => address.key),
      names: () => [],
      endpoints: () => [],
      neighbour: (id) => this.links.get(id),
      neighbourByKey: (key) => this.links.byKey(key),
      rights: () => this.#o.rights ?? { relay: false, gateway: false, cap: 0 },
      send: (link, frame, generation) => this.links.send(link, this.#numbering.get(link)?.outgoing(frame) ?? frame, generation),
      disconnect: (link, reason) => this.links.disconnect(link, reason),
      labelForward: (ingress, egress) => this.plane.labelForward(ingress, egress),
      labelRemove: (label) => this.plane.labelRemove(label),
      pathLost: (label, link) => this.sessions.pathLost(label, link),
      now: () => systemClock.now(),
      random: (bytes) => randomBytes(bytes),
      incoming: (setup) => {
        try {
          this.sessions.incoming(setup);
        } catch (error) {
          this.refusals.push(describe(error));
        }
      },
    });
  }
}
