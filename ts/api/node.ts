/** A node inside another program: it dials services, answers for services of its own, and does all that its configuration says. */
import { addAbortSignal, type Duplex } from 'node:stream';
import { configOf, parseNamePort } from '../config/index.js';
import { isThicketError, ThicketError } from '../errors.js';
import { ms, type RunningNode, startNode } from '../node/index.js';
import { NodeStore } from '../trust/index.js';
import { Dialled } from './dialled.js';
import { overlayError } from './errors.js';
import { logTo } from './log.js';
import type {
  Caller,
  DialOptions,
  Listener,
  ListenOptions,
  Membership,
  NodeConfig,
  OnStream,
  OpenOptions,
  Resolved,
  SigningRequest,
  StateOptions,
  Target,
} from './types.js';

/** For a way into the tree. */
const PATIENCE = ms(10_000);

export class Node {
  /** Its public key, which is its address. */
  readonly key: string;
  /** Resolves when it is closed; rejects when it can't go on: close it then. */
  readonly closed: Promise<void>;
  readonly #running: RunningNode;
  readonly #given: Given;
  #closing: Promise<void> | undefined;
  #resolveClosed: () => void = () => {};

  private constructor(running: RunningNode, given: Given) {
    this.key = running.key;
    this.#running = running;
    this.#given = given;
    const closed = new Promise<void>((resolve) => {
      this.#resolveClosed = resolve;
    });
    this.closed = Promise.race([closed, running.failed]);
    this.closed.catch(() => {});
  }

  /** Makes the node's key, at first, and tells what its network's owner has to certify. Throws a ThicketError. */
  static async init({ state }: StateOptions): Promise<SigningRequest> {
    const store = openStore(state);
    return { key: store.pair.publicKey, request: store.request() };
  }

  /** Takes what the owner signed: the text of `Network.certify`, or of the file that `thicket network sign --out` writes. Throws a ThicketError. */
  static async join({ state, certificate }: StateOptions & { readonly certificate: string }): Promise<Membership> {
    const { name, network, notAfter } = NodeStore.open(state).join(certificate, Math.floor(Date.now() / 1_000));
    return { name, network: network.key, notAfter: new Date(notAfter * 1_000) };
  }

  /**
   * Starts a node, in user-space mode unless `config.interface.mode` says otherwise: it needs no privileges then. It runs, and keeps the process from ending, until
   * `close`. Throws a ThicketError, with everything undone.
   */
  static async open({ state, config, onLog }: OpenOptions): Promise<Node> {
    const given = { config };
    const running = await startNode({
      stateFolder: state,
      configure: () => configOf(withDefaults(given.config), 'the configuration', state),
      openLog: (level) => Promise.resolve(logTo(level, onLog)),
    });
    return new Node(running, given);
  }

  /**
   * A TCP stream to a service. It may be written to at once, and emits `connect`; while no parent is connected yet, that is waited for, up to 10 s. It fails as a socket does, by `error` with an OverlayError (`code` is
   * ECONNREFUSED, ENOTFOUND, …). Throws a ThicketError, BAD_ARGUMENT, for what is no service.
   */
  dial(target: Target, { signal }: DialOptions = {}): Duplex {
    const { name, port } = typeof target === 'string' ? parseNamePort(target) : parseNamePort(`${target.name}:${target.port}`);
    const open = async (givenUp: AbortSignal): Promise<Duplex> => {
      await this.#reach();
      const { outward } = this.#running;
      return outward.connect(await outward.address(name), port, givenUp);
    };
    const stream = new Dialled(open, (error) => overlayError(error, 'connect', `${name}:${port}`));
    return signal === undefined ? stream : addAbortSignal(signal, stream);
  }

  /** Who has a name (`camera.home.thicket`, or a key), by what its certificate proves. Waits for a parent as `dial` does. Rejects with an OverlayError. */
  async resolve(name: string): Promise<Resolved> {
    try {
      await this.#reach();
      const { key, certifiedAs, network, ipv4, ipv6 } = await this.#running.control.resolve(name);
      return { key, name: certifiedAs, network, ipv4, ipv6: ipv6 ?? undefined };
    } catch (error) {
      throw overlayError(error, 'resolve', name);
    }
  }

  /** Answers for a service of an endpoint of this node's; user-space mode only. Throws a ThicketError. */
  async listen({ endpoint, port, allow = [] }: ListenOptions, onStream: OnStream): Promise<Listener> {
    this.#checkOpen();
    if (!Number.isInteger(port) || port < 1 || port > 65_535) {
      throw new ThicketError('BAD_ARGUMENT', `${port} is not a port: use a number from 1 to 65535`);
    }
    const close = await this.#running.answers.open({
      endpoint,
      port,
      allow,
      onStream: (stream, { peer, identity: { name, network, groups } }) => {
        const caller: Caller = { key: peer, name, network, groups };
        try {
          // At once: a caller who is gone already would be an error that nobody listens to.
          onStream(stream, caller);
        } catch (error) {
          // The program's own, and none of the node's.
          process.nextTick(() => {
            throw error;
          });
        }
      },
    });
    return { close };
  }

  /** Another configuration, as `thicket reload` would read it; resolves with the keys whose change needs another `open`. Throws, and then nothing has changed. */
  async configure(config: NodeConfig): Promise<readonly string[]> {
    this.#checkOpen();
    const before = this.#given.config;
    this.#given.config = config;
    try {
      return (await this.#running.reload()).restart;
    } catch (error) {
      this.#given.config = before;
      throw error;
    }
  }

  /** Ends all, streams too. May be called twice. */
  close(): Promise<void> {
    this.#closing ??= this.#running.stop().then(() => this.#resolveClosed());
    return this.#closing;
  }

  /** A node that has just been opened, or has lost its parent, will have one in a moment. */
  async #reach(): Promise<void> {
    this.#checkOpen();
    await this.#running.uplink.wait(PATIENCE);
    this.#checkOpen();
  }

  #checkOpen(): void {
    if (this.#closing !== undefined) throw new ThicketError('CLOSING', 'the node is closed: open it again');
  }
}

/** What a reload reads: by `configure`, or by `thicket reload`. */
interface Given {
  config: NodeConfig;
}

function openStore(state: string): NodeStore {
  try {
    return NodeStore.open(state);
  } catch (error) {
    if (isThicketError(error) && error.code === 'NO_KEY') return NodeStore.init(state);
    throw error;
  }
}

const withDefaults = (config: NodeConfig): NodeConfig => ({ ...config, interface: { mode: 'userspace', ...config.interface } });
