/** Drives the WASM module by sockets and a clock. What came in one turn of the event loop goes into it by one call. */
import type { RemoteInfo } from 'node:dgram';
import { describe } from '../../errors.js';
import type { DataPlaneEvent, DataPlaneStats } from '../data-plane.js';
import type { PlaneModule, WasmPlane } from './bindings.js';
import { type Destination, Outlet } from './outlet.js';
import type { PlaneOrder } from './protocol.js';
import { type Bound, mapped, unmapped } from './sockets.js';

/** Words of a line of the module's table. */
const WORDS = 5;
/** Timers of Node.js are whole milliseconds. */
const MOST_MS = 1_000;

interface To extends Destination {
  readonly outlet: Outlet;
}

/** Numbers of the addresses that one socket has heard of. */
class Heard {
  readonly #numbers = new Map<string, Map<number, number>>();
  #host = '';
  #port = -1;
  #number = 0;

  /** `undefined`: not known. Most datagrams come from where the last one came from. */
  get(host: string, port: number): number | undefined {
    if (port === this.#port && host === this.#host) return this.#number;
    const number = this.#numbers.get(host)?.get(port);
    if (number !== undefined) this.#keep(host, port, number);
    return number;
  }

  set(host: string, port: number, number: number): void {
    const ports = this.#numbers.get(host);
    if (ports === undefined) this.#numbers.set(host, new Map([[port, number]]));
    else ports.set(port, number);
    this.#keep(host, port, number);
  }

  clear(): void {
    this.#numbers.clear();
    this.#port = -1;
  }

  #keep(host: string, port: number, number: number): void {
    this.#host = host;
    this.#port = port;
    this.#number = number;
  }
}

export interface DriverOptions {
  readonly module: PlaneModule;
  readonly nodeKey: Uint8Array;
  readonly seed: Uint8Array;
  readonly listening: boolean;
  readonly bound: readonly Bound[];
  /** There may be events to take. */
  readonly onSettled: () => void;
}

export class Driver {
  readonly #plane: WasmPlane;
  readonly #memory: { readonly buffer: ArrayBuffer };
  readonly #bound: readonly Bound[];
  readonly #outlets: readonly Outlet[];
  readonly #heard: readonly Heard[];
  readonly #onSettled: () => void;
  #to: (To | undefined)[] = [];
  #bytes = new Uint8Array();
  #words = new Uint32Array();
  /** Datagrams that lie in the module's input, and their bytes. */
  #count = 0;
  #used = 0;
  #scheduled = false;
  #timer: NodeJS.Timeout | undefined;
  #timerAt = Number.POSITIVE_INFINITY;
  #lost = 0;
  #closed = false;

  constructor({ module, nodeKey, seed, listening, bound, onSettled }: DriverOptions) {
    this.#plane = new module.WasmPlane(nodeKey, seed, listening);
    this.#memory = module.planeMemory();
    this.#bound = bound;
    this.#onSettled = onSettled;
    this.#outlets = bound.map(({ socket }) => new Outlet(socket, () => this.#stir()));
    this.#heard = bound.map(() => new Heard());
    this.#look();
    bound.forEach(({ socket }, index) => {
      socket.on('message', (datagram, from) => this.#onDatagram(index, datagram, from));
    });
    this.#arm();
  }

  /** Carries out orders; those that make no sense are told in the log. */
  order(orders: readonly PlaneOrder[]): void {
    if (this.#closed) return;
    this.#flush();
    const now = micros();
    for (const order of orders) {
      try {
        this.#plane.command(now, order.name, order.parameters);
      } catch (error) {
        this.#plane.log('error', `an order could not be carried out: ${describe(error)}`);
      }
    }
    this.#settle();
  }

  takeEvents(most: number): DataPlaneEvent[] {
    return this.#plane.takeEvents(most);
  }

  stats(): DataPlaneStats {
    this.#flush();
    return this.#plane.stats(micros());
  }

  /** A line for the log. */
  log(level: 'debug' | 'error', message: string): void {
    this.#plane.log(level, message);
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
    for (const { socket } of this.#bound) socket.close();
  }

  #onDatagram(socket: number, datagram: Buffer, from: RemoteInfo): void {
    const plane = this.#plane;
    const { length } = datagram;
    if (this.#count === plane.indexRoom || this.#used + length > plane.inputRoom) this.#flush();
    const number = this.#heard[socket]?.get(from.address, from.port) ?? this.#intern(socket, from);
    if (number === undefined) return;
    if (this.#bytes.buffer !== this.#memory.buffer) this.#look();
    this.#bytes.set(datagram, plane.input + this.#used);
    const at = plane.index / 4 + 2 * this.#count;
    this.#words[at] = number;
    this.#words[at + 1] = length;
    this.#count += 1;
    this.#used += length;
    this.#stir();
  }

  /** There is something to do, after all that can be read now. */
  #stir(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(() => {
      this.#scheduled = false;
      if (this.#closed) return;
      if (this.#count > 0) this.#flush();
      else this.#settle();
    });
  }

  #intern(socket: number, { address, port }: RemoteInfo): number | undefined {
    try {
      let number = this.#plane.intern(socket, unmapped(address), port);
      if (number === undefined) {
        this.#flush();
        this.#plane.forgetAddresses();
        for (const heard of this.#heard) heard.clear();
        this.#to = [];
        number = this.#plane.intern(socket, unmapped(address), port);
      }
      if (number !== undefined) this.#heard[socket]?.set(address, port, number);
      return number;
    } catch {
      // An address with a zone: nothing of ours has one.
      return undefined;
    }
  }

  /** Hands over what was received. */
  #flush(): void {
    if (this.#count === 0 || this.#closed) return;
    const count = this.#count;
    this.#count = 0;
    this.#used = 0;
    this.#plane.receive(micros(), count);
    this.#settle();
  }

  /** Whatever was called: what it made goes out, and when to call next is noted. */
  #settle(): void {
    this.#send();
    this.#arm();
    this.#onSettled();
  }

  #send(): void {
    const plane = this.#plane;
    const lines = plane.ready();
    if (lines > 0) {
      this.#look();
      const [bytes, words] = [this.#bytes, this.#words];
      const table = plane.table / 4;
      for (let line = table; line < table + lines * WORDS; line += WORDS) {
        const to = this.#destination(words[line] ?? 0);
        const at = words[line + 1] ?? 0;
        const end = at + (words[line + 2] ?? 0);
        const segment = words[line + 3] ?? 1;
        const share = words[line + 4] ?? 0;
        if (to === undefined) continue;
        for (let from = at; from < end; from += segment) to.outlet.send(bytes, from, Math.min(from + segment, end), to, share);
      }
    }
    for (const outlet of this.#outlets) this.#lost += outlet.takeLost();
    if (lines > 0 || this.#lost > 0) plane.sent(this.#lost);
    this.#lost = 0;
  }

  #destination(number: number): To | undefined {
    const known = this.#to[number];
    if (known !== undefined) return known;
    const remote = this.#plane.address(number);
    const bound = this.#bound[remote?.socket ?? -1];
    const outlet = this.#outlets[remote?.socket ?? -1];
    if (remote === undefined || bound === undefined || outlet === undefined) return undefined;
    const to = { outlet, host: mapped(remote.host, bound), port: remote.port };
    this.#to[number] = to;
    return to;
  }

  /** Views of the module's memory, which are void when that has grown. */
  #look(): void {
    const { buffer } = this.#memory;
    if (this.#bytes.buffer === buffer) return;
    this.#bytes = new Uint8Array(buffer);
    this.#words = new Uint32Array(buffer);
  }

  #arm(): void {
    const due = this.#plane.pollTimeout();
    if (due >= this.#timerAt) return;
    clearTimeout(this.#timer);
    this.#timerAt = due;
    const ms = Math.min(MOST_MS, Math.max(0, Math.ceil((due - micros()) / 1_000)));
    this.#timer = setTimeout(() => {
      this.#timerAt = Number.POSITIVE_INFINITY;
      if (this.#closed) return;
      this.#plane.handleTimeout(micros());
      this.#settle();
    }, ms);
  }
}

/** Microseconds, from one second on, as the core wants them. */
function micros(): number {
  return 1_000_000 + Math.floor(performance.now() * 1_000);
}
