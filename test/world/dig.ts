/** Questions to DNS servers by `dig`, from any host of the lab. */
import type { Host } from '../lab/index.js';

export interface Dug {
  /** `NOERROR`, `NXDOMAIN`, `SERVFAIL`, …; `NONE` when nothing came back. */
  readonly status: string;
  /** What the answer section's records say, without their names and TTLs: `A 198.18.0.7`. */
  readonly answers: readonly string[];
  /** Seconds; of the first answer. */
  readonly ttl: number | undefined;
  /** All that dig printed. */
  readonly text: string;
}

/** Asks once, and waits for `seconds`. */
export async function dig(host: Host, server: string, question: readonly string[], seconds = 10): Promise<Dug> {
  const options = [`@${server}`, '+tries=1', `+time=${seconds}`, '+noidnin'];
  const { stdout: text } = await host.exec(['dig', ...options, ...question], { check: false });
  const section = /;; ANSWER SECTION:\n((?:[^;\n].*\n?)+)/.exec(text)?.[1] ?? '';
  const records = section
    .trim()
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => line.split(/\s+/));
  const ttl = records[0]?.[1];
  return {
    status: /status: (\w+)/.exec(text)?.[1] ?? 'NONE',
    answers: records.map(([, , , type, ...data]) => [type, ...data].join(' ')),
    ttl: ttl === undefined ? undefined : Number(ttl),
    text,
  };
}
