/**
 * Sending from one socket. What the kernel takes at once is sent from one buffer, used again and again; what it doesn't waits in short queues, one for each
 * neighbour or flow that it comes from, served in turn by bytes. When too much waits, the longest queue loses first.
 */
import type { Socket } from 'node:dgram';

/** Bytes that may wait here, and of these in Node's own queue, which sends many in one call but knows no turns. */
const WAITING = 256 * 1_024;
const HANDED_OVER = 32 * 1_024;
/** Bytes of datagrams before the buffer is used from its beginning again. */
const BUFFER = 256 * 1_024;
/** What one queue may send in its turn. */
const TURN = 3_000;

export interface Destination {
  readonly host: string;
  readonly port: number;
}

interface Waiting {
  readonly bytes: Buffer;
  readonly to: Destination;
}

interface Queue {
  readonly share: number;
  readonly waiting: Waiting[];
  bytes: number;
  /** What it may still send in this turn. */
  left: number;
}

export class Outlet {
  readonly #socket: Socket;
  readonly #drained: () => void;
  readonly #queues = new Map<number, Queue>();
  readonly #buffer = Buffer.allocUnsafeSlow(BUFFER);
  #used = 0;
  #bytes = 0;
  #lost = 0;
  #handedOver = 0;

  /** `drained`: nothing waits any more. */
  constructor(socket: Socket, drained: () => void) {
    this.#socket = socket;
    this.#drained = drained;
  }

  /** Whether something waits: then nothing should be made that can be made later. */
  get isCongested(): boolean {
    return this.#bytes > 0 || this.#handedOver > 0;
  }

  /** Bytes that wait. */
  get waiting(): number {
    return this.#bytes + this.#handedOver;
  }

  /** Datagrams lost for want of room since the last call. */
  takeLost(): number {
    const lost = this.#lost;
    this.#lost = 0;
    return lost;
  }

  /** Sends datagrams of `segment` bytes (the last may be shorter) that lie one behind the other; the memory may change afterwards. */
  send(train: Uint8Array, segment: number, to: Destination, share: number): void {
    const { length } = train;
    if (this.isCongested || this.#socket.getSendQueueCount() > 0) {
      for (let from = 0; from < length; from += segment) {
        this.#wait(Buffer.from(train.subarray(from, Math.min(from + segment, length))), to, share);
      }
      this.#drain();
      return;
    }
    const copy = this.#copy(train);
    for (let from = 0; from < length; from += segment) {
      this.#socket.send(copy.subarray(from, Math.min(from + segment, length)), to.port, to.host);
    }
  }

  /** Node sends at once what the kernel takes, and then is done with the bytes. If the kernel takes no more, it keeps them, and nothing goes this way until it has none. */
  #copy(train: Uint8Array): Buffer {
    const { length } = train;
    if (this.#used + length > BUFFER) this.#used = 0;
    const copy = this.#buffer.subarray(this.#used, this.#used + length);
    this.#used += length;
    copy.set(train);
    return copy;
  }

  #wait(bytes: Buffer, to: Destination, share: number): void {
    let queue = this.#queues.get(share);
    if (queue === undefined) {
      queue = { share, waiting: [], bytes: 0, left: 0 };
      this.#queues.set(share, queue);
    }
    queue.waiting.push({ bytes, to });
    queue.bytes += bytes.length;
    this.#bytes += bytes.length;
    while (this.#bytes > WAITING) this.#lose();
  }

  /** The oldest of the longest queue: whoever sends it hears soonest. */
  #lose(): void {
    let longest: Queue | undefined;
    for (const queue of this.#queues.values()) if (longest === undefined || queue.bytes > longest.bytes) longest = queue;
    if (longest !== undefined) this.#take(longest);
    this.#lost += 1;
  }

  #take(queue: Queue): Waiting | undefined {
    const first = queue.waiting.shift();
    if (first !== undefined) {
      queue.bytes -= first.bytes.length;
      this.#bytes -= first.bytes.length;
    }
    if (queue.waiting.length === 0) this.#queues.delete(queue.share);
    return first;
  }

  /** Hands over what Node's queue shall have, in turn. */
  #drain(): void {
    for (const queue of this.#queues.values()) {
      if (this.#handedOver >= HANDED_OVER) return;
      queue.left = Math.min(queue.left + TURN, TURN);
      while (queue.left > 0) {
        const next = this.#take(queue);
        if (next === undefined) break;
        queue.left -= next.bytes.length;
        this.#handOver(next);
      }
      // Behind the others.
      if (this.#queues.delete(queue.share)) this.#queues.set(queue.share, queue);
    }
  }

  #handOver({ bytes, to }: Waiting): void {
    this.#handedOver += bytes.length;
    this.#socket.send(bytes, to.port, to.host, () => {
      this.#handedOver -= bytes.length;
      this.#drain();
      if (!this.isCongested) this.#drained();
    });
  }
}
