/** Takes messages from a socket one by one, and leaves what comes after them alone. */
import type { Socket } from 'node:net';
import type { Read } from './socks5.js';

export class Reader {
  readonly #socket: Socket;
  #bytes: Buffer = Buffer.alloc(0);

  constructor(socket: Socket) {
    this.#socket = socket;
  }

  /** The next message, or why there is none; undefined: the socket has ended or closed before. */
  async next<T>(read: (bytes: Uint8Array) => Read<T>): Promise<Exclude<Read<T>, { state: 'more' }> | undefined> {
    for (;;) {
      const result = read(this.#bytes);
      if (result.state === 'done') this.#bytes = this.#bytes.subarray(result.length);
      if (result.state !== 'more') return result;
      const chunk = await this.#chunk();
      if (chunk === undefined) return undefined;
      this.#bytes = Buffer.concat([this.#bytes, chunk]);
    }
  }

  /** What came behind the messages that were taken. */
  get rest(): Uint8Array {
    return this.#bytes;
  }

  async #chunk(): Promise<Buffer | undefined> {
    const socket = this.#socket;
    while (!socket.destroyed && !socket.readableEnded) {
      const chunk: Buffer | null = socket.read();
      if (chunk !== null) return chunk;
      await new Promise<void>((resolve) => {
        const done = (): void => {
          for (const event of EVENTS) socket.removeListener(event, done);
          resolve();
        };
        for (const event of EVENTS) socket.once(event, done);
      });
    }
    return undefined;
  }
}

const EVENTS = ['readable', 'end', 'close'] as const;
