/** The node's handshakes: its keys, certificates and epoch in front of ts/handshake, certificates verified, repeated questions answered alike. */

import { ThicketError } from '../errors.js';
import { answerRekey, Call, Callee, chainHash, type Own, RENEWS, RekeyCall, readCookie, writeMacs } from '../handshake/index.js';
import { type KeyPair, keyBytes, type PublicKey, sodium, type VerifiedIdentity, verifyChain } from '../trust/index.js';
import type {
  Admit,
  AdmitLink,
  EstablishedLink,
  Handshakes,
  LinkInitiation,
  LinkResponse,
  RekeyInitiation,
  RekeyResponse,
  SessionInitiation,
  SessionResponse,
} from './ports.js';

/** Answers remembered, so that a repeated question gets the same one. */
const ANSWERS = 1_024;
/** Highest epochs remembered of other nodes. */
const EPOCHS = 65_536;
const DATAGRAM = 1_232;

export interface HandshakeSelf {
  /** The node's own pair and those of its endpoints. */
  pair(key: PublicKey): KeyPair | undefined;
  /** The chain that `key` shows. */
  chain(key: PublicKey): { readonly chain: readonly Uint8Array[]; readonly grant: Uint8Array | undefined };
  epoch(): bigint;
  readonly node: PublicKey;
  floor(): number;
  now(): number;
  generationOf(network: PublicKey, name: string): number;
}

export class NodeHandshakes implements Handshakes {
  readonly #self: HandshakeSelf;
  readonly #answers = new Map<string, Uint8Array>();
  readonly #epochs = new Map<PublicKey, bigint>();

  constructor(self: HandshakeSelf) {
    this.#self = self;
  }

  #own(key: PublicKey): Own {
    const pair = this.#self.pair(key);
    if (pair === undefined) throw new ThicketError('NO_KEY', `${key} is not ours`);
    return { pair, ...this.#self.chain(key), epoch: this.#self.epoch() };
  }

  shown(own: PublicKey): Uint8Array {
    const { chain, grant } = this.#own(own);
    return chainHash(chain, grant);
  }

  #identify(
    kind: 'link' | 'session',
    peer: { readonly key: PublicKey; readonly chain: readonly Uint8Array[]; readonly grant: Uint8Array | undefined },
  ): VerifiedIdentity | undefined {
    if (peer.chain.length === 0) {
      if (kind === 'session') throw new ThicketError('NO_CERTIFICATE', 'a session needs a certificate');
      return undefined;
    }
    return verifyChain(peer.chain, peer.grant, peer.key, {
      kind,
      floor: this.#self.floor(),
      now: this.#self.now(),
      generationOf: (network, name) => this.#self.generationOf(network, name),
    });
  }

  initiateLink(remote: PublicKey, index: number, renews = false): LinkInitiation {
    const call = new Call('link', this.#own(this.#self.node), remote, renews ? RENEWS : 0);
    const datagram = new Uint8Array(DATAGRAM);
    const view = new DataView(datagram.buffer);
    view.setUint32(0, 1);
    view.setUint32(4, index);
    datagram.set(call.message, 8);
    writeMacs(datagram, keyBytes(remote), undefined);
    const identify = (...args: Parameters<NodeHandshakes['identifyLink']>): VerifiedIdentity | undefined => this.identifyLink(...args);
    return {
      datagram,
      cookie(reply) {
        const cookie = readCookie(reply, keyBytes(remote), datagram);
        if (cookie === undefined) return false;
        writeMacs(datagram, keyBytes(remote), cookie);
        return true;
      },
      finish(answer) {
        exactly(answer);
        const result = call.finish(answer.subarray(12, DATAGRAM - 32));
        if ('behind' in result) return result;
        const peerIndex = new DataView(answer.buffer, answer.byteOffset, answer.byteLength).getUint32(4);
        const { epoch, chain, grant } = result.peer;
        const identity = identify(result.peer);
        return { ...result.keys, peer: remote, identity, epoch, peerIndex, chain: chainHash(chain, grant), renews };
      },
    };
  }

  /** A link needs no certificate; one that doesn't verify is the same as none. */
  identifyLink(peer: {
    readonly key: PublicKey;
    readonly chain: readonly Uint8Array[];
    readonly grant: Uint8Array | undefined;
  }): VerifiedIdentity | undefined {
    try {
      return this.#identify('link', peer);
    } catch {
      return undefined;
    }
  }

  respondLink(datagram: Uint8Array, index: number, admit: AdmitLink): LinkResponse {
    exactly(datagram);
    const known = this.#repeated(datagram);
    if (known !== undefined) return { datagram: known, established: undefined };
    const callee = new Callee('link', this.#own(this.#self.node), datagram.subarray(8, DATAGRAM - 32));
    const peer = callee.identify();
    const identity = this.identifyLink(peer);
    const renews = (peer.features & RENEWS) !== 0;
    admit(peer.key, identity, { epoch: peer.epoch, renews });
    const peerIndex = new DataView(datagram.buffer, datagram.byteOffset, datagram.byteLength).getUint32(4);
    const behind = this.#behind(peer.key, peer.epoch);
    const { message, keys } = behind === undefined ? callee.accept() : { message: callee.refuseEpoch(behind), keys: undefined };
    const answer = new Uint8Array(DATAGRAM);
    const view = new DataView(answer.buffer);
    view.setUint32(0, 2);
    view.setUint32(4, index);
    view.setUint32(8, peerIndex);
    answer.set(message, 12);
    writeMacs(answer, keyBytes(peer.key), undefined);
    this.#remember(datagram, answer);
    if (keys === undefined) return { datagram: answer, established: undefined };
    const chain = chainHash(peer.chain, peer.grant);
    const established: EstablishedLink = { ...keys, peer: peer.key, identity, epoch: peer.epoch, peerIndex, chain, renews };
    return { datagram: answer, established };
  }

  initiateSession(own: PublicKey, remote: PublicKey): SessionInitiation {
    const call = new Call('session', this.#own(own), remote);
    return {
      message: call.message,
      finish: (answer) => {
        const result = call.finish(answer);
        if ('behind' in result) return result;
        const { epoch, chain, grant } = result.peer;
        const identity = this.#identify('session', result.peer);
        return { ...result.keys, peer: remote, identity, epoch, chain: chainHash(chain, grant) };
      },
    };
  }

  respondSession(own: PublicKey, message: Uint8Array, admit: Admit, reads?: (agreementKey: Uint8Array) => void): SessionResponse {
    const known = this.#repeated(message);
    if (known !== undefined) return { message: known, established: undefined };
    const callee = new Callee('session', this.#own(own), message);
    reads?.(callee.agreementKey);
    const peer = callee.identify();
    // Strangers get silence: who isn't certified and admitted isn't even told that its epoch is behind.
    const identity = this.#identify('session', peer);
    admit(peer.key, identity);
    const behind = this.#behind(peer.key, peer.epoch);
    if (behind !== undefined) return { message: callee.refuseEpoch(behind), established: undefined };
    const { message: answer, keys } = callee.accept();
    this.#remember(message, answer);
    const { key, epoch, chain, grant } = peer;
    return { message: answer, established: { ...keys, peer: key, identity, epoch, chain: chainHash(chain, grant) } };
  }

  initiateRekey(own: PublicKey, remote: PublicKey, binding: Uint8Array, index: number): RekeyInitiation {
    return new RekeyCall(this.#own(own).pair, this.shown(own), remote, binding, index);
  }

  respondRekey(
    own: PublicKey,
    remote: PublicKey,
    binding: Uint8Array,
    message: Uint8Array,
    index: number,
    remoteChain: Uint8Array,
  ): RekeyResponse {
    const { pair } = this.#own(own);
    return answerRekey({ pair, chain: this.shown(own), remote, remoteChain }, binding, message, index);
  }

  /** The highest epoch seen of `key` when `epoch` is lower; a cheap filter against old messages, not the proof. */
  #behind(key: PublicKey, epoch: bigint): bigint | undefined {
    const seen = this.#epochs.get(key) ?? 0n;
    if (epoch < seen) return seen;
    this.#epochs.delete(key);
    this.#epochs.set(key, epoch);
    if (this.#epochs.size > EPOCHS) this.#epochs.delete(this.#epochs.keys().next().value as PublicKey);
    return undefined;
  }

  #repeated(question: Uint8Array): Uint8Array | undefined {
    return this.#answers.get(digest(question));
  }

  #remember(question: Uint8Array, answer: Uint8Array): void {
    this.#answers.set(digest(question), answer);
    if (this.#answers.size > ANSWERS) this.#answers.delete(this.#answers.keys().next().value as string);
  }
}

function exactly(datagram: Uint8Array): void {
  if (datagram.length !== DATAGRAM) throw new ThicketError('BAD_HANDSHAKE', `a datagram of ${DATAGRAM} bytes is wanted`);
}

function digest(bytes: Uint8Array): string {
  return sodium.crypto_generichash(16, bytes, null, 'hex');
}
