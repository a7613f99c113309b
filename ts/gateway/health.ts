/** Up means it works: services are measured at the device, by TCP connect, and by RTSP OPTIONS where RTSP is spoken. */
import { connect } from 'node:net';
import type { Service } from './policy.js';

export type Health = 'up' | 'down' | 'unknown';

const TIMEOUT = 3_000;
const OPTIONS = Buffer.from('OPTIONS * RTSP/1.0\r\nCSeq: 1\r\nUser-Agent: thicket\r\n\r\n');

/** UDP services can't be measured without speaking their protocol. Never rejects. */
export function probe(service: Pick<Service, 'protocol' | 'rtsp' | 'target'>): Promise<Health> {
  if (service.protocol === 'udp') return Promise.resolve('unknown');
  return new Promise((resolve) => {
    const socket = connect({ host: service.target.host, port: service.target.port, timeout: TIMEOUT });
    const done = (health: Health): void => {
      socket.destroy();
      resolve(health);
    };
    socket.once('connect', () => {
      if (service.rtsp) socket.write(OPTIONS);
      else done('up');
    });
    socket.once('data', (chunk) => done(chunk.toString('latin1').startsWith('RTSP/') ? 'up' : 'down'));
    socket.once('timeout', () => done('down'));
    socket.once('error', () => done('down'));
    socket.once('close', () => done('down'));
  });
}
