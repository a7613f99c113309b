/** A flood of link handshakes' first messages: each as a stranger would send it, mac1 and all, but for addresses that don't exist. */
import { join } from 'node:path';
import { type Host, type Process, repository } from '../../test/lab/index.js';
import { Call, writeMacs } from '../../ts/handshake/index.js';
import { BUILD_TIME, encodeCertificate, KeyPair, keyBytes, type PublicKey, parseKey } from '../../ts/trust/index.js';

/** Compiled by `build_bench` of scripts/common.sh. */
const PROGRAM = join(repository, 'build/bench/flood');
/** Nobody has these addresses. */
const NETWORK = '10.66.0.0';
const MESSAGES = 256;
const LENGTH = 1_232;
export const PER_SECOND = 50_000;

export interface Sent {
  readonly sent: number;
  readonly seconds: number;
}

interface Target {
  readonly address: string;
  readonly port: number;
  readonly key: string;
}

export class Flood {
  readonly #process: Process;

  private constructor(process: Process) {
    this.#process = process;
  }

  /** From the router's place in the lab: what it answers to made-up addresses ends there, too. */
  static async start(from: Host, to: Target): Promise<Flood> {
    const { address, port, key } = to;
    await from.exec(['ip', 'route', 'replace', 'blackhole', `${NETWORK}/16`]);
    const file = from.write('initiations', initiations(parseKey(key)));
    const process = await from.spawn([PROGRAM, file, String(LENGTH), address, String(port), NETWORK, String(PER_SECOND)]);
    await process.waitForLine(/^ready$/);
    return new Flood(process);
  }

  async stop(): Promise<Sent> {
    this.#process.signal('SIGTERM');
    const [line] = await this.#process.waitForLine(/^\{.*\}$/);
    await this.#process.exit;
    return JSON.parse(line) as Sent;
  }
}

/** Genuine first messages of nodes that the receiver has never heard of. */
function initiations(receiver: PublicKey): Uint8Array {
  const network = KeyPair.generate();
  const rest = { groups: [], rights: [], delegable: [], serial: 1, issuedAt: BUILD_TIME, notAfter: BUILD_TIME + 31_536_000 };
  const all = new Uint8Array(MESSAGES * LENGTH);
  for (let n = 0; n < MESSAGES; n += 1) {
    const pair = KeyPair.generate();
    const certificate = encodeCertificate({ network: network.publicKey, key: pair.publicKey, name: 'nobody', ...rest }, network);
    const message = all.subarray(n * LENGTH, (n + 1) * LENGTH);
    const view = new DataView(message.buffer, message.byteOffset);
    view.setUint32(0, 1);
    view.setUint32(4, n + 1);
    message.set(new Call('link', { pair, chain: [certificate], grant: undefined, epoch: 1n }, receiver).message, 8);
    writeMacs(message, keyBytes(receiver), undefined);
  }
  return all;
}
