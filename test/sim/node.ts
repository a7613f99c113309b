/** A node on a simulated data plane: the product's links, handshakes, routing and sessions, wired as ts/node/node.ts wires them. */
import { randomBytes } from 'node:crypto';
import { pino } from 'pino';
import type { DataPlaneEvent, LinkId, SocketAddress } from '../../ts/dataplane/data-plane.js';
import { ms } from '../../ts/node/clock.js';
import { HandleSource } from '../../ts/node/handles.js';
import { NodeHandshakes } from '../../ts/node/handshakes.js';
import type { LinksOptions } from '../../ts/node/link.js';
import { type Link, Links, type ParentAddress } from '../../ts/node/links.js';
import type { OfferedService } from '../../ts/node/session-control.js';
import { type Session, Sessions } from '../../ts/node/sessions.js';
import { type ChildRights, decodeFrame, encodeFrame, type Hosted, Router } from '../../ts/routing/index.js';
import { type KeyPair, keyBytes, type PublicKey, TrustList } from '../../ts/trust/index.js';
import type { VirtualClock } from './clock.js';
import { SimPlane } from './plane.js';
import type { Wire } from './wire.js';

/** What outlives a crash of the program: what lies on disk, and where the host is. */
export interface NodeIdentity {
  readonly name: string;
  readonly pair: KeyPair;
  chain: readonly Uint8Array[];
  readonly network: PublicKey;
  readonly address: SocketAddress;
  /** Absent: relays and roots, which listen. */
  readonly leaf?: true;
  parents: ParentAddress[];
  endpoints: (Hosted & { readonly chain: readonly Uint8Array[]; readonly grant: Uint8Array | undefined })[];
  names: readonly KeyPair[];
  epoch: bigint;
  rekeyMs: number;
  cap: number;
  /** Whom the relay takes; anybody where absent. */
  accept?: LinksOptions['accept'];
}

export interface Arrival {
  readonly own: PublicKey;
  readonly peer: PublicKey;
  readonly bytes: Uint8Array;
  readonly at: number;
}

const TICK = ms(200);
/** A kernel that wants to send asks for the session so often at most. */
const ASK_EVERY = 500;

export class SimNode {
  readonly id: NodeIdentity;
  readonly plane: SimPlane;
  readonly links: Links;
  readonly sessions: Sessions;
  readonly router: Router;
  readonly arrived: Arrival[] = [];
  readonly events: { readonly at: number; readonly what: string }[] = [];
  readonly refusals: string[] = [];
  /** What the policy lets others reach here. */
  offers: readonly OfferedService[] = [{ protocol: 'tcp', port: 554, rtsp: true }];
  trust: TrustList;
  #forgetful = false;
  readonly #clock: VirtualClock;
  readonly #asked = new Map<string, number>();
  readonly #numbers = new Map<LinkId, number>();
  readonly #stop: (() => void)[] = [];

  constructor(id: NodeIdentity, clock: VirtualClock, wire: Wire) {
    this.id = id;
    this.#clock = clock;
    this.trust = new TrustList(id.network, []);
    // One more boot, on disk before it is used.
    id.epoch += 1n;
    const handles = new HandleSource();
    const log = pino({ enabled: process.env.SIM_LOG !== undefined, level: 'debug', base: { node: id.name } });
    const handshakes = new NodeHandshakes({
      pair: (key) => (key === id.pair.publicKey ? id.pair : this.#hosted(key)?.pair),
      chain: (key) => this.#hosted(key) ?? { chain: id.chain, grant: undefined },
      epoch: () => id.epoch,
      node: id.pair.publicKey,
      floor: () => 0,
      now: () => clock.wallSeconds(),
      generationOf: () => 0,
    });
    this.plane = new SimPlane({
      clock,
      wire,
      address: id.address,
      nodeKey: keyBytes(id.pair.publicKey),
      listening: id.leaf === undefined,
      onEvents: (events) => {
        for (const event of events) this.#handle(event);
      },
      onData: (session, bytes) => {
        const { own, peer } = this.sessions.byId(session) ?? {};
        if (own !== undefined && peer !== undefined) this.arrived.push({ own, peer, bytes, at: clock.now() });
      },
    });
    this.links = new Links({
      plane: this.plane,
      handshakes: () => handshakes,
      self: id.pair.publicKey,
      clock,
      handles,
      log,
      rekey: () => ms(id.rekeyMs),
      accept: (...child) => id.accept?.(...child),
      listener: {
        linkUp: (link, restarted) => {
          this.#note(`link up ${link.role}`);
          if (restarted) this.sessions.linkLost(link.id);
          this.router.linkUp(link);
          if (link.role === 'parent') this.sessions.linkUp();
        },
        linkDown: (link, reason) => {
          this.#note(`link down ${link.role}: ${reason}`);
          this.router.linkDown(link);
          this.sessions.linkLost(link.id);
        },
        linkRenewed: (link) => {
          this.#note(`link renewed ${link.role}`);
          this.router.linkRenewed(link);
        },
        linkFrame: (link, generation, frame) => this.router.handle(link, generation, frame),
        behind: (epoch) => this.#behind(epoch),
      },
    });
    this.router = new Router({
      pair: id.pair,
      epoch: () => id.epoch,
      parents: () => id.parents.map((parent) => parent.key),
      names: () => id.names,
      endpoints: () => id.endpoints,
      neighbour: (link) => this.links.get(link),
      neighbourByKey: (key) => this.links.byKey(key),
      rights: (child) => this.#rights(this.links.byKey(child)),
      send: (link, frame, generation) => {
        const sent = decodeFrame(frame);
        if (sent?.kind === 'numbered') this.#numbers.set(link, Math.max(sent.number + 1, this.#numbers.get(link) ?? 0));
        this.links.send(link, frame, generation);
      },
      disconnect: (link, reason) => this.links.disconnect(link, reason),
      labelForward: (ingress, egress) => this.plane.labelForward(ingress, egress),
      labelRemove: (label) => this.plane.labelRemove(label),
      pathLost: (label, link) => this.sessions.pathLost(label, link),
      now: () => clock.now(),
      random: (bytes) => randomBytes(bytes),
      incoming: (setup) => {
        try {
          this.sessions.incoming(setup);
        } catch (error) {
          this.refusals.push(error instanceof Error ? error.message : String(error));
        }
      },
    });
    this.sessions = new Sessions({
      plane: this.plane,
      handshakes: () => handshakes,
      paths: {
        open: (destination, message, done) => this.router.open(destination, message, done),
        close: (ingress, egress) => this.router.setups.close(ingress, egress),
      },
      clock,
      handles,
      log,
      rekey: () => ms(id.rekeyMs),
      admit: (identity) => this.trust.require(identity),
      offer: () => this.offers,
      isOwn: (key) => key === this.key || this.#hosted(key) !== undefined,
      listener: {
        sessionOpened: (session) => this.plane.sessionOpen({ session: session.id }),
        sessionUp: (session) => this.#note(`session up ${session.peer}`),
        sessionClosed: (session, reason) => this.#note(`session closed ${session.peer}: ${reason}`),
        behind: (_, epoch) => this.#behind(epoch),
      },
    });
    this.#stop.push(
      clock.every(TICK, () => {
        this.links.tick();
        this.links.expire(clock.wallSeconds());
        for (const session of this.sessions.expired(clock.wallSeconds())) this.sessions.close(session.id, 'its certificate has expired');
        if (!this.#forgetful) this.sessions.tick();
        this.router.tick();
      }),
    );
    for (const parent of id.parents) this.links.addParent(parent);
  }

  get key(): PublicKey {
    return this.id.pair.publicKey;
  }

  /** kill -9. */
  kill(): void {
    for (const stop of this.#stop.splice(0)) stop();
    void this.plane.close();
  }

  /** SIGTERM. */
  stop(): void {
    this.sessions.closeAll('the node stops');
    this.links.close();
    this.kill();
  }

  /** Another parent, as a reload would have it. */
  moveTo(parents: ParentAddress[]): void {
    for (const parent of this.id.parents) if (!parents.some((p) => p.key === parent.key)) this.links.removeParent(parent.key);
    this.id.parents = parents;
    for (const parent of parents) this.links.addParent(parent);
  }

  /** A program sends to a peer's local address: over the session, or asking for one as the core's `sessionNeeded` does. */
  send(peer: PublicKey, bytes: Uint8Array, own: PublicKey = this.key): boolean {
    const session = this.sessions.get(own, peer);
    if (session !== undefined && this.plane.sendData(session.id, bytes)) return true;
    const key = `${own} ${peer}`;
    if (this.#clock.now() - (this.#asked.get(key) ?? -ASK_EVERY) >= ASK_EVERY) {
      this.#asked.set(key, this.#clock.now());
      if (session !== undefined) this.sessions.wake(session.id);
      this.sessions.dial(own, peer).catch(() => {});
    }
    return false;
  }

  /** Stops looking after its sessions: no probe, no rekey, no close. */
  forget(): void {
    this.#forgetful = true;
  }

  /** Slips a frame of its own making in where the router's next one would go: from then on the neighbour hears nothing of what the router says. */
  slip(neighbour: PublicKey, body: Uint8Array): void {
    const link = this.links.byKey(neighbour);
    if (link === undefined) throw new RangeError('no link');
    const number = this.#numbers.get(link.id) ?? 0;
    this.#numbers.set(link.id, number + 1);
    this.links.send(link.id, encodeFrame({ kind: 'numbered', number, body }));
  }

  session(peer: PublicKey, own: PublicKey = this.key): Session | undefined {
    return this.sessions.get(own, peer);
  }

  times(what: string): number {
    return this.events.filter((event) => event.what.startsWith(what)).length;
  }

  #hosted(key: PublicKey): NodeIdentity['endpoints'][number] | undefined {
    return this.id.endpoints.find((endpoint) => endpoint.pair.publicKey === key);
  }

  #rights(child: Link | undefined): ChildRights {
    const rights = child?.identity?.rights ?? [];
    return { relay: rights.includes('relay'), gateway: rights.includes('gateway'), cap: this.id.cap };
  }

  #behind(seen: bigint): void {
    this.#note('behind');
    if (seen >= this.id.epoch) this.id.epoch = seen + 1n;
  }

  #note(what: string): void {
    this.events.push({ at: this.#clock.now(), what });
  }

  #handle(event: DataPlaneEvent): void {
    if (event.type === 'labelExpired') return this.router.setups.expired(event.label);
    if (event.type === 'labelUnknown') return this.router.setups.unknownLabel(event.link, event.label);
    this.links.handle(event);
    this.sessions.handle(event);
  }
}
