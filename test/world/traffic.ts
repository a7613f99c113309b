/** What people do with their devices: watch, fetch, switch, publish. By the programs they use, on any host of the lab. */
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { type Host, LabError, type Process } from '../lab/index.js';

export interface Watch {
  readonly url: string;
  readonly transport: 'tcp' | 'udp';
  /** How long to watch. */
  readonly seconds: number;
  /** The UDP ports that the player asks for; default its own choice. */
  readonly ports?: readonly [number, number];
}

export interface Video {
  /** The stream as it came, not decoded: H.264 alone, without the timestamps, which ffmpeg corrects backwards when it first learns the sender's clock. */
  readonly file: string;
  /** What ffmpeg complained about: lost packets, for instance. */
  readonly complaints: readonly string[];
}

export interface Decoded {
  readonly frames: number;
  readonly errors: readonly string[];
}

/** An H.264 sequence parameter set's start, which every picture that stands alone has in front of it. */
const PARAMETERS = ['0000000167', '0000000127'].map((hex) => Buffer.from(hex, 'hex'));

let recordings = 0;

/** Starts ffmpeg on a live stream; `watched` tells what came. */
export async function startWatching(host: Host, watch: Watch): Promise<{ readonly process: Process; readonly file: string }> {
  recordings += 1;
  const file = host.path(`video-${recordings}.h264`);
  const ports = watch.ports === undefined ? [] : ['-min_port', String(watch.ports[0]), '-max_port', String(watch.ports[1])];
  const input = ['-rtsp_transport', watch.transport, ...ports, '-timeout', '10000000', '-i', watch.url];
  // The stream is kept as it comes, from the first picture that stands alone: whoever joins a live stream in between can't decode what is before.
  const output = ['-t', String(watch.seconds), '-c', 'copy', '-y', file];
  const process = await host.spawn(['ffmpeg', '-hide_banner', '-nostdin', '-loglevel', 'warning', ...input, ...output]);
  return { process, file };
}

export async function watched({ process, file }: { readonly process: Process; readonly file: string }): Promise<Video> {
  const { code, signal } = await process.exit;
  if (code !== 0) throw new LabError(`ffmpeg ended with ${code ?? signal}:\n${process.stderr.join('\n')}`);
  skipToFirstWhole(file);
  const complaints = process.stderr.filter((line) => line.trim() !== '' && !/timestamps|monoton|Last message repeated/i.test(line));
  return { file, complaints };
}

/** A player that joins between a picture's parameters and the picture gets one that nobody can decode. */
function skipToFirstWhole(file: string): void {
  const stream = readFileSync(file);
  const start = PARAMETERS.map((nal) => stream.indexOf(nal)).filter((at) => at >= 0);
  if (start.length > 0) writeFileSync(file, stream.subarray(Math.min(...start)));
}

/** Watches a live stream for its seconds. */
export async function watch(host: Host, what: Watch): Promise<Video> {
  return watched(await startWatching(host, what));
}

/** Decodes a recording from end to end; every complaint of the decoder is an error. */
export async function decode(host: Host, file: string): Promise<Decoded> {
  const strict = ['-hide_banner', '-nostdin', '-loglevel', 'warning', '-xerror', '-err_detect', 'explode'];
  const { stderr, code } = await host.exec(['ffmpeg', ...strict, '-i', file, '-f', 'null', '-'], { check: false, timeoutMs: 60_000 });
  const errors = stderr.split('\n').filter((line) => line.trim() !== '');
  if (code !== 0) errors.push(`ffmpeg ended with ${code}`);
  const probe = [
    '-v',
    'error',
    '-select_streams',
    'v',
    '-count_packets',
    '-show_entries',
    'stream=nb_read_packets',
    '-of',
    'csv=p=0',
    file,
  ];
  const { stdout } = await host.exec(['ffprobe', ...probe]);
  return { frames: Number.parseInt(stdout, 10), errors };
}

/** A picture out of a recording, by its number. */
export async function picture(host: Host, file: string, number: number, png: string): Promise<void> {
  // A bare stream has no timestamps to seek by.
  const one = ['-vf', `select=gte(n\\,${number})`, '-frames:v', '1', '-y', png];
  rmSync(png, { force: true });
  await host.exec(['ffmpeg', '-hide_banner', '-nostdin', '-loglevel', 'error', '-i', file, ...one], { timeoutMs: 60_000 });
  if (!existsSync(png)) throw new LabError(`ffmpeg made no picture ${number} of ${file}`);
}

/** Fetches a file by curl; returns its SHA-256, hexadecimal. */
export async function fetchSha256(host: Host, url: string): Promise<string> {
  const file = host.path('fetched');
  await host.exec(['curl', '-sSf', '--connect-timeout', '10', '-o', file, url], { timeoutMs: 120_000 });
  const { stdout } = await host.exec(['sha256sum', file], { timeoutMs: 60_000 });
  return stdout.slice(0, 64);
}

/** Switches a light by its HTTP API; returns what it then says of itself. */
export async function switchLight(host: Host, url: string, on: boolean): Promise<boolean> {
  const curl = ['curl', '-sSf', '--max-time', '10'];
  await host.exec([...curl, '-X', 'PUT', '-d', JSON.stringify({ on }), url]);
  const { stdout } = await host.exec([...curl, url]);
  return (JSON.parse(stdout) as { on: boolean }).on;
}

/** Publishes `count` numbered messages with QoS 1, each side at its own address and port of the broker, and returns those that a subscriber got, in the order in which they came. */
export async function publishAndSubscribe(
  subscriber: Host,
  publisher: Host,
  brokerAt: readonly [string, string],
  count: number,
  ports: readonly [number, number] = [1_883, 1_883],
): Promise<string[]> {
  const topic = `meter/${count}/${recordings}`;
  const options = (at: 0 | 1): string[] => ['-h', brokerAt[at], '-p', String(ports[at]), '-q', '1', '-t', topic];
  // Into a pipe it would write by blocks.
  const sub = await subscriber.spawn(['stdbuf', '-oL', 'mosquitto_sub', ...options(0), '-d']);
  await sub.waitForLine(/^Subscribed/);
  const lines = [...Array.from({ length: count }, (_, n) => String(n)), 'end'];
  await publisher.exec(['mosquitto_pub', ...options(1), '-l'], { stdin: `${lines.join('\n')}\n`, timeoutMs: 120_000 });
  // Messages of one publisher keep their order: nothing comes behind the last.
  await sub.waitForLine(/^end$/, 30_000);
  await sub.kill();
  return sub.stdout.filter((line) => /^\d+$/.test(line));
}

/** An address as URLs want it. */
export const urlHost = (address: string): string => (address.includes(':') ? `[${address}]` : address);
