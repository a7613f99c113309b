/** A stream that may be used before it is there: what is written waits until it is connected. */
import { Duplex } from 'node:stream';

type Done = (error?: Error | null) => void;

/**
 * Emits `connect`. Half-open streams stay half open: `end()` finishes our direction, `end` tells that the far end has finished its own. Fails by being destroyed
 * with an error that `explain` makes.
 */
export class Dialled extends Duplex {
  /** Until `connect`, or the end. */
  connecting = true;
  readonly #open: (signal: AbortSignal) => Promise<Duplex>;
  readonly #explain: (error: unknown) => Error;
  readonly #abort = new AbortController();
  #inner: Duplex | undefined;

  constructor(open: (signal: AbortSignal) => Promise<Duplex>, explain: (error: unknown) => Error) {
    super({ allowHalfOpen: true });
    this.#open = open;
    this.#explain = explain;
  }

  override _construct(done: Done): void {
    this.#open(this.#abort.signal).then(
      (inner) => {
        this.connecting = false;
        this.#inner = inner;
        this.#wire(inner);
        // It may have failed before anybody here listened.
        done(inner.errored == null ? null : this.#explain(inner.errored));
        if (!this.destroyed) this.emit('connect');
      },
      (error: unknown) => {
        this.connecting = false;
        // Who has destroyed it knows why.
        done(this.#abort.signal.aborted ? null : this.#explain(error));
      },
    );
  }

  override _read(): void {
    this.#inner?.resume();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: Done): void {
    this.#inner?.write(chunk, done);
  }

  override _writev(chunks: { chunk: Buffer; encoding: BufferEncoding }[], done: Done): void {
    this._write(Buffer.concat(chunks.map(({ chunk }) => chunk)), 'utf8', done);
  }

  override _final(done: Done): void {
    this.#inner?.end(done);
  }

  override destroy(error?: Error): this {
    this.#abort.abort();
    return super.destroy(error);
  }

  override _destroy(error: Error | null, done: Done): void {
    this.connecting = false;
    this.#inner?.destroy();
    done(error);
  }

  #wire(inner: Duplex): void {
    inner.on('data', (chunk: Buffer) => {
      if (!this.push(chunk)) inner.pause();
    });
    inner.on('end', () => this.push(null));
    inner.on('error', (error) => this.destroy(this.#explain(error)));
    // Once it has ended, what it brought waits here for its reader.
    inner.on('close', () => {
      if (!inner.readableEnded) this.destroy();
    });
    inner.pause();
  }
}
