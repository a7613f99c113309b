/** Packet captures by tcpdump, and a reader for them. */
import { readFileSync } from 'node:fs';
import ipaddr from 'ipaddr.js';
import { LabError } from './errors.js';
import type { Process } from './process.js';

/** A captured IP packet; a super-packet that the kernel had not cut yet counts as one. */
export interface Packet {
  /** Seconds since 1970. */
  readonly at: number;
  readonly source: string;
  readonly destination: string;
  /** 6 TCP, 17 UDP, 1 ICMP, 58 ICMPv6. */
  readonly protocol: number;
  /** 0 where the protocol has no ports. */
  readonly sourcePort: number;
  readonly destinationPort: number;
  /** What TCP or UDP carries; for other protocols all that follows the IP header. */
  readonly payload: Buffer;
  /** From the IP header on. */
  readonly bytes: Buffer;
}

export class Capture {
  readonly host: string;
  readonly file: string;
  readonly #tcpdump: Process;

  constructor(host: string, file: string, tcpdump: Process) {
    this.host = host;
    this.file = file;
    this.#tcpdump = tcpdump;
  }

  /** Ends the capture; throws when tcpdump says that the kernel dropped packets, since then "it occurs nowhere" proves nothing. */
  async stop(): Promise<void> {
    if (!this.#tcpdump.running) return;
    await this.#tcpdump.kill('SIGINT');
    const dropped = this.#tcpdump.stderr.map((line) => /^(\d+) packets? dropped by kernel/.exec(line)?.[1]).find((n) => n !== undefined);
    if (dropped !== '0') throw new LabError(`capture on ${this.host}: ${dropped ?? 'unknown number of'} packets dropped`);
  }

  /** Whether these bytes occur anywhere in what was captured. */
  contains(bytes: string | Buffer): boolean {
    return readFileSync(this.file).includes(bytes);
  }

  packets(): Generator<Packet> {
    return readPcap(this.file);
  }
}

const LINK_ETHERNET = 1;
const LINK_RAW = 101;

/** The IP packets of a pcap file; others (ARP, for instance) are passed over. */
export function* readPcap(file: string): Generator<Packet> {
  const data = readFileSync(file);
  if (data.length < 24 || data.readUInt32LE(0) !== 0xa1b2c3d4) throw new LabError(`${file}: not a little-endian pcap file`);
  const link = data.readUInt32LE(20);
  if (link !== LINK_ETHERNET && link !== LINK_RAW) throw new LabError(`${file}: link type ${link}`);
  let offset = 24;
  while (offset + 16 <= data.length) {
    const length = data.readUInt32LE(offset + 8);
    const at = data.readUInt32LE(offset) + data.readUInt32LE(offset + 4) / 1e6;
    const frame = data.subarray(offset + 16, offset + 16 + length);
    offset += 16 + length;
    const packet = parse(at, link === LINK_ETHERNET ? frame.subarray(14) : frame);
    if (packet !== undefined) yield packet;
  }
}

function parse(at: number, bytes: Buffer): Packet | undefined {
  const version = (bytes[0] ?? 0) >> 4;
  if (version === 4 && bytes.length >= 20) {
    const header = ((bytes[0] ?? 0) & 15) * 4;
    const first = (bytes.readUInt16BE(6) & 0x1fff) === 0;
    return transport(at, bytes, bytes[9] ?? 0, bytes.subarray(12, 16), bytes.subarray(16, 20), header, first);
  }
  if (version === 6 && bytes.length >= 40) {
    return transport(at, bytes, bytes[6] ?? 0, bytes.subarray(8, 24), bytes.subarray(24, 40), 40, true);
  }
  return undefined;
}

function transport(at: number, bytes: Buffer, protocol: number, from: Buffer, to: Buffer, header: number, first: boolean): Packet {
  const rest = bytes.subarray(header);
  const ports = first && (protocol === 6 || protocol === 17) && rest.length >= 8;
  const skip = !ports ? 0 : protocol === 17 ? 8 : ((rest[12] ?? 0) >> 4) * 4;
  return {
    at,
    source: ipaddr.fromByteArray([...from]).toString(),
    destination: ipaddr.fromByteArray([...to]).toString(),
    protocol,
    sourcePort: ports ? rest.readUInt16BE(0) : 0,
    destinationPort: ports ? rest.readUInt16BE(2) : 0,
    payload: rest.subarray(skip),
    bytes,
  };
}
