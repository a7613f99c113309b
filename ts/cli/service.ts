/** A node as a service: signals, and what systemd wants to hear (Type=notify). */
import type { ReloadDocument } from '../control/documents.js';
import { describe } from '../errors.js';
import { notifySystemd } from './notify.js';
import { complain, say } from './output.js';

/** What `serve` needs of a running node. */
export interface Served {
  readonly key: string;
  reload(): Promise<ReloadDocument>;
  stop(): Promise<void>;
  /** Rejects when the node can't go on. */
  readonly failed: Promise<never>;
}

/**
 * Starts a node and runs it until SIGTERM or SIGINT; rejects when it can't start or go on. Signals that come while it starts take effect once it
 * is up: half a start can't be taken back, a whole one can.
 */
export async function serve(start: () => Promise<Served>): Promise<void> {
  const signals = new Signals();
  const node = await start();
  await notifySystemd('READY');
  say(`up as ${node.key}`);
  try {
    await Promise.race([signals.untilStop(() => reload(node)), node.failed, crash()]);
  } finally {
    // Side by side: a service manager that is slow to listen must not keep the host from being put in order.
    await Promise.all([notifySystemd('STOPPING'), node.stop()]);
  }
}

/** Rejects with what nobody caught, so that the host is put in order before the end. A promise that nobody awaited ends nothing: it is told. */
function crash(): Promise<never> {
  process.on('unhandledRejection', (reason) => complain(`internal error (${describe(reason)}): the node goes on, please report it`));
  process.removeAllListeners('uncaughtException');
  return new Promise((_, reject) => {
    process.on('uncaughtException', reject);
  });
}

async function reload(node: Served): Promise<void> {
  await notifySystemd('RELOADING');
  try {
    const { restart } = await node.reload();
    if (restart.length > 0) complain(`reloaded, but for ${restart.join(', ')}: restart the node to apply that`);
  } catch (error) {
    complain(`not reloaded, the running configuration stays: ${describe(error)}`);
  }
  await notifySystemd('READY');
}

/**
 * SIGTERM, SIGINT and SIGHUP from now on, one after another. The listeners are never removed: a second SIGTERM must not end the process while it
 * puts the host in order.
 */
class Signals {
  #stop = false;
  #reload = false;
  #wake: () => void = () => {};

  constructor() {
    for (const signal of ['SIGTERM', 'SIGINT'] as const) {
      process.on(signal, () => {
        this.#stop = true;
        this.#wake();
      });
    }
    process.on('SIGHUP', () => {
      this.#reload = true;
      this.#wake();
    });
  }

  /** Resolves when one of them says stop; a reload that has begun is waited for. */
  async untilStop(reload: () => Promise<void>): Promise<void> {
    while (!this.#stop) {
      if (this.#reload) {
        this.#reload = false;
        await reload();
      } else {
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
      }
    }
  }
}
