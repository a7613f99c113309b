/** What was recorded of the figures that noise can't touch, and how far they may be from it. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { repository } from '../../test/lab/index.js';

/** Instructions per datagram, by what is done to it. */
export interface Counts {
  readonly seal: number;
  readonly relay: number;
  readonly open: number;
}

export const STAGES = ['seal', 'relay', 'open'] as const;

export interface Figures {
  /** By implementation of the AEAD and by load. An implementation that this processor lacks is missing. */
  readonly instructions: Readonly<Record<string, Readonly<Record<string, Counts>>>>;
  /** Sizes of what is shipped, by file. */
  readonly bytes: Readonly<Record<string, number>>;
}

export interface Recorded extends Figures {
  /** What they depend on besides the code. */
  readonly with: Readonly<Record<string, string>>;
}

const FILE = join(repository, 'bench', 'recorded.json');
/** The command that records anew. */
export const RECORD = 'npm run bench -- gates --record';

/** Instructions may differ by so much either way: a gain that nobody records is lost again unseen. */
const INSTRUCTIONS = 0.03;
/** Files may grow by so much: compilers differ a little. */
const GROWTH = 0.03;

export function readRecorded(): Recorded {
  return JSON.parse(readFileSync(FILE, 'utf8')) as Recorded;
}

export function writeRecorded(recorded: Recorded): void {
  writeFileSync(FILE, `${JSON.stringify(recorded, null, 2)}\n`);
}

/** A line for each figure that is too far from the recorded one, or that only one side has. */
export function deviations(recorded: Figures, measured: Figures): string[] {
  const lines: string[] = [];
  for (const [path, loads] of Object.entries(measured.instructions)) {
    for (const [load, counts] of Object.entries(loads)) {
      for (const stage of STAGES) {
        const was = recorded.instructions[path]?.[load]?.[stage];
        const is = counts[stage];
        const what = `instructions to ${stage} a packet, ${path}, ${load}`;
        if (was === undefined) lines.push(`${what}: ${is}, none recorded`);
        else if (Math.abs(is / was - 1) > INSTRUCTIONS) lines.push(`${what}: ${is}, recorded ${was} (${percent(is / was)})`);
      }
    }
  }
  for (const [file, was] of Object.entries(recorded.bytes)) {
    const is = measured.bytes[file];
    if (is === undefined) lines.push(`${file}: not there, recorded ${was} bytes`);
    else if (is / was - 1 > GROWTH) lines.push(`${file}: ${is} bytes, recorded ${was} (${percent(is / was)})`);
  }
  for (const [file, is] of Object.entries(measured.bytes)) {
    if (recorded.bytes[file] === undefined) lines.push(`${file}: ${is} bytes, none recorded`);
  }
  return lines;
}

const percent = (ratio: number): string => `${ratio < 1 ? '−' : '+'}${Math.abs((ratio - 1) * 100).toFixed(1)} %`;
