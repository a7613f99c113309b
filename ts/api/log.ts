/** The node's log, for a program that wants to hear it. */
import { type Logger, levels, pino } from 'pino';
import type { LogLevel, LogLine } from './types.js';

export function logTo(level: LogLevel, onLog: ((line: LogLine) => void) | undefined): Logger {
  // Not by a level that lets nothing through: a reload sets the level that the configuration says.
  if (onLog === undefined) return pino({ level }, { write: () => {} });
  const write = (text: string): void => {
    const { level: number, msg } = JSON.parse(text) as { readonly level: number; readonly msg: string };
    onLog({ level: levels.labels[number] as LogLevel, message: msg });
  };
  return pino({ level, base: {}, redact: { paths: ['secret', 'seed', 'privateKey'], remove: true } }, { write });
}
