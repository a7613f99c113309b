/** Waiting for a stream that is being opened. */
import type { Duplex } from 'node:stream';
import { ThicketError } from '../errors.js';

/**
 * Resolves at `connect`. Rejects with what the stream is destroyed with, or with CLOSING where somebody destroyed it without a word. By the time that this is
 * heard the stream may have failed: its `error` has passed then, and ends nothing; `destroyed` and `errored` tell.
 */
export function connected(stream: Duplex): Promise<void> {
  return new Promise((resolve, reject) => {
    const closed = (): void => reject(new ThicketError('CLOSING', 'the stream was closed before it was connected'));
    stream.on('error', reject);
    stream.once('close', closed);
    stream.once('connect', () => {
      stream.removeListener('close', closed);
      resolve();
    });
  });
}
