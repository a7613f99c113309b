/** Dials sessions, and waits until they can be used: addresses and policy stand here, and the far end has said what it offers. */
import type { SessionId } from '../dataplane/data-plane.js';
import type { PublicKey } from '../trust/index.js';
import type { Bindings } from './bindings.js';
import { type Clock, ms } from './clock.js';
import type { Session, Sessions } from './sessions.js';

/** The far end's list of services follows its certificate by a round trip; a lost packet must not cost the whole call. */
const GREETING = ms(1_500);

export class Dialer {
  readonly #sessions: Sessions;
  readonly #bindings: Bindings;
  readonly #clock: Clock;
  readonly #waiting = new Map<SessionId, (() => void)[]>();

  constructor(sessions: Sessions, bindings: Bindings, clock: Clock) {
    this.#sessions = sessions;
    this.#bindings = bindings;
    this.#clock = clock;
  }

  /** Rejects with a ThicketError. */
  async dial(own: PublicKey, peer: PublicKey): Promise<Session> {
    const session = await this.#sessions.dial(own, peer);
    await this.#bindings.prepared();
    if (!session.greeted) await this.#greeting(session);
    return session;
  }

  /** A session came up, or its far end told what it offers. */
  up(session: Session): void {
    if (session.greeted) this.#release(session);
  }

  closed(session: Session): void {
    this.#release(session);
  }

  #greeting(session: Session): Promise<void> {
    return new Promise((resolve) => {
      const cancel = this.#clock.after(GREETING, resolve);
      const waiting = this.#waiting.get(session.id) ?? [];
      waiting.push(() => {
        cancel();
        resolve();
      });
      this.#waiting.set(session.id, waiting);
    });
  }

  #release(session: Session): void {
    for (const done of this.#waiting.get(session.id) ?? []) done();
    this.#waiting.delete(session.id);
  }
}
