/** A player that goes on until it is ended: its progress tells whether a stream, and the one TCP connection under it, still lives. */
import { type Host, type Process, waitFor } from '../lab/index.js';

/** How often ffmpeg tells how far it is, milliseconds. */
const TELLS_EVERY = 100;

export class Player {
  readonly host: Host;
  readonly process: Process;
  readonly #address: string;

  private constructor(host: Host, process: Process, address: string) {
    this.host = host;
    this.process = process;
    this.#address = address;
  }

  /** Starts ffmpeg on `rtsp://ADDRESS:554/live` over TCP; resolves when pictures come. It waits for 30 s on a silent stream. */
  static async start(host: Host, address: string): Promise<Player> {
    const url = `rtsp://${address.includes(':') ? `[${address}]` : address}:554/live`;
    const input = ['-rtsp_transport', 'tcp', '-timeout', '30000000', '-i', url];
    const output = ['-c', 'copy', '-f', 'h264', '-y', '/dev/null', '-progress', 'pipe:1', '-stats_period', String(TELLS_EVERY / 1000)];
    const process = await host.spawn(['ffmpeg', '-hide_banner', '-nostdin', '-loglevel', 'warning', ...input, ...output]);
    const player = new Player(host, process, address);
    await waitFor(() => player.frames > 25, { timeoutMs: 20_000, what: `pictures at ${host.name}` });
    return player;
  }

  /** Pictures received so far. */
  get frames(): number {
    const line = this.process.stdout.findLast((text) => text.startsWith('frame='));
    return line === undefined ? 0 : Number(line.slice('frame='.length));
  }

  /** The player's TCP connections, as `local remote` addresses with ports. */
  async connections(): Promise<string[]> {
    const { stdout } = await this.host.exec(['ss', '-tnH', 'state', 'established', 'dst', this.#address]);
    return stdout
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => line.trim().split(/\s+/).slice(2, 4).join(' '));
  }

  stop(): Promise<unknown> {
    return this.process.kill('SIGKILL');
  }
}
