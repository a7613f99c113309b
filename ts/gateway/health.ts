/** Up means it works: services are measured at the device, by TCP connect, and by RTSP OPTIONS where RTSP is spoken. */
import { connect } from 'node:net';
import type { Service } from './policy.js';

export type Health = 'up' | 'down' | 'unknown';

const TIMEOUT = 3_000;
const OPTIONS = Buffer.from('OPTIONS * RTSP/1.0\r\nCSeq: 1\r\nUser-Agent: thicket\r\n\r\n');

/** UDP services can't be measured without speaking their protocol. Never rejects. */
export function probe(service: Pick<Service, 'protocol' | 'rtsp' | 'target'>): Promise<Health> {
  const { target } = service;
  if (target === undefined) return Promise.resolve('up');
  if (service.protocol === 'udp') return Promise.resolve('unknown');
  return new Promise((resolve) => {
    const socket = connect({ host: target.host, port: target.port, timeout: TIMEOUT });
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

/** How often every service is measured. */
const PERIOD = 10_000;

/** Measures all services of a gateway, one after the other, for as long as it is open. */
export class HealthMonitor {
  readonly #services: () => readonly Service[];
  readonly #known = new Map<string, Health>();
  readonly #timer: NodeJS.Timeout;
  #running = false;

  constructor(services: () => readonly Service[]) {
    this.#services = services;
    this.#timer = setInterval(() => void this.measure(), PERIOD).unref();
    void this.measure();
  }

  of(service: Service): Health {
    return this.#known.get(id(service)) ?? 'unknown';
  }

  /** Measures now; what a running measurement has not reached yet is measured by it. */
  async measure(): Promise<void> {
    if (this.#running) return;
    this.#running = true;
    try {
      const services = this.#services().filter((service) => service.off === undefined);
      const wanted = new Set(services.map(id));
      for (const known of this.#known.keys()) if (!wanted.has(known)) this.#known.delete(known);
      for (const service of services) this.#known.set(id(service), await probe(service));
    } finally {
      this.#running = false;
    }
  }

  close(): void {
    clearInterval(this.#timer);
  }
}

const id = ({ protocol, target }: Service): string => (target === undefined ? 'this program' : `${protocol} ${target.host} ${target.port}`);
