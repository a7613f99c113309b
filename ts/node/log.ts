/** The node's log: lines to stderr, JSON unless a person looks on. Never a key's private half; addresses at debug only. */
import { type Logger, pino } from 'pino';
import type { Config } from '../config/index.js';

export async function openLog(level: Config['log']['level']): Promise<Logger> {
  const base = { level, base: {}, redact: { paths: ['secret', 'seed', 'privateKey'], remove: true } };
  // Synchronous, so that the last line before an end is out.
  if (process.stderr.isTTY) {
    const { default: pretty } = await import('pino-pretty');
    return pino(base, pretty({ destination: 2, sync: true, ignore: 'pid,hostname', translateTime: 'HH:MM:ss' }));
  }
  return pino(base, pino.destination({ dest: 2, sync: true }));
}
