/** Answers of the DNS server over loopback, asked by a thread of its own. */
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import * as dns from 'dns-packet';
import { pino } from 'pino';
import { type DnsHost, openDns } from '../../ts/naming/index.js';
import type { RateRow } from './results.js';

/** Questions under way at once. */
const WINDOW = 64;

interface Order {
  readonly port: number;
  readonly seconds: number;
  readonly name: string;
}

/** The resolver behind it answers at once: what is measured is the server. */
export async function dnsRows(seconds: number): Promise<RateRow[]> {
  const host: DnsHost = {
    resolve: async (name) =>
      name.kind === 'name' && name.name === 'camera'
        ? { status: 'found', addresses: { v4: '198.18.3.4', v6: 'fd00::4' } }
        : { status: 'notFound' },
    reverse: () => ({ status: 'notFound' }),
    isNetwork: (label) => label === 'home',
    ownAddresses: () => ['127.0.0.1'],
  };
  const probe = createSocket('udp4').bind(0, '127.0.0.1');
  await once(probe, 'listening');
  const { port } = probe.address();
  probe.close();
  await once(probe, 'close');
  const log = pino({ level: 'silent' });
  const server = await openDns({ addresses: ['127.0.0.1'], port, domain: 'thicket', pools: ['198.18.0.0/15'], ttlMs: 60_000, log, host });
  try {
    const rows: RateRow[] = [];
    for (const [what, name] of [
      ['a name that there is', 'camera.home.thicket'],
      ['one that there is not', 'nothing.home.thicket'],
    ] as const) {
      const order: Order = { port, seconds, name };
      const asker = new Worker(new URL(import.meta.url), { workerData: order });
      const [perSecond] = (await once(asker, 'message')) as [number];
      rows.push({ what, perSecond, margin: 0 });
    }
    return rows;
  } finally {
    await server.close();
  }
}

/** Asks for so long, and tells how many answers came a second. */
async function ask({ port, seconds, name }: Order): Promise<void> {
  const socket = createSocket('udp4').bind(0, '127.0.0.1');
  await once(socket, 'listening');
  const question = dns.encode({ type: 'query', id: 0, flags: dns.RECURSION_DESIRED, questions: [{ type: 'A', name }] });
  let asked = 0;
  let answered = 0;
  const send = (): void => {
    question.writeUInt16BE((asked += 1) & 0xffff, 0);
    socket.send(Uint8Array.from(question), port, '127.0.0.1');
  };
  const begun = performance.now();
  const end = begun + seconds * 1_000;
  socket.on('message', () => {
    answered += 1;
    if (performance.now() < end) send();
    else socket.close();
  });
  for (let n = 0; n < WINDOW; n += 1) send();
  await once(socket, 'close');
  parentPort?.postMessage((answered / (performance.now() - begun)) * 1_000);
}

if (!isMainThread) await ask(workerData as Order);
