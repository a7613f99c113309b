/** What is kept of one session: its paths, and what is under way to get one, to be heard, or to find out whether the far end is there. */
import type { Hop, Ingress, PathId } from '../dataplane/data-plane.js';
import type { VerifiedIdentity } from '../trust/index.js';
import { type Milliseconds, ms } from './clock.js';
import type { Greeting } from './greeting.js';
import type { PathRekey } from './path-rekey.js';
import type { Session } from './session.js';
import { Silence } from './silence.js';

/** First wait between attempts to get a lost path back. */
export const REDIAL_FIRST = ms(250);
/** Paths that nobody has confirmed, of sessions that never were up in all, and of one session: what replayed messages can make us hold. */
const MAX_HALF_OPEN = 512;
const MAX_HALF_OPEN_PER_SESSION = 4;

export interface Path {
  readonly id: PathId;
  readonly ingress: Ingress;
  readonly egress: Hop;
  readonly initiator: boolean;
  readonly identity: VerifiedIdentity;
  /** What names the certificates that we showed. */
  readonly shown: Uint8Array;
  readonly createdAt: Milliseconds;
  readonly rekey: PathRekey;
  confirmed: boolean;
  /** Something has come over it. */
  proven: boolean;
  replacedAt: Milliseconds | undefined;
}

export interface Entry {
  session: { -readonly [K in keyof Session]: Session[K] };
  paths: Map<PathId, Path>;
  /** The newest confirmed path: both ends see them come in the same order, so they agree. */
  current: Path | undefined;
  greeting: Greeting | undefined;
  /** The last hello of the far end. */
  greeted: bigint | undefined;
  wantedUntil: Milliseconds;
  lostAt: Milliseconds;
  redialAt: Milliseconds;
  redialWait: number;
  silence: Silence;
  probes: number;
  probedAt: Milliseconds;
  pings: Map<bigint, { at: Milliseconds; done: (rtt: Milliseconds) => void }>;
  activeAt: Milliseconds;
}

export function newEntry(of: Pick<Session, 'id' | 'own' | 'peer' | 'identity'>, now: Milliseconds): Entry {
  return {
    session: {
      ...of,
      state: 'dialing',
      rekeys: 0,
      offered: [],
      greeted: false,
      since: now,
      egress: undefined,
      ingress: undefined,
    },
    paths: new Map(),
    current: undefined,
    greeting: undefined,
    greeted: undefined,
    wantedUntil: ms(0),
    lostAt: now,
    redialAt: ms(0),
    redialWait: REDIAL_FIRST,
    silence: new Silence(now),
    probes: 0,
    probedAt: ms(0),
    pings: new Map(),
    activeAt: now,
  };
}

/** The oldest path that nobody confirmed, where there are too many for one more of `known`: whoever means it confirms within a round trip. */
export function excessHalfOpen(
  entries: Iterable<Entry>,
  known: Entry | undefined,
): { readonly entry: Entry; readonly path: Path } | undefined {
  const ofSession = [...(known?.paths.values() ?? [])].filter((path) => !path.confirmed);
  const [own] = ofSession;
  if (known !== undefined && own !== undefined && ofSession.length >= MAX_HALF_OPEN_PER_SESSION) return { entry: known, path: own };
  if (known !== undefined && known.session.state !== 'dialing') return undefined;
  const strangers = [...entries].filter((entry) => entry.session.state === 'dialing');
  const halfOpen = strangers.flatMap((entry) => [...entry.paths.values()].map((path) => ({ entry, path })));
  if (halfOpen.length < MAX_HALF_OPEN) return undefined;
  return halfOpen.reduce((a, b) => (a.path.createdAt <= b.path.createdAt ? a : b));
}
