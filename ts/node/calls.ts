/** Calls that we make to set a session, or another path of one, up: one at a time for each pair of keys, and each answered once. */
import type { Hop, Ingress } from '../dataplane/data-plane.js';
import { ThicketError } from '../errors.js';
import type { PublicKey } from '../trust/index.js';
import { type Clock, ms } from './clock.js';
import type { Established, Handshakes, SessionInitiation } from './ports.js';
import type { FailureReason, PathSetup, Session } from './session.js';

const TIMEOUT = ms(4_000);

export interface CallsHost {
  readonly handshakes: () => Handshakes;
  readonly paths: PathSetup;
  readonly clock: Clock;
  /** The far end has answered. Throws when it isn't welcome. */
  established(own: PublicKey, established: Established, ingress: Ingress, egress: Hop): void;
  behind(own: PublicKey, epoch: bigint): void;
}

interface Dial {
  readonly own: PublicKey;
  readonly peer: PublicKey;
  readonly promise: Promise<Session>;
  /** Our own call is under way; false once the far end's has been answered instead. */
  calling: boolean;
  /** The session is up, by whichever call. */
  resolve: (session: Session) => void;
  reject: (error: unknown) => void;
  /** Lets our own call go. */
  stop: () => void;
}

export class Calls {
  readonly #host: CallsHost;
  readonly #dials = new Map<string, Dial>();
  #closed = false;

  constructor(host: CallsHost) {
    this.#host = host;
  }

  /** Resolves when a path has come up, by our call or by the far end's. Rejects with a ThicketError. */
  dial(own: PublicKey, peer: PublicKey): Promise<Session> {
    const key = pair(own, peer);
    const under = this.#dials.get(key);
    if (under !== undefined) return under.promise;
    if (this.#closed) return Promise.reject(closing());
    let resolve = (_: Session): void => {};
    let reject = (_: unknown): void => {};
    const promise = new Promise<Session>((yes, no) => {
      resolve = yes;
      reject = no;
    });
    const dial: Dial = { own, peer, promise, calling: true, resolve, reject, stop: () => {} };
    this.#dials.set(key, dial);
    const timer = this.#host.clock.after(TIMEOUT, () => dial.reject(failure('timeout', peer)));
    const done = (): void => {
      timer();
      dial.stop();
      dial.calling = false;
      if (this.#dials.get(key) === dial) this.#dials.delete(key);
    };
    // Settled at once, not a microtask later: whether we still call decides over the far end's call.
    dial.resolve = (session) => {
      done();
      resolve(session);
    };
    dial.reject = (error) => {
      done();
      reject(error);
    };
    this.#call(dial);
    return promise;
  }

  isCalling(own: PublicKey, peer: PublicKey): boolean {
    return this.#dials.get(pair(own, peer))?.calling === true;
  }

  /** The far end's call was answered: ours is let go. */
  overtaken(own: PublicKey, peer: PublicKey): void {
    const dial = this.#dials.get(pair(own, peer));
    if (dial === undefined) return;
    dial.calling = false;
    dial.stop();
  }

  up(session: Session): void {
    this.#dials.get(pair(session.own, session.peer))?.resolve(session);
  }

  close(): void {
    this.#closed = true;
    for (const dial of [...this.#dials.values()]) dial.reject(closing());
  }

  #call(dial: Dial): void {
    const { own, peer } = dial;
    const { paths } = this.#host;
    let initiation: SessionInitiation;
    try {
      initiation = this.#host.handshakes().initiateSession(own, peer);
    } catch (error) {
      return dial.reject(error);
    }
    let over = false;
    const stop = paths.open(peer, initiation.message, (result) => {
      over = true;
      try {
        if (!result.ok) throw failure(result.reason, peer);
        const established = initiation.finish(result.message);
        if (!('behind' in established)) return this.#host.established(own, established, result.ingress, result.egress);
        this.#host.behind(own, established.behind);
        paths.close(result.ingress, result.egress);
        this.#call(dial);
      } catch (error) {
        if (result.ok) paths.close(result.ingress, result.egress);
        dial.reject(error);
      }
    });
    if (!over) dial.stop = stop;
  }
}

/** One of our keys and a remote one. */
export const pair = (own: PublicKey, peer: PublicKey): string => `${own} ${peer}`;

const closing = (): ThicketError => new ThicketError('CLOSING', 'the node is stopping');

function failure(reason: FailureReason, peer: PublicKey): ThicketError {
  switch (reason) {
    case 'noRoute':
      return new ThicketError('NO_ROUTE', `nobody in the tree knows ${peer}: is its gateway up?`);
    case 'noParent':
      return new ThicketError('NO_PARENT', 'no parent is connected: see thicket status');
    case 'unreachable':
      return new ThicketError('UNREACHABLE', `a relay on the way to ${peer} has lost its parent: try again`);
    case 'refused':
      return new ThicketError('REFUSED', `a relay refused the path to ${peer}: try again`);
    case 'timeout':
      return new ThicketError('TIMEOUT', `no answer from ${peer}: it may not admit us`);
  }
}
