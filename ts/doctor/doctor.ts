/** What a node needs of its host, looked at one by one. Nothing here runs a node or changes anything. */
import { describe } from '../errors.js';
import { version } from '../version.js';

export type State = 'ok' | 'note' | 'missing';

export interface Check {
  readonly name: 'node' | 'backend' | 'libc' | 'tun' | 'capabilities' | 'libnftables';
  /** `note`: works without it, or some nodes need it. `missing`: this node can't run. */
  readonly state: State;
  /** One line: what there is, or what is wrong and what to do. */
  readonly text: string;
}

/** What `thicket doctor --json` prints. Keys are added, never renamed. */
export interface DoctorDocument {
  readonly schema: 1;
  readonly version: string;
  /** Nothing is missing. */
  readonly ok: boolean;
  /** Null when none can be loaded. */
  readonly backend: { readonly name: 'native' | 'wasm'; readonly from: string; readonly shortfall: string | null } | null;
  readonly checks: readonly Check[];
}

/** What is asked of the host. Each may throw: the error's line is then the finding. */
export interface Examined {
  /** `20.20.2` */
  nodeVersion(): string;
  /** `linux x64` */
  readonly place: string;
  backend(): NonNullable<DoctorDocument['backend']>;
  libc(): { readonly libc: string | undefined; readonly version: string | undefined; readonly source: string };
  /** Opens the TUN device and closes it. Throws when it can't. */
  tun(): void;
  /** Names of the process' effective capabilities, of those that are asked for. */
  capabilities(): ReadonlySet<Capability>;
  /** Loads libnftables. Rejects when it can't. */
  nftables(): Promise<void>;
}

export type Capability = 'CAP_NET_ADMIN' | 'CAP_NET_BIND_SERVICE';

export interface Needs {
  /** Whether this node has an interface in the kernel; undefined where no configuration says so. */
  readonly interface: boolean | undefined;
}

/** The oldest Node.js that is tested. */
const NODE_LEAST = 20;

export async function examine(host: Examined, needs: Needs): Promise<DoctorDocument> {
  const found: { backend: DoctorDocument['backend'] } = { backend: null };
  /** What only a node with an interface needs. */
  const unless: State = needs.interface === true ? 'missing' : 'note';
  const checks = [
    await check('node', 'missing', () => {
      const its = host.nodeVersion();
      if (Number.parseInt(its, 10) < NODE_LEAST) throw new RangeError(`Node.js ${its} is too old: install ${NODE_LEAST} or newer`);
      return `${its} on ${host.place}`;
    }),
    await check('backend', 'missing', () => {
      const { name, from, shortfall } = (found.backend = host.backend());
      return shortfall === null ? `${name}, from ${from}` : { state: 'note', text: `${name}, not native: ${shortfall}` };
    }),
    await check('libc', 'note', () => {
      const { libc, version: its, source } = host.libc();
      if (libc === undefined) throw new RangeError('unknown: set THICKET_LIBC to glibc or musl');
      return `${[libc, its].filter(Boolean).join(' ')}, as ${SOURCES[source] ?? source} says`;
    }),
    await check('tun', unless, () => {
      host.tun();
      return '/dev/net/tun can be opened';
    }),
    await check('capabilities', unless, () => {
      const has = host.capabilities();
      const lacks = (['CAP_NET_ADMIN', 'CAP_NET_BIND_SERVICE'] as const).filter((one) => !has.has(one));
      if (lacks.length > 0)
        throw new RangeError(`${lacks.join(' and ')} missing: run as root or give them by setcap or AmbientCapabilities=`);
      return [...has].join(', ');
    }),
    await check('libnftables', unless, async () => {
      await host.nftables();
      return 'libnftables.so.1 can be loaded';
    }),
  ];
  return { schema: 1, version, ok: checks.every(({ state }) => state !== 'missing'), backend: found.backend, checks };
}

const SOURCES: Readonly<Record<string, string>> = {
  report: 'the process itself',
  loader: "musl's loader in /lib",
};

type Finding = string | Pick<Check, 'state' | 'text'>;

async function check(name: Check['name'], otherwise: State, look: () => Finding | Promise<Finding>): Promise<Check> {
  try {
    const finding = await look();
    return { name, ...(typeof finding === 'string' ? { state: 'ok', text: finding } : finding) };
  } catch (error) {
    return { name, state: otherwise, text: describe(error).split('\n', 1)[0] ?? '' };
  }
}
