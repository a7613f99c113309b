/** What the demo says: what it is doing, and the table of what it proved. */

export interface Outcome {
  readonly claim: string;
  /** The figures that prove it, or why it doesn't hold. */
  readonly proof: string;
  readonly holds: boolean;
}

/** A claim doesn't hold: the message says what was seen instead. */
export class ClaimError extends Error {}

const started = performance.now();

export const elapsed = (): string => `${((performance.now() - started) / 1000).toFixed(0)} s`;

export function say(text: string): void {
  console.error(`▸ ${text}`);
}

/** Runs what proves a claim; whatever goes wrong in it is the claim's failure. */
export async function prove(claim: string, proof: () => Promise<string>): Promise<Outcome> {
  say(`${claim} …`);
  try {
    return { claim, proof: await proof(), holds: true };
  } catch (error) {
    return { claim, proof: error instanceof Error ? error.message.trim() : String(error), holds: false };
  }
}

export function expect(condition: boolean, otherwise: string): void {
  if (!condition) throw new ClaimError(otherwise);
}

export function printTable(outcomes: readonly Outcome[]): void {
  const width = Math.max(...outcomes.map(({ claim }) => claim.length));
  console.log();
  for (const { claim, proof, holds } of outcomes) {
    const [first = '', ...more] = proof.split('\n');
    console.log(`${holds ? '✔' : '✘'} ${claim.padEnd(width)}  ${first}`);
    // A failure says all that it knows.
    if (!holds) for (const line of more) console.log(`  ${' '.repeat(width)}  ${line}`);
  }
  console.log();
}
