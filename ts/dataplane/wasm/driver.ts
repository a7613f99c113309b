/** Drives the WASM module by sockets and a clock. What came in one turn of the event loop goes into it by one call. */
import type { RemoteInfo } from 'node:dgram';
import { describe } from '../../errors.js';
import type { DataPlaneEvent, DataPlaneStats } from '../data-plane.js';
import type { HostEvent } from '../userspace.js';
import type { PlaneModule, WasmPlane } from './bindings.js';
import { type Destination, Outlet } from './outlet.js';
import type { Order } from './protocol.js';
import { type Bound, mapped, unmapped } from './sockets.js';
import { User } from './user/index.js';

/** Words of a line of the module's table. */
const WORDS = 5;
/** Timers of Node.js are whole milliseconds. */
const MOST_MS = 1_000;
/** Times that the host goes on before the sockets have their turn. */
const TURNS = 16;

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
  /** Bytes for user-space mode's buffers; 0 without it. */
  readonly budget: number;
  readonly bound: readonly Bound[];
  /** There may be events to take. */
  readonly onSettled: () => void;
}

export class Driver {
  readonly #plane: WasmPlane;
  readonly #user: User | undefined;
  readonly #memory: { readonly buffer: ArrayBuffer };
  /** Where the module's input and its index lie, and what fits there: they stay. */
  readonly #input: number;
  readonly #inputRoom: number;
  readonly #index: number;
  readonly #indexRoom: number;
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

  constructor({ module, nodeKey, seed, listening, budget, bound, onSettled }: DriverOptions) {
    this.#plane = new module.WasmPlane(nodeKey, seed, listening, budget);
    this.#memory = module.planeMemory();
    this.#user = budget === 0 ? undefined : new User(this.#plane, this.#memory, () => this.#stir());
    const { input, inputRoom, index, indexRoom } = this.#plane;
    [this.#input, this.#inputRoom, this.#index, this.#indexRoom] = [input, inputRoom, index / 4, indexRoom];
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
  order(orders: readonly Order[]): void {
    if (this.#closed) return;
    this.#flush();
    const now = micros();
    for (const order of orders) {
      try {
        if ('type' in order) this.#user?.order(now, order);
        else this.#plane.command(now, order.name, order.parameters);
      } catch (error) {
        this.#plane.log('error', `an order could not be carried out: ${describe(error)}`);
      }
    }
    this.#settle();
  }

  takeEvents(most: number): (DataPlaneEvent | HostEvent)[] {
    const events: (DataPlaneEvent | HostEvent)[] = this.#plane.takeEvents(most);
    return this.#user === undefined ? events : events.concat(this.#user.takeEvents(most - events.length));
  }

  stats(): DataPlaneStats {
    this.#flush();
    const stats = this.#plane.stats(micros());
    return this.#user === undefined ? stats : { ...stats, userspace: this.#user.stats() };
  }

  /** A line for the log. */
  log(level: 'debug' | 'error', message: string): void {
    this.#plane.log(level, message);
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#user?.close();
    for (const { socket } of this.#bound) socket.close();
  }

  #onDatagram(socket: number, datagram: Buffer, from: RemoteInfo): void {
    const { length } = datagram;
    if (this.#count === this.#indexRoom || this.#used + length > this.#inputRoom) this.#flush();
    const number = this.#heard[socket]?.get(from.address, from.port) ?? this.#intern(socket, from);
    if (number === undefined) return;
    if (this.#bytes.buffer !== this.#memory.buffer) this.#look();
    this.#bytes.set(datagram, this.#input + this.#used);
    const at = this.#index + 2 * this.#count;
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
    if (this.#user !== undefined) this.#turn(this.#user);
    this.#arm();
    this.#onSettled();
  }

  /** Lets the host and its sockets go on. While the line is full nothing is made that can be made later: then the host's own buffers fill, and who writes waits. */
  #turn(user: User): void {
    for (let turn = 0; turn < TURNS; turn += 1) {
      let more = user.serve();
      if (!this.#outlets.some(({ isCongested }) => isCongested)) {
        more = this.#plane.turn(micros()) || more;
        this.#send();
      }
      if (!more) return;
    }
    this.#stir();
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
        const train = bytes.subarray(at, at + (words[line + 2] ?? 0));
        to?.outlet.send(train, words[line + 3] ?? 1, to, words[line + 4] ?? 0);
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
