/** Two streams that carry each other's bytes, in JavaScript: for backends, and sockets, that can't be spliced. */
import { Socket } from 'node:net';
import { type Duplex, pipeline } from 'node:stream';
import type { Splice } from './userspace.js';

const reset = (stream: Duplex): void => {
  if (stream instanceof Socket) stream.resetAndDestroy();
  else stream.destroy();
};

/** As `UserSpace.splice` says. Either may still be connecting. */
export function join(one: Duplex, other: Duplex, initial: Uint8Array): Splice {
  const over = (): void => {};
  const closed = Promise.all(
    [one, other].map((stream) => (stream.closed ? undefined : new Promise<void>((done) => stream.once('close', done)))),
  );
  one.on('error', () => reset(other));
  other.on('error', () => reset(one));
  if (one.destroyed || other.destroyed) {
    reset(one);
    reset(other);
    return { closed: closed.then(over), abort: over };
  }
  if (initial.length > 0) other.write(initial);
  pipeline(one, other, over);
  pipeline(other, one, over);
  const abort = (): void => {
    reset(one);
    reset(other);
  };
  return { closed: closed.then(over), abort };
}
