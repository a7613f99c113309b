/** What commands print: plain aligned text for people, one JSON document for programs. */

import { withoutSecrets } from '../errors.js';

export const oneLine = (text: string): string => text.trim().replace(/\s*\n\s*/g, ' ');

/** One line to stdout. */
export function say(text: string): void {
  process.stdout.write(`${text}\n`);
}

/** One line to stderr. */
export function complain(text: string): void {
  process.stderr.write(`thicket: ${withoutSecrets(oneLine(text))}\n`);
}

/** The one document of `--json`. */
export function sayJson(document: unknown): void {
  say(JSON.stringify(document, undefined, 2));
}

/** Rows under a head, in columns; the last column isn't padded. */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  return aligned([head.map((cell) => cell.toUpperCase()), ...rows]);
}

/** `label  value` lines; those without a value are left out. */
export function facts(pairs: readonly (readonly [string, string | null])[]): string {
  return aligned(pairs.flatMap(([label, value]) => (value === null ? [] : [[label, value]])));
}

function aligned(rows: readonly (readonly string[])[]): string {
  const widths: number[] = [];
  for (const row of rows) {
    for (const [column, cell] of row.entries()) widths[column] = Math.max(widths[column] ?? 0, cell.length);
  }
  return rows
    .map((row) =>
      row
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

const SIZES = ['kB', 'MB', 'GB', 'TB'] as const;

/** `0 B`, `999 B`, `1.2 kB`, `3.4 GB`. */
export function bytes(count: number): string {
  let value = count;
  let unit = 'B';
  for (const next of SIZES) {
    if (value < 999.5) break;
    value /= 1_000;
    unit = next;
  }
  return `${unit === 'B' || value >= 99.95 ? value.toFixed(0) : value.toFixed(1)} ${unit}`;
}

export const milliseconds = (value: number | null): string => (value === null ? '-' : `${value.toFixed(1)} ms`);

/** `12s`, `3m10s`, `5h2m`, `8d3h`. */
export function duration(seconds: number): string {
  const whole = Math.floor(seconds);
  const [s, m, h, d] = [whole % 60, Math.floor(whole / 60) % 60, Math.floor(whole / 3_600) % 24, Math.floor(whole / 86_400)];
  if (d > 0) return `${d}d${h}h`;
  if (h > 0) return `${h}h${m}m`;
  return m > 0 ? `${m}m${s}s` : `${s}s`;
}

/** A list in one cell. */
export const list = (items: readonly string[]): string => (items.length === 0 ? '-' : items.join(','));

/** A day, as people write it: 2027-03-31. */
export const day = (secondsSince1970: number): string => new Date(secondsSince1970 * 1_000).toISOString().slice(0, 10);
