/** Pieces of Markdown. */
import { digits, type Spread } from '../shared/statistics.js';

/** Median, and from where to where. */
export function full(value: Spread | undefined): string {
  if (value === undefined) return '';
  return value.runs === 1 ? digits(value.median) : `${digits(value.median)} (${digits(value.least)} – ${digits(value.most)})`;
}

/** A table; the head first. */
export function markdown(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string =>
    `|${cells.map((cell) => (cell === '' ? ' |' : ` ${cell.replaceAll('|', '\\|')} |`)).join('')}`;
  return [line(head), `|${' --- |'.repeat(head.length)}`, ...rows.map(line)].join('\n');
}

export const title = (text: string): string => text.charAt(0).toUpperCase() + text.slice(1);
