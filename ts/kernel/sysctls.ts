/**
 * Kernel parameters that Thicket changes, with what they were before. The former values are on disk before a change is made, so that a stop after
 * a crash restores the right ones; they are forgotten at a reboot and in another network namespace, where all parameters are anew.
 */
import { existsSync, readdirSync, readFileSync, readlinkSync, unlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, ThicketError } from '../errors.js';
import { loadState, saveState } from '../trust/index.js';
import * as z from '../zod.js';

const File = z.strictObject({ boot: z.string(), namespace: z.string(), before: z.array(z.tuple([z.string(), z.string()])) });

export interface SysctlsOptions {
  /** Where the former values are kept. */
  readonly file: string;
  /** Default /proc/sys. */
  readonly root?: string;
  /** What tells this boot and this network namespace from others; default is what the kernel says. */
  readonly place?: { readonly boot: string; readonly namespace: string };
}

export class Sysctls {
  readonly #file: string;
  readonly #root: string;
  readonly #place: { readonly boot: string; readonly namespace: string };
  /** In the order of the changes. */
  readonly #before: Map<string, string>;

  /** Reads what an earlier run left. Throws BAD_STATE. */
  constructor(options: SysctlsOptions) {
    this.#file = options.file;
    this.#root = options.root ?? '/proc/sys';
    this.#place = options.place ?? here();
    this.#before = new Map(this.#load());
  }

  /** The value of `net/ipv4/ip_forward` and its like; undefined where the kernel has no such parameter. */
  get(path: string): string | undefined {
    try {
      return readFileSync(join(this.#root, path), 'utf8').trim();
    } catch {
      return undefined;
    }
  }

  /** What there is below `path`, such as the interfaces below `net/ipv6/conf`. */
  list(path: string): string[] {
    const folder = join(this.#root, path);
    return existsSync(folder) ? readdirSync(folder) : [];
  }

  /** The value before we changed it; undefined for what we didn't change. */
  before(path: string): string | undefined {
    return this.#before.get(path);
  }

  /** What we changed. */
  changed(): string[] {
    return [...this.#before.keys()];
  }

  /** Notes the present values, for parameters that change when others do. */
  remember(paths: readonly string[]): void {
    const fresh = paths.filter((path) => !this.#before.has(path));
    for (const path of fresh) {
      const value = this.get(path);
      if (value !== undefined) this.#before.set(path, value);
    }
    if (fresh.length > 0) this.#save();
  }

  /** Sets a parameter, unless it has this value or isn't there (its interface is gone). Throws NO_PRIVILEGE or NETLINK. */
  set(path: string, value: string): void {
    const present = this.get(path);
    if (present === undefined || present === value) return;
    this.remember([path]);
    this.#write(path, value);
  }

  /** The same for a parameter of an interface that goes with us: nothing to restore. */
  setOwn(path: string, value: string): void {
    const present = this.get(path);
    if (present !== undefined && present !== value) this.#write(path, value);
  }

  /** Gives a parameter the value that it had; nothing for one that we didn't change. */
  restore(path: string): void {
    const value = this.#before.get(path);
    if (value === undefined) return;
    if (this.get(path) !== undefined) this.#write(path, value);
    this.#before.delete(path);
    this.#save();
  }

  /** Restores everything. When one can't be, the others are, and the first error is thrown. */
  restoreAll(): void {
    let failure: unknown;
    for (const [path, value] of this.#before) {
      try {
        if (this.get(path) !== undefined) this.#write(path, value);
        this.#before.delete(path);
      } catch (error) {
        failure ??= error;
      }
    }
    this.#save();
    if (failure !== undefined) throw failure;
  }

  #write(path: string, value: string): void {
    try {
      writeFileSync(join(this.#root, path), value);
    } catch (error) {
      const what = `can't set ${path.replaceAll('/', '.')} to ${value}`;
      const code = (error as NodeJS.ErrnoException).code;
      if (code === 'ENOENT') return;
      if (code === 'EPERM' || code === 'EACCES') {
        throw new ThicketError('NO_PRIVILEGE', `${what}: run as root or with CAP_NET_ADMIN`, { cause: error });
      }
      throw new ThicketError('NETLINK', `${what} (${describe(error)}): set it before Thicket starts`, { cause: error });
    }
  }

  #load(): readonly (readonly [string, string])[] {
    const value = loadState(this.#file);
    if (value === undefined) return [];
    const parsed = File.safeParse(value);
    if (!parsed.success)
      throw new ThicketError('BAD_STATE', `${this.#file} is damaged: remove it, and check this host's forwarding settings`);
    const { boot, namespace, before } = parsed.data;
    return boot === this.#place.boot && namespace === this.#place.namespace ? before : [];
  }

  #save(): void {
    if (this.#before.size > 0) {
      saveState(this.#file, { ...this.#place, before: [...this.#before] });
    } else if (existsSync(this.#file)) {
      unlinkSync(this.#file);
    }
  }
}

function here(): { boot: string; namespace: string } {
  return { boot: readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim(), namespace: readlinkSync('/proc/self/ns/net') };
}

/** Whether new interfaces on this host have IPv6. */
export function hasIpv6(sysctls: Pick<Sysctls, 'get'>): boolean {
  return sysctls.get('net/ipv6/conf/default/disable_ipv6') === '0';
}
