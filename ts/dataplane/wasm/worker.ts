/** The thread that moves packets for the WASM backend. Started by backend.ts, which speaks first. */
import { type MessagePort, parentPort, workerData } from 'node:worker_threads';
import { describe } from '../../errors.js';
import type { DataPlaneEvent } from '../data-plane.js';
import type { HostEvent } from '../userspace.js';
import { Driver } from './driver.js';
import { loadModule } from './module.js';
import type { Beginning, FromWorker, ToWorker } from './protocol.js';
import { openSockets } from './sockets.js';

/** Events told at once, and batches that may be on their way. */
const EVENTS = 1_024;
const BATCHES = 4;

class Thread {
  readonly #port: MessagePort;
  readonly #beginning: Beginning;
  readonly #driver: Driver;
  readonly #told: Int32Array;
  #unheard = 0;

  static async start(port: MessagePort, beginning: Beginning): Promise<void> {
    const module = loadModule();
    const bound = await openSockets(beginning.listen);
    const thread: Thread = new Thread(port, beginning, (onSettled) => {
      const { nodeKey, seed, listen, budget } = beginning;
      return new Driver({ module, nodeKey, seed, listening: listen.length > 0, budget, bound, onSettled });
    });
    thread.#post({ type: 'open', sockets: bound.map(({ address }) => address) });
    bound.forEach(({ socket }, index) => {
      const [received, sent] = [socket.getRecvBufferSize(), socket.getSendBufferSize()].map((bytes) => Math.floor(bytes / 1_024));
      thread.#driver.log('debug', `UDP socket ${index}: buffers of ${received} KiB in and ${sent} KiB out`);
    });
    thread.#tell();
  }

  private constructor(port: MessagePort, beginning: Beginning, drive: (onSettled: () => void) => Driver) {
    this.#port = port;
    this.#beginning = beginning;
    this.#told = new Int32Array(beginning.told);
    this.#driver = drive(() => this.#tell());
    port.on('message', (message: ToWorker) => this.#hear(message));
  }

  #hear(message: ToWorker): void {
    switch (message.type) {
      case 'orders':
        this.#driver.order(message.orders);
        break;
      case 'stats':
        this.#beginning.counters.postMessage(this.#driver.stats());
        Atomics.add(this.#told, 0, 1);
        Atomics.notify(this.#told, 0);
        break;
      case 'heard':
        this.#unheard -= 1;
        this.#tell();
        break;
      case 'close':
        this.#driver.close();
        this.#beginning.counters.close();
        this.#port.close();
        break;
    }
  }

  /** Tells what there is to tell, if the main thread listens. What it doesn't hear waits in the core, whose queue is bounded. */
  #tell(): void {
    while (this.#unheard < BATCHES) {
      const events = this.#driver.takeEvents(EVENTS);
      if (events.length === 0) return;
      this.#unheard += 1;
      this.#post({ type: 'events', events }, events.flatMap(bytesOf));
    }
  }

  #post(message: FromWorker, transfer: readonly ArrayBuffer[] = []): void {
    this.#port.postMessage(message, transfer);
  }
}

/** What can be handed over instead of copied. */
function bytesOf(event: DataPlaneEvent | HostEvent): ArrayBuffer[] {
  return 'bytes' in event && event.bytes.buffer instanceof ArrayBuffer ? [event.bytes.buffer] : [];
}

async function main(port: MessagePort): Promise<void> {
  try {
    await Thread.start(port, workerData as Beginning);
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : '';
    const failed: FromWorker = { type: 'failed', code, message: describe(error) };
    port.postMessage(failed);
    port.close();
  }
}

if (parentPort !== null) await main(parentPort);
