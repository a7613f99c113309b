/** Calls to configured parents: each is dialled until its link is up, its host name resolved again where it doesn't answer. */
import { lookup } from 'node:dns/promises';
import { isIP } from 'node:net';
import type { Logger } from 'pino';
import type { DataPlane, SocketAddress } from '../dataplane/data-plane.js';
import { describe } from '../errors.js';
import type { PublicKey } from '../trust/index.js';
import { type Clock, type Milliseconds, ms } from './clock.js';
import { randomU32 } from './handles.js';
import type { ParentAddress } from './link.js';
import type { EstablishedLink, Handshakes, LinkInitiation } from './ports.js';

/** First wait for an answer to message 1; doubled at each try up to the longest. */
const RETRY_FIRST = ms(300);
const RETRY_LONGEST = ms(4_000);
/** After so many unanswered tries the host name is resolved again. */
const TRIES_PER_ADDRESS = 3;
/** A parent that can't even be called is tried again after so long. */
const RETRY_FAULTY = ms(60_000);

/** `anew`: there is no link, or it is in doubt; `renew`: it stands, but other certificates are to be shown. */
export type Wanted = 'nothing' | 'anew' | 'renew';

export interface ParentCallsHost {
  readonly plane: DataPlane;
  readonly handshakes: () => Handshakes;
  readonly clock: Clock;
  readonly log: Logger;
  wanted(key: PublicKey, now: Milliseconds): Wanted;
  /** A parent has answered. `later`: nothing came of it, since its link is live after all. */
  answered(key: PublicKey, established: EstablishedLink, index: number, socket: number, from: SocketAddress): 'done' | 'later';
  behind(epoch: bigint): void;
  /** Refused handshake messages by reason, for `status`. */
  count(reason: string): void;
}

interface Calling {
  readonly address: ParentAddress;
  remote: SocketAddress | undefined;
  initiation: LinkInitiation | undefined;
  /** What the initiation is for. */
  purpose: Wanted;
  index: number;
  tries: number;
  nextAt: Milliseconds;
  resolving: boolean;
}

export class ParentCalls {
  readonly #host: ParentCallsHost;
  readonly #calling = new Map<PublicKey, Calling>();

  constructor(host: ParentCallsHost) {
    this.#host = host;
  }

  has(key: PublicKey): boolean {
    return this.#calling.has(key);
  }

  addresses(): ParentAddress[] {
    return [...this.#calling.values()].map(({ address }) => address);
  }

  /** Dials a parent until `remove`. */
  add(address: ParentAddress): void {
    if (this.#calling.has(address.key)) return;
    this.#calling.set(address.key, {
      address,
      remote: undefined,
      initiation: undefined,
      purpose: 'nothing',
      index: 0,
      tries: 0,
      nextAt: ms(0),
      resolving: false,
    });
    this.tick();
  }

  remove(key: PublicKey): void {
    this.#calling.delete(key);
  }

  clear(): void {
    this.#calling.clear();
  }

  /** A parent's link is gone: call now. */
  restart(key: PublicKey): void {
    const calling = this.#calling.get(key);
    if (calling === undefined) return;
    this.#rest(calling, this.#host.clock.now());
    // The address may have changed with the outage: ask again for a host name.
    calling.remote = isIP(calling.address.host) ? calling.remote : undefined;
  }

  tick(): void {
    const now = this.#host.clock.now();
    for (const calling of this.#calling.values()) {
      try {
        this.#tend(calling, now);
      } catch (error) {
        // One parent must not keep the others waiting.
        this.#rest(calling, ms(now + RETRY_FAULTY));
        this.#host.log.error({ parent: calling.address.key }, `a parent can't be called: ${describe(error)}`);
      }
    }
  }

  #tend(calling: Calling, now: Milliseconds): void {
    const wanted = this.#host.wanted(calling.address.key, now);
    // What was begun for another purpose has become pointless, such as when the parent answers over its link after all.
    if (calling.initiation !== undefined && calling.purpose !== wanted) this.#rest(calling, ms(0));
    if (wanted === 'nothing' || calling.resolving || now < calling.nextAt) return;
    if (calling.remote === undefined || calling.tries >= TRIES_PER_ADDRESS) return this.#resolve(calling);
    if (calling.initiation === undefined) {
      calling.index = randomU32();
      calling.purpose = wanted;
      calling.initiation = this.#host.handshakes().initiateLink(calling.address.key, calling.index, wanted === 'renew');
    }
    calling.tries += 1;
    const wait = Math.min(RETRY_FIRST * 2 ** (calling.tries - 1), RETRY_LONGEST);
    calling.nextAt = ms(now + wait * (0.75 + Math.random() / 2));
    this.#host.plane.sendHandshake(this.#socketFor(calling.remote), calling.remote, calling.initiation.datagram);
  }

  #rest(calling: Calling, until: Milliseconds): void {
    calling.initiation = undefined;
    calling.tries = 0;
    calling.nextAt = until;
  }

  #socketFor(remote: SocketAddress): number {
    const wanted = isIP(remote.host);
    const index = this.#host.plane.sockets.findIndex((socket) => isIP(socket.host) === wanted || socket.host === '::');
    return index < 0 ? 0 : index;
  }

  #resolve(calling: Calling): void {
    calling.resolving = true;
    const { host, port, key } = calling.address;
    const found = isIP(host) ? Promise.resolve([{ address: host }]) : lookup(host, { all: true });
    found
      .then((addresses) => {
        const pick = addresses[Math.floor(Math.random() * addresses.length)];
        if (pick === undefined) throw new RangeError('no address');
        calling.remote = { host: pick.address, port };
        this.#rest(calling, ms(0));
      })
      .catch((error: unknown) => {
        calling.nextAt = ms(this.#host.clock.now() + RETRY_LONGEST);
        this.#host.log.debug({ error: describe(error) }, 'a parent has no address yet');
      })
      .finally(() => {
        calling.resolving = false;
        if (this.#calling.get(key) === calling && calling.nextAt === 0) this.tick();
      });
  }

  /** Message 2 (type 2) or a cookie (type 3). Throws when it isn't the answer that it claims to be. */
  answered(socket: number, from: SocketAddress, bytes: Uint8Array, type: number): void {
    const index = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength).getUint32(type === 3 ? 4 : 8);
    for (const calling of this.#calling.values()) {
      const { initiation } = calling;
      if (initiation === undefined || calling.index !== index) continue;
      const now = this.#host.clock.now();
      if (type === 3) {
        if (initiation.cookie(bytes)) calling.nextAt = now;
        else this.#host.count('cookie');
        return;
      }
      const result = initiation.finish(bytes);
      this.#rest(calling, ms(0));
      if ('behind' in result) return this.#host.behind(result.behind);
      const outcome = this.#host.answered(calling.address.key, result, index, socket, from);
      if (outcome === 'later') calling.nextAt = ms(now + RETRY_LONGEST);
      return;
    }
    this.#host.count('unasked');
  }
}
