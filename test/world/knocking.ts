/** Knocking at ports that should be closed, and how to tell on the other side that nobody heard it. */
import { join } from 'node:path';
import { type Capture, type Host, type Process, repository } from '../lab/index.js';

export interface Knock {
  /** A host name, or an address. */
  readonly at: string;
  /** `tcp/22`, `udp/53`, … all at once. */
  readonly ports: readonly string[];
  /** Source port. A gateway's masquerade keeps it, so that it is found again on the LAN; below 32,768 nobody else there takes it. */
  readonly from: number;
  /** How long to wait for an answer; default 1. */
  readonly seconds?: number;
}

const fixture = (name: string): string => join(repository, 'test', 'fixtures', name);

/** The ports that answered. */
export async function knock(host: Host, { at, ports, from, seconds = 1 }: Knock): Promise<string[]> {
  const { stdout } = await host.exec(['/usr/bin/python3', fixture('knock.py'), String(from), String(seconds), at, ...ports]);
  return stdout.split('\n').flatMap((line) => (line.endsWith(' answers') ? [line.split(' ', 1)[0] ?? ''] : []));
}

/** Echo requests to a host; how many were answered. */
export async function echo(host: Host, at: string): Promise<number> {
  const { stdout } = await host.exec(['ping', '-n', '-c', '2', '-i', '0.2', '-W', '1', at], { check: false });
  return Number(/(\d+) received/.exec(stdout)?.[1] ?? 0);
}

/** Starts somebody who answers every caller at these ports of all addresses of the host, and prints a line per caller. */
export async function listenOn(host: Host, ports: readonly string[]): Promise<Process> {
  const process = await host.spawn(['/usr/bin/python3', fixture('listener.py'), ...ports]);
  await process.waitForLine(/^ready$/);
  return process;
}

/** The packets of a capture that came from this source port. */
export function from(capture: Capture, port: number): number {
  return [...capture.packets()].filter((packet) => packet.sourcePort === port).length;
}

/** ICMP and ICMPv6 echo requests of a capture. */
export function echoRequests(capture: Capture): number {
  return [...capture.packets()].filter(
    ({ protocol, payload }) => (protocol === 1 && payload[0] === 8) || (protocol === 58 && payload[0] === 128),
  ).length;
}
