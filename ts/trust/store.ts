/** A node's state directory: its key, its certificate, its endpoints' keys, the boot epoch and the time floor. */
import { accessSync, constants } from 'node:fs';
import { join } from 'node:path';
import { describe, ThicketError } from '../errors.js';
import * as z from '../zod.js';
import { BUILD_TIME } from './build-time.js';
import { type Certificate, decodeCertificate, decodeGrant, encodeEndpointCertificate } from './certificate.js';
import { ensurePrivateFolder, loadState, removeLeftovers, saveState } from './files.js';
import { KeyPair } from './keys.js';
import { decodeBundle, encodeBundle, encodeRequest, type SignedBundle } from './network.js';

/** A restored state directory may be told by this much that it is behind; more is a lie. */
const EPOCH_JUMP = 1n << 16n;
/** The floor is written at most so often, seconds of its own time. */
const FLOOR_STEP = 3_600;

/** 32 bytes of base64. */
const Seed = z.string().check(z.regex(/^[A-Za-z0-9+/]{43}=$/));
const KeyFile = z.strictObject({ seed: Seed });
const EpochFile = z.strictObject({ epoch: z.string().check(z.regex(/^\d{1,20}$/)) });
const FloorFile = z.strictObject({ floor: z.int().check(z.nonnegative()) });
const EndpointsFile = z.record(z.string(), z.strictObject({ seed: Seed, serial: z.int().check(z.nonnegative()) }));
const GenerationsFile = z.record(z.string(), z.int().check(z.nonnegative()));

/** A node's certificate with its network. */
export interface Membership extends SignedBundle {
  readonly name: string;
  readonly notAfter: number;
}

/** An endpoint's key with the chain that its gateway made. */
export interface EndpointIdentity {
  readonly name: string;
  readonly pair: KeyPair;
  readonly chain: readonly Uint8Array[];
  readonly grant: Uint8Array | undefined;
}

export class NodeStore {
  readonly folder: string;
  readonly pair: KeyPair;
  #floor: number;
  /** As on disk. */
  #writtenFloor: number;
  #generations: Record<string, number>;

  private constructor(folder: string, pair: KeyPair) {
    this.folder = folder;
    this.pair = pair;
    this.#writtenFloor = Math.max(BUILD_TIME, this.#load('floor.json', FloorFile)?.floor ?? 0);
    this.#floor = this.#writtenFloor;
    this.#generations = this.#load('generations.json', GenerationsFile) ?? {};
  }

  /** Makes a node key. Throws EXISTS when there is one. */
  static init(folder: string): NodeStore {
    ensurePrivateFolder(folder);
    const file = join(folder, 'node.key');
    if (loadState(file) !== undefined) throw new ThicketError('EXISTS', `${file} exists: this node has its key already`);
    const pair = KeyPair.generate();
    saveState(file, { seed: Buffer.from(pair.exportSeed()).toString('base64') });
    return new NodeStore(folder, pair);
  }

  /** Throws NO_KEY, BAD_STATE, LAX_PERMISSIONS or NOT_WRITABLE. */
  static open(folder: string): NodeStore {
    ensurePrivateFolder(folder);
    try {
      accessSync(folder, constants.W_OK);
    } catch {
      throw new ThicketError('NOT_WRITABLE', `${folder} is not writable: check its owner, or choose another with --state`);
    }
    removeLeftovers(folder);
    const file = join(folder, 'node.key');
    const value = loadState(file);
    if (value === undefined) throw new ThicketError('NO_KEY', `${folder} has no node key: run thicket node init`);
    const parsed = KeyFile.safeParse(value);
    if (!parsed.success) throw new ThicketError('BAD_STATE', `${file} is damaged: restore it from a backup`);
    return new NodeStore(folder, KeyPair.fromSeed(Buffer.from(parsed.data.seed, 'base64')));
  }

  /** A signing request for `thicket network sign`. */
  request(): string {
    return encodeRequest(this.pair);
  }

  /** Takes what the owner signed. Throws when it is for another key, expired, or doesn't verify. */
  join(text: string, now: number): Membership {
    const membership = this.#check(decodeBundle(text), now);
    saveState(join(this.folder, 'certificate.json'), { bundle: encodeBundle(membership) });
    this.raiseFloor(decodeCertificate(membership.certificate).issuedAt);
    return membership;
  }

  /** The certificate that the node joined with; undefined before. Verified again: the file may have been touched, and time passes. */
  membership(now: number): Membership | undefined {
    const stored = this.#load('certificate.json', z.strictObject({ bundle: z.string() }));
    return stored === undefined ? undefined : this.#check(decodeBundle(stored.bundle), now);
  }

  #check(bundle: SignedBundle, now: number): Membership {
    const certificate = intact(() => decodeCertificate(bundle.certificate));
    if (certificate.network !== bundle.network.key) {
      throw new ThicketError('UNKNOWN_NETWORK', 'the certificate is signed by another network than it claims: ask its owner for a new one');
    }
    if (certificate.key !== this.pair.publicKey) {
      throw new ThicketError(
        'WRONG_KEY',
        `the certificate is for ${certificate.key}, this node is ${this.pair.publicKey}: sign this node's request`,
      );
    }
    if (certificate.notAfter < Math.max(this.#floor, now)) {
      throw new ThicketError('EXPIRED', 'the certificate has expired: sign a new one with thicket network sign');
    }
    for (const bytes of bundle.grants) {
      const grant = intact(() => decodeGrant(bytes));
      if (grant.network !== certificate.network || grant.gateway !== certificate.key) {
        throw new ThicketError('BAD_CERTIFICATE', `the grant for ${grant.name} is for another gateway: sign this node's request`);
      }
    }
    return { ...bundle, name: certificate.name, notAfter: certificate.notAfter };
  }

  // ── endpoints ─────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** An endpoint's key and a fresh certificate for it; the key is made at first sight and kept. */
  endpoint(name: string, groups: readonly string[], membership: Membership, now: number): EndpointIdentity {
    const gateway = this.checkEndpoint(name, groups, membership);
    const all = this.#load('endpoints.json', EndpointsFile) ?? {};
    const known = Object.hasOwn(all, name) ? all[name] : undefined;
    const pair = known === undefined ? KeyPair.generate() : KeyPair.fromSeed(Buffer.from(known.seed, 'base64'));
    const serial = (known?.serial ?? 0) + 1;
    const seed = Buffer.from(pair.exportSeed()).toString('base64');
    saveState(join(this.folder, 'endpoints.json'), { ...all, [name]: { seed, serial } });
    const issuedAt = Math.max(now, this.#floor);
    const certificate = encodeEndpointCertificate(
      { gateway: gateway.key, key: pair.publicKey, name, groups, serial, issuedAt, notAfter: gateway.notAfter },
      this.pair,
    );
    const grant = membership.grants.find((bytes) => decodeGrant(bytes).name === name);
    return { name, pair, chain: [membership.certificate, certificate], grant };
  }

  /** What this node's certificate must allow for an endpoint of that name. Throws BAD_CONFIG; makes nothing. */
  checkEndpoint(name: string, groups: readonly string[], membership: Membership): Certificate {
    const gateway = decodeCertificate(membership.certificate);
    const foreign = groups.find((group) => !gateway.delegable.includes(group));
    if (foreign !== undefined) {
      throw new ThicketError('BAD_CONFIG', `endpoint ${name} can't be in group ${foreign}: sign this gateway with --delegate ${foreign}`);
    }
    if (!gateway.rights.includes('gateway')) {
      throw new ThicketError('BAD_CONFIG', `endpoint ${name} needs a gateway: sign this node with --right gateway`);
    }
    return gateway;
  }

  // ── time ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

  get floor(): number {
    return this.#floor;
  }

  /** Something that our own network key signed was made at `seconds`: that is past. */
  raiseFloor(seconds: number): void {
    if (seconds <= this.#floor) return;
    this.#floor = seconds;
    if (seconds - this.#writtenFloor < FLOOR_STEP) return;
    saveState(join(this.folder, 'floor.json'), { floor: seconds });
    this.#writtenFloor = seconds;
  }

  /** One more boot: the number is on disk before it is used. Throws when it can't be written. */
  nextEpoch(): bigint {
    const epoch = this.#epoch() + 1n;
    saveState(join(this.folder, 'epoch.json'), { epoch: epoch.toString() });
    return epoch;
  }

  /** We were told, under a fresh challenge, that `seen` is the highest epoch known of us. Returns the new one; throws when told too much. */
  jumpEpoch(current: bigint, seen: bigint): bigint {
    if (seen < current) return current;
    if (seen - current > EPOCH_JUMP) {
      throw new ThicketError(
        'BAD_STATE',
        'a peer claims that this node has restarted impossibly often: is another node using a copy of its key?',
      );
    }
    const epoch = seen + 1n;
    saveState(join(this.folder, 'epoch.json'), { epoch: epoch.toString() });
    return epoch;
  }

  #epoch(): bigint {
    return BigInt(this.#load('epoch.json', EpochFile)?.epoch ?? '0');
  }

  // ── short names ───────────────────────────────────────────────────────────────────────────────────────────────────────

  generationOf(network: string, name: string): number {
    return this.#generations[`${name}@${network}`] ?? 0;
  }

  /** A verified grant had this generation: lower ones are refused from now on. */
  raiseGeneration(network: string, name: string, generation: number): boolean {
    if (generation <= this.generationOf(network, name)) return false;
    this.#generations = { ...this.#generations, [`${name}@${network}`]: generation };
    saveState(join(this.folder, 'generations.json'), this.#generations);
    return true;
  }

  #load<T>(name: string, schema: z.ZodMiniType<T>): T | undefined {
    const file = join(this.folder, name);
    const value = loadState(file);
    if (value === undefined) return undefined;
    const parsed = schema.safeParse(value);
    if (!parsed.success) throw new ThicketError('BAD_STATE', `${file} is damaged: restore it from a backup, or remove it`);
    return parsed.data;
  }
}

/** What a bundle carries decodes, or was damaged on its way from the owner. */
function intact<T>(decode: () => T): T {
  try {
    return decode();
  } catch (error) {
    throw new ThicketError('BAD_CERTIFICATE', `the certificate is damaged (${describe(error)}): copy it again, or sign a new one`);
  }
}
