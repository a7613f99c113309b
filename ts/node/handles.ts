/** Handles for links, paths and sessions: small numbers that rise, never 0, never given twice while the program runs. */
import type { Generation, LinkId, PathId, SessionId } from '../dataplane/data-plane.js';

export class HandleSource {
  #next = 1;

  link(): LinkId {
    return this.#take() as LinkId;
  }

  path(): PathId {
    return this.#take() as PathId;
  }

  session(): SessionId {
    return this.#take() as SessionId;
  }

  generation(): Generation {
    return this.#take() as Generation;
  }

  #take(): number {
    const value = this.#next;
    this.#next = value + 1;
    return value;
  }
}

/** A random u32 for link indexes and nonces, from the operating system. */
export function randomU32(): number {
  return crypto.getRandomValues(new Uint32Array(1))[0] as number;
}

export function randomU64(): bigint {
  return crypto.getRandomValues(new BigUint64Array(1))[0] as bigint;
}
