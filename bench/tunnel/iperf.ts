/** One measurement by iperf3. */
import type { Host } from '../../test/lab/index.js';

export type Direction = 'up' | 'down';

/** Sends TCP for `seconds` from `client` to the server at `address` (`down`: the other way); returns the bits per second that arrived. */
export async function throughput(client: Host, address: string, direction: Direction, seconds: number): Promise<number> {
  const options = ['-c', address, '-t', String(seconds), '-J', ...(direction === 'down' ? ['-R'] : [])];
  const { stdout } = await client.exec(['iperf3', ...options], { timeoutMs: (seconds + 20) * 1000 });
  const result = JSON.parse(stdout) as { end: { sum_received: { bits_per_second: number } } };
  return result.end.sum_received.bits_per_second;
}

/** Starts a server for any number of measurements, one after another. */
export async function serve(host: Host): Promise<void> {
  const server = await host.spawn(['iperf3', '-s', '--forceflush']);
  await server.waitForLine(/Server listening/);
}
