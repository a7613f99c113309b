/** The devices of the lab's LANs: what they run, and how to tell that they work. */
import { createHash, randomFillSync } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Process } from './process.js';
import { repository } from './repository.js';
import type { Stage } from './stage.js';
import { waitFor } from './wait.js';

const BIG_FILE_BYTES = 100_000_000;

export interface Camera {
  /** As seen from its own LAN. */
  readonly url: string;
  /** Prints `client ADDRESS` per RTSP connection. */
  readonly process: Process;
}

export interface FileServer {
  readonly url: string;
  /** Where its files lie: what is written here is served at once. */
  readonly dir: string;
  /** Of `/big.bin`, 100,000,000 random bytes; hexadecimal. */
  readonly bigSha256: string;
  readonly process: Process;
}

export interface Server {
  readonly url: string;
  readonly process: Process;
}

export interface Devices {
  readonly camera: Camera;
  readonly broker: Server;
  readonly files: FileServer;
  /** Print `light on by ADDRESS`, `light off by ADDRESS`. */
  readonly light1: Server;
  readonly light2: Server;
  readonly lamp: Server;
}

/** Starts all devices; resolves when each serves. */
export async function startDevices(lab: Stage): Promise<Devices> {
  const [camera, broker, files, light1, light2, lamp] = await Promise.all([
    startCamera(lab),
    startBroker(lab),
    startFiles(lab),
    startLight(lab, 'light1'),
    startLight(lab, 'light2'),
    startLight(lab, 'lamp'),
  ]);
  return { camera, broker, files, light1, light2, lamp };
}

/** rtsp://192.168.1.20:554 with a live picture under each path; digits at its end are the size of its RTP packets. */
export async function startCamera(lab: Stage, paths: readonly string[] = ['/live', '/live1428', '/live1500']): Promise<Camera> {
  const host = lab.host('camera');
  const program = join(repository, 'test', 'fixtures', 'camera.py');
  // GStreamer keeps a registry of plugins in the user's home; the lab's own leaves that alone and is made anew in a second.
  const env = { GST_REGISTRY: host.path('registry.bin') };
  const process = await host.spawn(['/usr/bin/python3', program, host.address, String(host.port(554)), ...paths], { env });
  await process.waitForLine(/^ready$/, 30_000);
  return { url: `rtsp://${host.address}:${host.port(554)}${paths[0] ?? ''}`, process };
}

/** An MQTT broker on 192.168.1.21:1883 that lets everybody in and never throws a message away. */
export async function startBroker(lab: Stage): Promise<Server> {
  const host = lab.host('broker');
  const lines = [`listener ${host.port(1_883)} ${host.address}`, 'allow_anonymous true', 'max_queued_messages 0', 'user root'];
  const config = host.write('mosquitto.conf', `${lines.join('\n')}\n`);
  const process = await host.spawn(['mosquitto', '-c', config]);
  await process.waitForLine(/mosquitto version \S+ running/);
  return { url: `mqtt://${host.address}:${host.port(1_883)}`, process };
}

/** nginx on 192.168.1.22:80 with `/big.bin` and `/hello.txt`. */
export async function startFiles(lab: Stage): Promise<FileServer> {
  const host = lab.host('files');
  const dir = host.path('www');
  mkdirSync(dir);
  const big = randomFillSync(Buffer.allocUnsafe(BIG_FILE_BYTES));
  writeFileSync(join(dir, 'big.bin'), big);
  writeFileSync(join(dir, 'hello.txt'), 'hello from the file server\n');
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((name) => `${name}_temp_path ${host.path(`tmp-${name}`)};`);
  const config = host.write(
    'nginx.conf',
    `user root; master_process off; daemon off; pid ${host.path('nginx.pid')}; error_log stderr;
     events {}
     http { access_log ${host.path('access.log')}; default_type application/octet-stream; sendfile on; ${temporary.join(' ')}
       server { listen ${host.address}:${host.port(80)}; root ${dir}; } }\n`,
  );
  const process = await host.spawn(['nginx', '-p', host.dir, '-e', 'stderr', '-c', config]);
  const url = `http://${host.address}:${host.port(80)}`;
  await waitFor(() => host.exec(['curl', '-sf', '-o', '/dev/null', `${url}/hello.txt`]), { what: 'nginx' });
  return { url, dir, bigSha256: createHash('sha256').update(big).digest('hex'), process };
}

/** A smart light on port 80. */
export async function startLight(lab: Stage, name: 'light1' | 'light2' | 'lamp'): Promise<Server> {
  const host = lab.host(name);
  const program = join(repository, 'test', 'fixtures', 'light.mjs');
  const light = await host.spawn([process.execPath, program, host.address, String(host.port(80))]);
  await light.waitForLine(/^ready$/);
  return { url: `http://${host.address}:${host.port(80)}/light`, process: light };
}
