/**
 * Local addresses: what stands on this host for a key or a name. An address is taken by keyed hash, kept on disk before anybody hears of it,
 * and never passes to another subject while an answer with it may be cached or a flow uses it.
 */
import { createHmac, randomBytes } from 'node:crypto';
import { join } from 'node:path';
import type { Logger } from 'pino';
import { ThicketError } from '../errors.js';
import { loadState, type PublicKey, parseKey, saveState } from '../trust/index.js';
import * as z from '../zod.js';
import { AddressLog, type AddressRecord } from './address-log.js';
import { Range4, Range6 } from './pool-ranges.js';

export interface Addresses {
  readonly v4: string;
  readonly v6?: string;
}

/** Whom an address stands for: an endpoint hosted here, a remote key, or a name that a network certified (`camera`, `camera.gw`). */
export type Subject =
  | { readonly kind: 'own'; readonly key: PublicKey }
  | { readonly kind: 'key'; readonly key: PublicKey }
  | { readonly kind: 'name'; readonly name: string; readonly network: PublicKey };

/** Whether a flow uses the subject's address. */
export type InUse = (subject: Subject, addresses: Addresses) => boolean;

export interface AddressPoolOptions {
  /** The state directory. */
  readonly folder: string;
  /** CIDR, /29 or shorter. */
  readonly ipv4: string;
  /** CIDR, /64; undefined where the host has no IPv6. */
  readonly ipv6: string | undefined;
  /** How long an answer may be cached. */
  readonly ttlMs: number;
  /** Monotonic milliseconds. */
  readonly now: () => number;
  /** Asks which addresses flows use at this moment; only when the pool is full, so it may be dear. */
  readonly inUse: () => Promise<InUse>;
  /** The most names of one network, and the most keys, that hold an address. Default: no limit but the pool's. */
  readonly quota?: number;
  readonly log: Logger;
}

interface Entry {
  readonly subject: Subject;
  readonly text: string;
  readonly index: number;
  readonly id: string;
  readonly addresses: Addresses;
  usedAt: number;
  /** When its use was last noted in the file. */
  notedAt: number;
  released: boolean;
  /** While it isn't on the disk. */
  pending: Promise<void> | undefined;
}

/** However wide the pool is, no more subjects than this are kept: some 20 MB. */
const MOST = 65_536;
/** The order of use is noted in the file this often per subject. */
const NOTE_MS = 600_000;

/** Before anybody was asked. */
const ALL_IN_USE: InUse = () => true;

const KeyFile = z.strictObject({ key: z.string() });

export class AddressPool {
  /** Reserved: the node's own, and its DNS server's. */
  readonly first: Addresses;
  /** The pools, for the DNS server's reverse zones. */
  readonly cidrs: readonly string[];
  readonly #o: AddressPoolOptions;
  readonly #range4: Range4;
  readonly #range6: Range6 | undefined;
  readonly #key: Buffer;
  readonly #file: AddressLog;
  /** By subject, the least recently used first. */
  readonly #entries = new Map<string, Entry>();
  readonly #byIndex = new Map<number, Entry>();
  readonly #byId = new Map<string, Entry>();
  readonly #held = new Map<string, number>();
  #closed = false;

  private constructor(options: AddressPoolOptions) {
    this.#o = options;
    this.#range4 = new Range4(options.ipv4);
    this.#range6 = options.ipv6 === undefined ? undefined : new Range6(options.ipv6);
    this.first = this.#range6 === undefined ? { v4: this.#range4.first } : { v4: this.#range4.first, v6: this.#range6.first };
    this.cidrs = options.ipv6 === undefined ? [options.ipv4] : [options.ipv4, options.ipv6];
    this.#key = loadKey(join(options.folder, 'addresses.key'));
    const { log, records } = AddressLog.open({
      file: join(options.folder, 'addresses.log'),
      log: options.log,
      snapshot: () => [...this.#entries.values()].map(recordOf),
    });
    this.#file = log;
    this.#restore(records);
  }

  /** Reads the pool's state. Throws BAD_STATE, LAX_PERMISSIONS, NOT_WRITABLE, or BAD_ARGUMENT for CIDRs that are no pools. */
  static open(options: AddressPoolOptions): AddressPool {
    return new AddressPool(options);
  }

  /** The subject's addresses, the same for as long as it is known. On disk when this resolves. Throws POOL_EXHAUSTED or NOT_WRITABLE. */
  async assign(subject: Subject): Promise<Addresses> {
    const text = subjectText(subject);
    const asks = !this.#entries.has(text) && this.#isFull(subject);
    const inUse = asks ? await this.#o.inUse() : ALL_IN_USE;
    // From here to the entry nothing may come in between.
    if (this.#closed) throw new ThicketError('CLOSING', 'the address pool is closed: the node is going down');
    const known = this.#entries.get(text);
    const entry = known ?? this.#take(subject, text, inUse);
    const renewed = entry.released;
    entry.released = false;
    this.#use(entry);
    if (known !== undefined && !renewed) {
      await entry.pending;
      return entry.addresses;
    }
    const writing = this.#file.write(recordOf(entry));
    entry.pending = writing;
    try {
      await writing;
    } catch (error) {
      if (renewed) entry.released = true;
      else this.#remove(entry);
      throw error;
    } finally {
      if (entry.pending === writing) entry.pending = undefined;
    }
    return entry.addresses;
  }

  get(subject: Subject): Addresses | undefined {
    const entry = this.#entries.get(subjectText(subject));
    return entry === undefined || entry.released ? undefined : entry.addresses;
  }

  /** Whom an address, in any notation, stands for. */
  lookup(address: string): Subject | undefined {
    const index = this.#range4.indexOf(address);
    const id = index === undefined ? this.#range6?.idOf(address) : undefined;
    const entry = index !== undefined ? this.#byIndex.get(index) : id !== undefined ? this.#byId.get(id) : undefined;
    return entry === undefined || entry.released ? undefined : entry.subject;
  }

  /** An answer with the subject's address was given: its TTL counts from now. */
  touch(subject: Subject): void {
    const entry = this.#entries.get(subjectText(subject));
    if (entry === undefined || entry.released) return;
    this.#use(entry);
    if (entry.usedAt - entry.notedAt < NOTE_MS) return;
    entry.notedAt = entry.usedAt;
    this.#file.hint(recordOf(entry));
  }

  /** The subject is gone. Its address may go to another after its TTL and its last flow. */
  async release(subject: Subject): Promise<void> {
    const entry = this.#entries.get(subjectText(subject));
    if (entry === undefined || entry.released) return;
    entry.released = true;
    await this.#file.write(recordOf(entry));
  }

  /** Everybody who has an address, the least recently used first. */
  all(): { readonly subject: Subject; readonly addresses: Addresses }[] {
    return [...this.#entries.values()].filter((entry) => !entry.released).map(({ subject, addresses }) => ({ subject, addresses }));
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#file.close();
  }

  // ── choosing ──────────────────────────────────────────────────────────────────────────────────────────────────────────

  #isFull(subject: Subject): boolean {
    return this.#quotaIsUsed(groupOf(subject)) || this.#entries.size >= Math.min(MOST, this.#range4.size);
  }

  #quotaIsUsed(group: string | undefined): boolean {
    return group !== undefined && (this.#held.get(group) ?? 0) >= (this.#o.quota ?? MOST);
  }

  #take(subject: Subject, text: string, inUse: InUse): Entry {
    const group = groupOf(subject);
    while (this.#quotaIsUsed(group)) {
      const why = `a network's quota of ${this.#o.quota ?? MOST} addresses is used up`;
      this.#makeRoom(why, inUse, (entry) => groupOf(entry.subject) === group);
    }
    if (this.#isFull(subject)) this.#makeRoom(`the pool ${this.#o.ipv4} has no address left`, inUse, () => true);
    const { size } = this.#range4;
    let index = this.#hash(text).readUIntBE(0, 6) % size;
    while (this.#byIndex.has(index)) index = (index + 1) % size;
    const now = this.#o.now();
    return this.#insert({ subject, text, index, id: this.#interfaceId(text), usedAt: now, notedAt: now, released: false });
  }

  /** Removes the least recently used entry that nobody may use any more, those of subjects that are gone first. */
  #makeRoom(why: string, inUse: InUse, fits: (entry: Entry) => boolean): void {
    const now = this.#o.now();
    let oldest: Entry | undefined;
    for (const entry of this.#entries.values()) {
      // They stand in the order of use: behind one whose answer may still be cached there are only such.
      if (now - entry.usedAt < this.#o.ttlMs) break;
      if (entry.pending !== undefined || !fits(entry) || (oldest !== undefined && !entry.released)) continue;
      if (inUse(entry.subject, entry.addresses)) continue;
      oldest = entry;
      if (entry.released) break;
    }
    if (oldest === undefined) {
      throw new ThicketError('POOL_EXHAUSTED', `${why}: wait until answers run out and flows end, or widen interface.ipv4 in thicket.yaml`);
    }
    this.#remove(oldest);
  }

  #interfaceId(text: string): string {
    for (let attempt = 0; ; attempt += 1) {
      const id = this.#hash(`${text}\0${attempt}`).toString('hex', 8, 16);
      // 0 and 1 are the routers' and our own, the others are reserved anycast (RFC 5453).
      if (!/^0{15}[01]$|^fdffffffffffff[89a-f]/.test(id) && !this.#byId.has(id)) return id;
    }
  }

  #hash(text: string): Buffer {
    return createHmac('sha256', this.#key).update(text).digest();
  }

  // ── keeping ───────────────────────────────────────────────────────────────────────────────────────────────────────────

  #restore(records: readonly AddressRecord[]): void {
    const now = this.#o.now();
    let outside = 0;
    for (const { subject: text, v4, id, released = false } of records) {
      const subject = parseSubject(text);
      if (subject === undefined)
        throw new ThicketError('BAD_STATE', `addresses.log holds "${text}", which this version doesn't know: update Thicket`);
      const index = this.#range4.indexOf(v4);
      for (const old of [this.#entries.get(text), index === undefined ? undefined : this.#byIndex.get(index), this.#byId.get(id)]) {
        if (old !== undefined) this.#remove(old);
      }
      if (index === undefined) outside += 1;
      else this.#insert({ subject, text, index, id, usedAt: now, notedAt: now, released });
    }
    if (outside > 0) this.#o.log.info(`${outside} addresses outside the pool ${this.#o.ipv4} are forgotten: their names get new ones`);
  }

  #insert(fields: Omit<Entry, 'addresses' | 'pending'>): Entry {
    const v4 = this.#range4.at(fields.index);
    const v6 = this.#range6?.at(Buffer.from(fields.id, 'hex'));
    const entry: Entry = { ...fields, addresses: v6 === undefined ? { v4 } : { v4, v6 }, pending: undefined };
    this.#entries.set(entry.text, entry);
    this.#byIndex.set(entry.index, entry);
    this.#byId.set(entry.id, entry);
    this.#count(entry, 1);
    return entry;
  }

  #remove(entry: Entry): void {
    if (this.#entries.get(entry.text) !== entry) return;
    this.#entries.delete(entry.text);
    this.#byIndex.delete(entry.index);
    this.#byId.delete(entry.id);
    this.#count(entry, -1);
  }

  #count(entry: Entry, change: number): void {
    const group = groupOf(entry.subject);
    if (group === undefined) return;
    const held = (this.#held.get(group) ?? 0) + change;
    if (held === 0) this.#held.delete(group);
    else this.#held.set(group, held);
  }

  #use(entry: Entry): void {
    entry.usedAt = this.#o.now();
    if (this.#entries.delete(entry.text)) this.#entries.set(entry.text, entry);
  }
}

/** What shares a quota; our own endpoints have none. */
function groupOf(subject: Subject): string | undefined {
  if (subject.kind === 'own') return undefined;
  return subject.kind === 'name' ? subject.network : 'keys';
}

function recordOf(entry: Entry): AddressRecord {
  const record = { subject: entry.text, v4: entry.addresses.v4, id: entry.id };
  return entry.released ? { ...record, released: true } : record;
}

function subjectText(subject: Subject): string {
  return subject.kind === 'name' ? `name:${subject.network}:${subject.name}` : `${subject.kind}:${subject.key}`;
}

function parseSubject(text: string): Subject | undefined {
  const [kind, key = '', name] = text.split(':');
  try {
    if (kind === 'name' && name !== undefined) return { kind, name, network: parseKey(key) };
    if ((kind === 'own' || kind === 'key') && name === undefined) return { kind, key: parseKey(key) };
  } catch {
    return undefined;
  }
  return undefined;
}

/** The key that addresses are taken by, made at first sight: so that nobody else can tell which names would collide. */
function loadKey(file: string): Buffer {
  const stored = loadState(file);
  if (stored === undefined) {
    const key = randomBytes(32);
    saveState(file, { key: key.toString('base64') });
    return key;
  }
  const parsed = KeyFile.safeParse(stored);
  const key = Buffer.from(parsed.success ? parsed.data.key : '', 'base64');
  if (key.length !== 32) throw new ThicketError('BAD_STATE', `${file} is damaged: restore it from a backup, or remove it`);
  return key;
}
