/** Loads the C++ addon and puts its errors into Thicket's words. */
import { constants } from 'node:os';
import { hostSources, loadAddon, type Sources } from '../addons/index.js';
import { ThicketError } from '../errors.js';
import type { FlowFilter, KernelNet, LinkChange, NewRoute, Rule } from './kernel-net.js';

/** What the addon exports. Adding what is there and deleting what isn't are errors to it. */
export interface KernelAddon extends Omit<KernelNet, 'addRoute' | 'addRule'> {
  version(): string;
  addRoute(route: NewRoute): Promise<void>;
  addRule(rule: Rule): Promise<void>;
}

/** What the addon's promises reject with. */
interface AddonError extends Error {
  readonly errno: number;
  readonly reason: string;
  readonly libraryMissing: boolean;
}

const { EACCES, EADDRNOTAVAIL, EEXIST, EHOSTUNREACH, EINVAL, ENETUNREACH, ENODEV, ENOENT, EPERM } = constants.errno;
/** Not in `os.constants`: what deleting an unknown route gives. */
const ESRCH = 3;

let loaded: KernelNet | undefined;

/** Loads the addon at the first call. Throws BACKEND_UNAVAILABLE when it can't be loaded or is of another version. */
export function loadKernel(sources?: Sources): KernelNet {
  if (sources !== undefined) return wrap(sources);
  loaded ??= wrap(hostSources(process.env));
  return loaded;
}

const wrap = (sources: Sources): KernelNet => new AddonKernel(loadAddon('thicket_kernel', sources).addon as KernelAddon);

class AddonKernel implements KernelNet {
  readonly #addon: KernelAddon;

  constructor(addon: KernelAddon) {
    this.#addon = addon;
  }

  links(): ReturnType<KernelNet['links']> {
    return told(this.#addon.links());
  }

  setLink(name: string, change: LinkChange): Promise<void> {
    return told(this.#addon.setLink(name, change));
  }

  addresses(): ReturnType<KernelNet['addresses']> {
    return told(this.#addon.addresses());
  }

  addAddress(name: string, prefix: string): Promise<void> {
    return told(this.#addon.addAddress(name, prefix));
  }

  async deleteAddress(name: string, prefix: string): Promise<void> {
    await unless(this.#addon.deleteAddress(name, prefix), [ENODEV, EADDRNOTAVAIL, ENOENT]);
  }

  routes(overlapping?: readonly string[]): ReturnType<KernelNet['routes']> {
    return told(this.#addon.routes(overlapping));
  }

  addRoute(route: NewRoute): Promise<boolean> {
    return unless(this.#addon.addRoute(route), [EEXIST]);
  }

  async deleteRoute(route: NewRoute): Promise<void> {
    await unless(this.#addon.deleteRoute(route), [ESRCH, ENODEV, ENOENT]);
  }

  routeTo(host: string): ReturnType<KernelNet['routeTo']> {
    return told(this.#addon.routeTo(host));
  }

  rules(): ReturnType<KernelNet['rules']> {
    return told(this.#addon.rules());
  }

  addRule(rule: Rule): Promise<boolean> {
    return unless(this.#addon.addRule(rule), [EEXIST]);
  }

  async deleteRule(rule: Rule): Promise<void> {
    await unless(this.#addon.deleteRule(rule), [ENOENT, ESRCH]);
  }

  flows(filters: readonly FlowFilter[]): ReturnType<KernelNet['flows']> {
    return told(this.#addon.flows(filters));
  }

  deleteFlows(filters: readonly FlowFilter[]): Promise<number> {
    return told(this.#addon.deleteFlows(filters));
  }

  async nft(commands: string): Promise<string> {
    try {
      return await this.#addon.nft(commands);
    } catch (error) {
      throw nftError(error as AddonError);
    }
  }
}

async function told<T>(answer: Promise<T>): Promise<T> {
  try {
    return await answer;
  } catch (error) {
    throw netlinkError(error as AddonError);
  }
}

/** Whether it was done; false for these refusals. */
async function unless(answer: Promise<void>, refusals: readonly number[]): Promise<boolean> {
  try {
    await answer;
    return true;
  } catch (error) {
    if (refusals.includes((error as AddonError).errno)) return false;
    throw netlinkError(error as AddonError);
  }
}

/** "add the route 198.18.0.0/15: run as …": the addon says what it was asked. */
function netlinkError(error: AddonError): ThicketError {
  const what = `can't ${error.message}`;
  switch (error.errno) {
    case EPERM:
    case EACCES:
      return new ThicketError('NO_PRIVILEGE', `${what}: run as root or with CAP_NET_ADMIN`, { cause: error });
    case ENETUNREACH:
    case EHOSTUNREACH:
      return new ThicketError('NO_ROUTE', `${what}: check this host's routes with ip route`, { cause: error });
    case EINVAL:
      return new ThicketError('NETLINK', `${what} (${error.reason}): check the addresses and the interface's name`, { cause: error });
    default:
      return new ThicketError('NETLINK', `${what} (${error.reason}): check what else manages this host's network`, { cause: error });
  }
}

function nftError(error: AddonError): ThicketError {
  if (error.libraryMissing) {
    const text = 'libnftables.so.1 is missing: install the package libnftables1, or set interface.mode to userspace';
    return new ThicketError('NFT_MISSING', text, { cause: error });
  }
  if (error.errno === EPERM || error.errno === EACCES) {
    return new ThicketError('NO_PRIVILEGE', "can't change nftables: run as root or with CAP_NET_ADMIN", { cause: error });
  }
  const reason = (error.message.split('\n', 1)[0] ?? '').replace(/^.*Error: /, '');
  return new ThicketError('NFT_FAILED', `nftables refused a rule (${reason}): check that the kernel has nf_tables with NAT`, {
    cause: error,
  });
}
