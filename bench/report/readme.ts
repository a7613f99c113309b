/** The README's table: whatever stands between the marks is written from the recorded figures. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { LabError, repository } from '../../test/lab/index.js';
import type { Results } from '../shared/results.js';
import { summary } from './table.js';

export const FIGURES = join(repository, 'bench', 'figures');
const README = join(repository, 'README.md');
const BEGIN = '<!-- figures: written by npm run bench -- --record, not to be edited -->';
const END = '<!-- end of figures -->';

export function readRecordedResults(): Results {
  return JSON.parse(readFileSync(join(FIGURES, 'results.json'), 'utf8')) as Results;
}

/** A README's text with the figures in it. Throws when the marks are missing. */
export function withFigures(text: string, results: Results): string {
  const [begin, end] = [text.indexOf(BEGIN), text.indexOf(END)];
  if (begin < 0 || end < begin) throw new LabError(`README.md has no place for figures: put «${BEGIN}» and «${END}» into it`);
  return `${text.slice(0, begin + BEGIN.length)}\n${summary(results)}\n${text.slice(end)}`;
}

export const readReadme = (): string => readFileSync(README, 'utf8');
export const writeReadme = (text: string): void => writeFileSync(README, text);
