/** Which way a session goes: every hop is asked over the session's own labels, so the answer is the path that its packets take. */
import type { Hop } from '../dataplane/data-plane.js';
import { ThicketError } from '../errors.js';
import type { PublicKey } from '../trust/index.js';
import { type Clock, type Milliseconds, ms } from './clock.js';
import type { Session } from './sessions.js';

export interface TracedHop {
  /** 1 is our neighbour. */
  readonly hop: number;
  readonly key: PublicKey;
  /** The far end's key answers last: an endpoint's where its gateway is the end. */
  readonly end: boolean;
  /** The shortest round trip of the probes. */
  readonly rtt: Milliseconds;
}

export interface TracerOptions {
  readonly probe: (egress: Hop, hops: number, done: (key: PublicKey) => void) => void;
  readonly clock: Clock;
}

const MOST_HOPS = 32;
const PROBES = 3;
const PATIENCE = ms(2_000);

export class Tracer {
  readonly #o: TracerOptions;
  /** Lengths of paths as measured, by the label that they leave under. */
  readonly #lengths = new WeakMap<Session, { readonly egress: Hop; readonly hops: number }>();

  constructor(options: TracerOptions) {
    this.#o = options;
  }

  /** Links on the session's path, where it has been traced. */
  known(session: Session): number | undefined {
    const length = this.#lengths.get(session);
    return length?.egress === session.egress ? length?.hops : undefined;
  }

  /** Measures a new path in the background, for `sessions`. */
  measure(session: Session): void {
    if (this.known(session) === undefined) this.trace(session, 1).catch(() => {});
  }

  /** Rejects with TIMEOUT when a hop doesn't answer. */
  async trace(session: Session, probes: number = PROBES): Promise<TracedHop[]> {
    const hops: TracedHop[] = [];
    while (hops.length < MOST_HOPS) {
      const { egress } = session;
      if (egress === undefined) throw new ThicketError('SESSION_CLOSED', 'the session has lost its path: try again');
      const hop = hops.length + 1;
      let best: { readonly key: PublicKey; readonly rtt: Milliseconds } | undefined;
      for (let n = 0; n < probes; n += 1) {
        const answer = await this.#ask(egress, hop - 1);
        if (answer !== undefined && (best === undefined || answer.rtt < best.rtt)) best = answer;
      }
      if (best === undefined) throw new ThicketError('TIMEOUT', `hop ${hop} doesn't answer: try again`);
      // One hop past the end answers as the end again: then the one before was it (a node reached by its own key).
      if (best.key === hops.at(-1)?.key) {
        hops.push({ ...(hops.pop() as TracedHop), end: true });
        this.#lengths.set(session, { egress, hops: hops.length });
        return hops;
      }
      const end = best.key === session.peer;
      hops.push({ hop, key: best.key, end, rtt: best.rtt });
      if (!end) continue;
      this.#lengths.set(session, { egress, hops: hops.length });
      break;
    }
    return hops;
  }

  #ask(egress: Hop, hops: number): Promise<{ readonly key: PublicKey; readonly rtt: Milliseconds } | undefined> {
    return new Promise((resolve) => {
      const { clock } = this.#o;
      const at = clock.now();
      const cancel = clock.after(PATIENCE, () => resolve(undefined));
      this.#o.probe(egress, hops, (key) => {
        cancel();
        resolve({ key, rtt: ms(clock.now() - at) });
      });
    });
  }
}
