/** A network's folder, kept offline by its owner: the key, the naming secret, serials, and what was signed. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { ThicketError } from '../errors.js';
import * as z from '../zod.js';
import { BUILD_TIME } from './build-time.js';
import { type Certificate, checkLabel, encodeCertificate, encodeGrant, type Right } from './certificate.js';
import { ensurePrivateFolder, loadState, removeLeftovers, saveState } from './files.js';
import { base32, KeyPair, type PublicKey, parseKey, verify } from './keys.js';
import { sodium } from './sodium.js';

const DAY = 86_400;
/** A network whose first signature is later than this after the program was made is probably signed by a wrong clock. */
const FIRST_WITHIN = 5 * 365 * DAY;
/** Short names in one bundle. */
const GRANTS_MAX = 64;
/** 16 bytes: 26 characters of base32. */
const SECRET_BYTES = 16;

/** A network as written: its key, and, for those who may look names up, its naming secret. */
export interface NetworkRef {
  readonly key: PublicKey;
  readonly namingSecret: Uint8Array | undefined;
}

/** Reads `<id>` or `<id>.<naming secret>`. Throws BAD_KEY. */
export function parseNetworkRef(text: string): NetworkRef {
  const [id = '', secret, ...more] = text.split('.');
  const key = parseKey(id);
  if (secret === undefined) return { key, namingSecret: undefined };
  if (more.length > 0 || !/^[a-z2-7]{26}$/.test(secret)) {
    throw new ThicketError('BAD_KEY', 'a naming secret has 26 characters a–z and 2–7 behind the network id and a dot');
  }
  try {
    return { key, namingSecret: base32.decode(secret) };
  } catch (error) {
    throw new ThicketError('BAD_KEY', "the naming secret's last character is wrong", { cause: error });
  }
}

export function formatNetworkRef(ref: NetworkRef): string {
  return ref.namingSecret === undefined ? ref.key : `${ref.key}.${base32.encode(ref.namingSecret)}`;
}

const Base64 = z.string().check(z.regex(/^[A-Za-z0-9+/]*={0,2}$/));

/** What a node asks its owner to sign: the key, and a proof that the asker holds it. */
const Request = z.strictObject({ thicketRequest: z.literal(1), key: z.string(), proof: Base64 });
/** What the owner hands back. */
const Bundle = z.strictObject({
  thicketCertificate: z.literal(1),
  network: z.string(),
  certificate: Base64,
  grants: z.array(Base64).check(z.maxLength(GRANTS_MAX)),
});

export interface SignedBundle {
  readonly network: NetworkRef;
  readonly certificate: Uint8Array;
  readonly grants: readonly Uint8Array[];
}

const REQUEST_BODY = new TextEncoder().encode('a certificate, please');

export function encodeRequest(pair: KeyPair): string {
  const proof = Buffer.from(pair.sign('request', REQUEST_BODY)).toString('base64');
  return `${JSON.stringify({ thicketRequest: 1, key: pair.publicKey, proof })}\n`;
}

export function decodeRequest(text: string): PublicKey {
  const parsed = Request.safeParse(parseJson(text));
  if (!parsed.success) throw new ThicketError('BAD_REQUEST', 'that is not a signing request: make one with thicket node request');
  const key = parseKey(parsed.data.key);
  if (!verify(key, 'request', REQUEST_BODY, Buffer.from(parsed.data.proof, 'base64'))) {
    throw new ThicketError('BAD_SIGNATURE', 'the signing request is damaged or forged: make another with thicket node request');
  }
  return key;
}

export function encodeBundle(bundle: SignedBundle): string {
  const b64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64');
  const network = formatNetworkRef(bundle.network);
  return `${JSON.stringify({ thicketCertificate: 1, network, certificate: b64(bundle.certificate), grants: bundle.grants.map(b64) })}\n`;
}

export function decodeBundle(text: string): SignedBundle {
  const parsed = Bundle.safeParse(parseJson(text));
  if (!parsed.success) throw new ThicketError('BAD_CERTIFICATE', 'that is not a certificate: thicket network sign --out makes one');
  const bytes = (b64: string): Uint8Array => new Uint8Array(Buffer.from(b64, 'base64'));
  const { network, certificate, grants } = parsed.data;
  return { network: parseNetworkRef(network), certificate: bytes(certificate), grants: grants.map(bytes) };
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

const Stored = z.strictObject({
  name: z.string(),
  seed: z.string().check(z.regex(/^[A-Za-z0-9+/]{43}=$/)),
  namingSecret: z.string().check(z.regex(/^[a-z2-7]{26}$/)),
  serial: z.int().check(z.nonnegative()),
  lastIssuedAt: z.int().check(z.nonnegative()),
  generations: z.record(z.string(), z.int().check(z.positive())),
  issued: z.array(z.strictObject({ serial: z.number(), key: z.string(), name: z.string(), notAfter: z.number() })),
});

export interface SignOptions {
  readonly name: string;
  readonly groups?: readonly string[];
  readonly delegable?: readonly string[];
  readonly rights?: readonly Right[];
  /** Short names that the gateway may use. */
  readonly endpoints?: readonly string[];
  /** Keep the names' generations: a second gateway for the same names. */
  readonly add?: boolean;
  readonly expiresInSeconds: number;
  /** Accept an issued-at more than a day past the previous one. */
  readonly dateOk?: boolean;
  /** Seconds since 1970. */
  readonly now: number;
}

export class NetworkFolder {
  readonly #file: string;
  #stored: z.infer<typeof Stored>;
  readonly #pair: KeyPair;

  private constructor(file: string, stored: z.infer<typeof Stored>) {
    this.#file = file;
    this.#stored = stored;
    this.#pair = KeyPair.fromSeed(Buffer.from(stored.seed, 'base64'));
  }

  /** Makes a network in a new folder. Throws EXISTS. */
  static create(folder: string, name: string): NetworkFolder {
    checkLabel('network name', name);
    ensurePrivateFolder(folder);
    const file = join(folder, 'network.json');
    if (existsSync(file)) throw new ThicketError('EXISTS', `${file} exists: a network key is never overwritten, choose another --dir`);
    const network = new NetworkFolder(file, {
      name,
      seed: Buffer.from(KeyPair.generate().exportSeed()).toString('base64'),
      namingSecret: base32.encode(sodium.randombytes_buf(SECRET_BYTES)),
      serial: 0,
      lastIssuedAt: 0,
      generations: {},
      issued: [],
    });
    network.#save();
    return network;
  }

  static open(folder: string): NetworkFolder {
    const file = join(folder, 'network.json');
    const value = loadState(file);
    if (value === undefined) throw new ThicketError('NO_KEY', `${folder} holds no network: make one with thicket network create`);
    const parsed = Stored.safeParse(value);
    if (!parsed.success) throw new ThicketError('BAD_STATE', `${file} is damaged: restore it from a backup`);
    removeLeftovers(folder);
    return new NetworkFolder(file, parsed.data);
  }

  get ref(): NetworkRef {
    return { key: this.#pair.publicKey, namingSecret: base32.decode(this.#stored.namingSecret) };
  }

  get name(): string {
    return this.#stored.name;
  }

  /** Certifies a requester's key. The serial is on disk before the signature is out. */
  sign(key: PublicKey, options: SignOptions): SignedBundle {
    const { now } = options;
    const last = this.#stored.lastIssuedAt;
    if (last > 0 && now > last + DAY && !options.dateOk) {
      const days = Math.floor((now - last) / DAY);
      throw new ThicketError('BAD_ARGUMENT', `today is ${days} days past the last signature: if this clock is right, say --date-ok`);
    }
    // The first signature has no earlier one to be measured against: this program's own age has to do.
    if (last === 0 && (now < BUILD_TIME - DAY || now > BUILD_TIME + FIRST_WITHIN) && !options.dateOk) {
      const year = new Date(now * 1_000).getUTCFullYear();
      throw new ThicketError('BAD_ARGUMENT', `this clock says that it is ${year}: set it, or say --date-ok if that is right`);
    }
    const issuedAt = Math.max(now, last);
    const serial = this.#stored.serial + 1;
    const endpoints = [...new Set(options.endpoints ?? [])];
    if (endpoints.length > GRANTS_MAX)
      throw new ThicketError('BAD_ARGUMENT', `a gateway has at most ${GRANTS_MAX} short names: sign for fewer`);
    const rights = [...new Set<Right>([...(options.rights ?? []), ...(endpoints.length > 0 ? (['gateway'] as const) : [])])];
    const certificate: Certificate = {
      network: this.#pair.publicKey,
      key,
      name: options.name,
      groups: options.groups ?? [],
      rights,
      delegable: options.delegable ?? [],
      serial,
      issuedAt,
      notAfter: issuedAt + options.expiresInSeconds,
    };
    const bytes = encodeCertificate(certificate, this.#pair);
    const generations = { ...this.#stored.generations };
    const grants = endpoints.map((name) => {
      const known = Object.hasOwn(generations, name) ? (generations[name] ?? 0) : 0;
      const generation = options.add && known > 0 ? known : known + 1;
      generations[name] = generation;
      return encodeGrant({ network: certificate.network, gateway: key, name, generation, serial, issuedAt }, this.#pair);
    });
    const entry = { serial, key, name: options.name, notAfter: certificate.notAfter };
    this.#stored = { ...this.#stored, serial, lastIssuedAt: issuedAt, generations, issued: [...this.#stored.issued, entry] };
    this.#save();
    return { network: this.ref, certificate: bytes, grants };
  }

  #save(): void {
    saveState(this.#file, this.#stored);
  }
}
