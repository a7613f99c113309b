/** A flow of datagrams that stands while others come and go, watched where it arrives. */
import { type Host, LabError, type Process, waitFor } from '../../test/lab/index.js';

export const BITS_PER_SECOND = 20_000_000;
export const PACKET_BYTES = 1_316;

export class Flow {
  readonly #client: Process;
  /** What iperf3's server prints, twice a second. */
  readonly #lines: readonly string[];

  private constructor(client: Process, lines: readonly string[]) {
    this.#client = client;
    this.#lines = lines;
  }

  static async start(client: Host, address: string, port: number, lines: readonly string[]): Promise<Flow> {
    const options = ['-u', '-b', String(BITS_PER_SECOND), '-l', String(PACKET_BYTES), '-t', '3600'];
    const flow = new Flow(await client.spawn(['iperf3', '-c', address, '-p', String(port), ...options]), lines);
    await waitFor(() => flow.#rates().length > 1, { what: 'the flow that is watched', timeoutMs: 15_000 });
    return flow;
  }

  /** Mbit/s that arrive in the next seconds. */
  async watch(seconds: number): Promise<number> {
    // The half second that runs belongs to what was before.
    const from = this.#rates().length + 1;
    const wanted = seconds * 2;
    await waitFor(() => this.#rates().length >= from + wanted, { what: 'what arrives of the flow', timeoutMs: seconds * 4_000 + 10_000 });
    const rates = this.#rates().slice(from, from + wanted);
    return rates.reduce((sum, rate) => sum + rate, 0) / rates.length;
  }

  async stop(): Promise<void> {
    if (!this.#client.running) throw new LabError(`the flow that is watched ended by itself: ${this.#client.stderr.join(' ')}`);
    await this.#client.kill('SIGINT');
  }

  #rates(): number[] {
    return this.#lines.flatMap((line) => {
      const rate = /sec .* ([\d.]+) Kbits\/sec .*\/\s*\d+ \(/.exec(line)?.[1];
      return rate === undefined ? [] : [Number(rate) / 1_000];
    });
  }
}
