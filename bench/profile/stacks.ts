/** Folded stacks, as inferno makes them: `command-pid;outermost;…;innermost count`. */

export interface Stack {
  /** From the outermost in; the first names the process. */
  readonly frames: readonly string[];
  readonly samples: number;
}

/** Names processes by what they are in the lab, and leaves idle processors out. */
export function readStacks(folded: string, names: ReadonlyMap<number, string>): Stack[] {
  return folded.split('\n').flatMap((line) => {
    const [, frames = '', samples = ''] = /^(.*) (\d+)$/.exec(line) ?? [];
    const [process = '', ...rest] = frames.split(';');
    const [, command = process, pid = ''] = /^(.*)-(\d+)$/.exec(process) ?? [];
    if (samples === '' || command.startsWith('swapper')) return [];
    const name = names.get(Number(pid));
    return [{ frames: [name === undefined ? command : `${name} (${command})`, ...rest], samples: Number(samples) }];
  });
}

export const writeStacks = (stacks: readonly Stack[]): string =>
  stacks.map(({ frames, samples }) => `${frames.join(';')} ${samples}\n`).join('');

export interface Part {
  readonly name: string;
  /** Of all samples, percent. */
  readonly percent: number;
}

/** What most samples are of, by `nameOf` a stack. */
export function largest(stacks: readonly Stack[], most: number, nameOf: (stack: Stack) => string): Part[] {
  const sums = new Map<string, number>();
  for (const stack of stacks) sums.set(nameOf(stack), (sums.get(nameOf(stack)) ?? 0) + stack.samples);
  const all = stacks.reduce((sum, { samples }) => sum + samples, 0);
  return [...sums]
    .sort(([, a], [, b]) => b - a)
    .slice(0, most)
    .map(([name, samples]) => ({ name, percent: (samples / all) * 100 }));
}
