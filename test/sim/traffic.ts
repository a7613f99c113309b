/** Numbered packets both ways between two nodes, as a stream and its acknowledgements would be. */
import { ms } from '../../ts/node/clock.js';
import type { PublicKey } from '../../ts/trust/index.js';
import type { World } from './world.js';

interface End {
  readonly node: string;
  readonly own: PublicKey;
}

export class Traffic {
  readonly #world: World;
  readonly #a: End;
  readonly #b: End;
  readonly #stop: () => void;
  #next = 0;
  /** Numbers that found no path at their sender. */
  unsent = 0;

  /** From `a` to `b` and back every `period` milliseconds. `b` may be an endpoint's key. */
  constructor(world: World, a: string, b: string, period = 50, bKey: PublicKey = world.key(b)) {
    this.#world = world;
    this.#a = { node: a, own: world.key(a) };
    this.#b = { node: b, own: bKey };
    this.#stop = world.clock.every(ms(period), () => this.#send());
  }

  get sent(): number {
    return this.#next;
  }

  stop(): void {
    this.#stop();
  }

  /** Numbers that have arrived at `a`'s or `b`'s end since the node there runs. */
  arrived(at: 'a' | 'b'): number[] {
    const [here, there] = at === 'a' ? [this.#a, this.#b] : [this.#b, this.#a];
    const node = this.#world.all().find((n) => n.id.name === here.node);
    const of = node?.arrived.filter((x) => x.own === here.own && x.peer === there.own) ?? [];
    return of.map((x) => new DataView(x.bytes.buffer, x.bytes.byteOffset).getUint32(0));
  }

  /** Lets time pass until new packets arrive both ways; the milliseconds that took. */
  async resumed(most: number): Promise<number> {
    const mark = this.#next;
    const newer = (at: 'a' | 'b'): boolean => this.arrived(at).some((n) => n > mark);
    return this.#world.clock.until('traffic both ways', most, () => newer('a') && newer('b'));
  }

  #send(): void {
    this.#next += 1;
    const bytes = new Uint8Array(100);
    new DataView(bytes.buffer).setUint32(0, this.#next);
    for (const [from, to] of [
      [this.#a, this.#b],
      [this.#b, this.#a],
    ] as const) {
      const node = this.#world.all().find((n) => n.id.name === from.node);
      if (node !== undefined && !node.send(to.own, bytes, from.own)) this.unsent += 1;
    }
  }
}
