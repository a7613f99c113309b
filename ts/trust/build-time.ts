/** When this program was built, seconds since 1970: certainly past, whatever the local clock says. */
import { readFileSync } from 'node:fs';

/** This version's release: for a program that runs from its sources. */
const RELEASED = 1_795_000_000;

/** `npm run build` writes the moment beside the compiled program, whose chunks lie in a folder as this file does. */
export const BUILD_TIME = Math.max(RELEASED, built());

function built(): number {
  try {
    const seconds = Number(readFileSync(new URL('../build-time', import.meta.url), 'utf8'));
    return Number.isSafeInteger(seconds) ? seconds : 0;
  } catch {
    return 0;
  }
}
