/**
 * The WASM backend: `DataPlane` over a thread that runs the core in WebAssembly, between sockets of Node.js. Portable, needs no privilege, and knows no
 * TUN. The main thread only sends orders and hears events.
 */
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { MessageChannel, type MessagePort, receiveMessageOnPort, Worker } from 'node:worker_threads';
import { describe, type ErrorCode, ThicketError } from '../../errors.js';
import { packageRoot } from '../../package-root.js';
import type {
  DataPlane,
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
} from '../data-plane.js';
import { HostStreams, isHostEvent } from '../streams.js';
import type { HostOrders } from '../userspace.js';
import type { Beginning, FromWorker, HostOrder, Order, ToWorker } from './protocol.js';

/** In the bundle, since threads are started by files. */
const WORKER = join(packageRoot, 'dist/dataplane/wasm/worker.js');
/** Bytes of `UserSpaceOptions.budget` when nothing is said. */
const HOST_BUDGET = 32 * 1_024 * 1_024;
/** Megabytes of the thread's short-lived objects. */
const YOUNG_MB = 1;
/** Nothing that the thread does takes so long; if it does, the node is better stopped than stuck. */
const PATIENCE_MS = 10_000;

/**
 * Opens the WASM data plane. Rejects with a ThicketError: NO_TUN when asked for one, BACKEND_UNAVAILABLE when the module can't be loaded here, ADDRESS_IN_USE or
 * NO_PRIVILEGE when an address can't be listened on.
 */
export async function openWasm(options: DataPlaneOptions, onEvents: OnEvents): Promise<DataPlane> {
  if (options.tun !== undefined) {
    throw new ThicketError('NO_TUN', `interface ${options.tun.name}: the wasm backend has no interface, set interface.mode to userspace`);
  }
  const { port1: counters, port2 } = new MessageChannel();
  const told = new SharedArrayBuffer(4);
  const beginning: Beginning = {
    nodeKey: Uint8Array.from(options.nodeKey),
    seed: Uint8Array.from(randomBytes(32)),
    budget: options.userspace === undefined ? 0 : (options.userspace.budget ?? HOST_BUDGET),
    listen: options.listen.map(({ host, port }) => ({ host, port })),
    told,
    counters: port2,
  };
  const worker = new Worker(WORKER, {
    workerData: beginning,
    transferList: [port2],
    name: 'thicket-packets',
    // What a datagram leaves behind is collected when so much is full, and each holds on to memory elsewhere.
    resourceLimits: { maxYoungGenerationSizeMb: YOUNG_MB },
  });
  return new Promise((resolve, reject) => {
    const failed = (error: unknown): void => {
      reject(explain(error));
      counters.close();
    };
    const gone = (): void => failed(new Error('its thread ended at once'));
    worker.once('error', failed);
    worker.once('exit', gone);
    worker.once('message', (first: FromWorker) => {
      if (first.type !== 'open') {
        failed(first);
        return;
      }
      worker.off('error', failed);
      worker.off('exit', gone);
      resolve(
        new WasmBackend({
          worker,
          counters,
          told: new Int32Array(told),
          sockets: first.sockets,
          userspace: beginning.budget > 0,
          onEvents,
        }),
      );
    });
  });
}

function explain(error: unknown): ThicketError {
  const { code, message } = error as { readonly code?: unknown; readonly message: string };
  const make = (to: ErrorCode, text: string): ThicketError => new ThicketError(to, text, { cause: error });
  switch (code) {
    case 'EADDRINUSE':
      return make('ADDRESS_IN_USE', `${message}: stop what listens there, or change listen`);
    case 'EADDRNOTAVAIL':
      return make('ADDRESS_IN_USE', `${message}: this host doesn't have that address, change listen`);
    case 'EACCES':
    case 'EPERM':
      return make('NO_PRIVILEGE', `${message}: run with the privilege to bind there`);
    case 'BACKEND_UNAVAILABLE':
      return make('BACKEND_UNAVAILABLE', message);
    default:
      return make('DATA_PLANE', `the data plane can't start: ${describe(error)}`);
  }
}

interface Parts {
  readonly worker: Worker;
  readonly counters: MessagePort;
  readonly told: Int32Array;
  readonly sockets: readonly SocketAddress[];
  readonly userspace: boolean;
  readonly onEvents: OnEvents;
}

class WasmBackend implements DataPlane {
  readonly backend = 'wasm';
  readonly tun = undefined;
  readonly userspace: HostStreams | undefined;
  readonly sockets: readonly SocketAddress[];
  readonly #worker: Worker;
  readonly #counters: MessagePort;
  readonly #told: Int32Array;
  readonly #onEvents: OnEvents;
  #orders: Order[] = [];
  #transfer: ArrayBuffer[] = [];
  #stats: DataPlaneStats | undefined;
  #gone: Promise<void>;
  #closed = false;

  constructor({ worker, counters, told, sockets, userspace, onEvents }: Parts) {
    this.userspace = userspace ? new HostStreams(hostOrders((order, transfer) => this.#order(order, transfer))) : undefined;
    this.sockets = sockets;
    this.#worker = worker;
    this.#counters = counters;
    this.#told = told;
    this.#onEvents = onEvents;
    worker.on('message', (message: FromWorker) => this.#hear(message));
    worker.on('error', (error) => this.#die(describe(error)));
    this.#gone = new Promise((resolve) => {
      worker.once('exit', () => {
        this.#die('its thread ended');
        resolve();
      });
    });
  }

  sendHandshake(socket: number, to: SocketAddress, bytes: Uint8Array): void {
    this.#command('sendHandshake', { socket, to, bytes: own(bytes) });
  }

  linkInstall(keys: LinkKeys): void {
    const { sendKey, receiveKey, hopSecret } = keys;
    this.#command('linkInstall', { ...keys, sendKey: own(sendKey), receiveKey: own(receiveKey), hopSecret: own(hopSecret) });
  }

  linkSend(link: LinkId, frame: Uint8Array, options: Parameters<DataPlane['linkSend']>[2] = {}): void {
    this.#command('linkSend', { ...options, link, frame: own(frame) });
  }

  linkMove(link: LinkId, socket: number, remote: SocketAddress): void {
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
    this.#command('pathInstall', { ...keys, sendKey: own(keys.sendKey), receiveKey: own(keys.receiveKey) });
  }

  pathRekey(path: PathId, slot: number, sendKey: Uint8Array, receiveKey: Uint8Array, confirmed: boolean): void {
    this.#command('pathRekey', { path, slot, sendKey: own(sendKey), receiveKey: own(receiveKey), confirmed });
  }

  pathRetire(path: PathId, slot: number): void {
    this.#command('pathRetire', { path, slot });
  }

  pathRemove(path: PathId): void {
    this.#command('pathRemove', { path });
  }

  sessionSend(session: SessionId, bytes: Uint8Array, path?: PathId): void {
    this.#command('sessionSend', { session, bytes: own(bytes), path });
  }

  sessionRemove(session: SessionId): void {
    this.#command('sessionRemove', { session });
  }

  stats(): DataPlaneStats {
    if (!this.#closed) {
      this.#flush();
      const before = Atomics.load(this.#told, 0);
      this.#post({ type: 'stats' });
      Atomics.wait(this.#told, 0, before, PATIENCE_MS);
      const got = receiveMessageOnPort(this.#counters) as { readonly message: DataPlaneStats } | undefined;
      if (got !== undefined) this.#stats = got.message;
    }
    if (this.#stats === undefined) throw new ThicketError('DATA_PLANE', 'the data plane tells no counters: restart the node');
    return this.#stats;
  }

  async close(): Promise<void> {
    if (!this.#closed) {
      this.#flush();
      this.#post({ type: 'close' });
      this.#closed = true;
    }
    await this.#gone;
    this.userspace?.close();
    this.#counters.close();
  }

  #command(name: string, parameters: object): void {
    this.#order({ name, parameters }, []);
  }

  /** All orders of one turn go together. */
  #order(order: Order, transfer: readonly ArrayBuffer[]): void {
    if (this.#closed) return;
    if (this.#orders.length === 0) queueMicrotask(() => this.#flush());
    this.#orders.push(order);
    this.#transfer.push(...transfer);
  }

  #flush(): void {
    if (this.#orders.length === 0 || this.#closed) return;
    const orders = this.#orders;
    this.#worker.postMessage({ type: 'orders', orders } satisfies ToWorker, this.#transfer);
    this.#orders = [];
    this.#transfer = [];
  }

  #post(message: ToWorker): void {
    this.#worker.postMessage(message);
  }

  #hear(message: FromWorker): void {
    if (message.type !== 'events' || this.#closed) return;
    this.#post({ type: 'heard' });
    const { events } = message;
    this.#onEvents(this.userspace === undefined ? events.filter((event) => !isHostEvent(event)) : this.userspace.translate(events));
  }

  /** The thread ended by itself. */
  #die(why: string): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#onEvents([{ type: 'fatal', message: `the data plane stopped: ${why}` }]);
  }
}

/** A copy without whatever else lies in the same buffer, for all of that would be sent. */
function own(bytes: Uint8Array): Uint8Array {
  return bytes.byteLength === bytes.buffer.byteLength ? bytes : bytes.slice();
}

/** Orders for streams, as messages. Their bytes are copied once, here, and handed over. */
function hostOrders(order: (order: HostOrder, transfer: readonly ArrayBuffer[]) => void): HostOrders {
  return {
    streamDial: (stream, own, peer, port) => order({ type: 'streamDial', stream, own, peer, port }, []),
    streamWrite: (stream, bytes) => {
      const copy = Uint8Array.from(bytes);
      order({ type: 'streamWrite', stream, bytes: copy }, [copy.buffer]);
    },
    streamRead: (stream, bytes) => order({ type: 'streamRead', stream, bytes }, []),
    streamFinish: (stream) => order({ type: 'streamFinish', stream }, []),
    streamAbort: (stream) => order({ type: 'streamAbort', stream }, []),
    datagramsOpen: (port, own) => order({ type: 'datagramsOpen', port, own }, []),
    datagramsSend: (port, peer, peerPort, bytes) => {
      const copy = Uint8Array.from(bytes);
      order({ type: 'datagramsSend', port, peer, peerPort, bytes: copy }, [copy.buffer]);
    },
    datagramsClose: (port) => order({ type: 'datagramsClose', port }, []),
  };
}
