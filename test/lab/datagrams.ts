/** Datagrams made up or sent again, from whatever source they name. IPv4. */
import { join } from 'node:path';
import ipaddr from 'ipaddr.js';
import type { Packet } from './capture.js';
import { LabError } from './errors.js';
import type { Host } from './host.js';
import { repository } from './repository.js';

export interface Datagram {
  readonly source: string;
  readonly sourcePort: number;
  readonly destination: string;
  readonly destinationPort: number;
  readonly payload: Uint8Array;
}

const UDP = 17;
/** Slow enough that no socket's buffer overflows. */
const PER_SECOND = 15_000;
const FIXTURE = join(repository, 'test', 'fixtures', 'datagrams.py');

/** The captured UDP datagrams. */
export function datagramsOf(packets: Iterable<Packet>): Datagram[] {
  // A copy: what was captured lies in one large buffer.
  return [...packets].filter((packet) => packet.protocol === UDP).map((packet) => ({ ...packet, payload: Buffer.from(packet.payload) }));
}

let files = 0;

/** Sends them from this host, in their order; a router passes on whatever source they name. */
export async function sendDatagrams(host: Host, datagrams: readonly Datagram[]): Promise<void> {
  files += 1;
  const file = host.write(`datagrams-${files}`, Buffer.concat(datagrams.map(record)));
  const { stdout } = await host.exec(['python3', FIXTURE, 'send', file, String(PER_SECOND)], { timeoutMs: 60_000 });
  if (stdout !== `sent ${datagrams.length}`) throw new LabError(`${datagrams.length} datagrams were to be sent: ${stdout}`);
}

/** Sends datagrams of all lengths to 1500 with every first byte; returns how many. */
export async function sendAllLengths(host: Host, address: string, port: number, perSecond: number): Promise<number> {
  const { stdout } = await host.exec(['python3', FIXTURE, 'lengths', address, String(port), '1', String(perSecond)], {
    timeoutMs: 120_000,
  });
  return Number(/^sent (\d+)$/.exec(stdout)?.[1]);
}

function record({ source, sourcePort, destination, destinationPort, payload }: Datagram): Buffer {
  const head = Buffer.alloc(14);
  head.set(ipaddr.IPv4.parse(source).toByteArray(), 0);
  head.writeUInt16BE(sourcePort, 4);
  head.set(ipaddr.IPv4.parse(destination).toByteArray(), 6);
  head.writeUInt16BE(destinationPort, 10);
  head.writeUInt16BE(payload.length, 12);
  return Buffer.concat([head, payload]);
}
