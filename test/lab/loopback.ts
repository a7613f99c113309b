/** Hosts that are only folders and addresses on this machine's loopback: for who may make no network namespaces. Nothing keeps them apart. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { LabError } from './errors.js';
import { Host } from './host.js';
import { type HostName, hostNames } from './plan.js';
import type { Stage } from './stage.js';

/** Below 1,024 only the privileged may listen. */
const PORTS = 20_000;

export class Loopback implements Stage {
  static readonly #alive = new Set<Loopback>();
  readonly dir = mkdtempSync(join(tmpdir(), 'thicket-loopback-'));
  readonly #hosts = new Map<HostName, Host>();

  constructor() {
    Loopback.#alive.add(this);
    // Of its own, so that two runs are not in each other's way.
    const run = 2 + (process.pid % 250);
    for (const [index, name] of hostNames().entries()) {
      const address = `127.${run}.0.${index + 1}`;
      this.#hosts.set(name, new Host({ name, dir: join(this.dir, name), address, ip4: address, ip6: '', ports: PORTS }));
    }
  }

  static async destroyAll(): Promise<void> {
    await Promise.all([...Loopback.#alive].map((loopback) => loopback.destroy()));
  }

  host(name: HostName): Host {
    const host = this.#hosts.get(name);
    if (host === undefined) throw new LabError(`no host ${name}`);
    return host;
  }

  async destroy(): Promise<void> {
    if (!Loopback.#alive.delete(this)) return;
    await Promise.all([...this.#hosts.values()].map((host) => host.killAll()));
    rmSync(this.dir, { recursive: true, force: true });
  }
}
