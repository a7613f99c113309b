/** From a command's end to an exit code: 0 done, 1 refused or failed with one line on stderr, 2 usage. */
import { type Command, CommanderError } from 'commander';
import { describe, isThicketError } from '../errors.js';
import { complain, oneLine } from './output.js';

/** Runs the command that `argv` names. Resolves with the exit code; never rejects. */
export async function run(program: Command, argv: readonly string[]): Promise<number> {
  surviveClosedPipes();
  catchUsage(program, program.name());
  const crashed = new Promise<never>((_, reject) => {
    process.once('uncaughtException', reject);
  });
  try {
    await Promise.race([program.parseAsync(argv), crashed]);
    return 0;
  } catch (error) {
    return report(error);
  }
}

function report(error: unknown): number {
  if (error instanceof CommanderError) {
    if (error.exitCode === 0) return 0;
    // A command that only has sub-commands has printed its help to stderr: that says it all.
    if (error.code !== 'commander.help') complain(error.message);
    return 2;
  }
  if (process.env.THICKET_DEBUG === '1' && error instanceof Error) process.stderr.write(`${error.stack}\n`);
  if (isThicketError(error)) complain(error.message);
  else complain(`internal error (${describe(error)}): run it again with THICKET_DEBUG=1 and report what it prints`);
  return 1;
}

/** Commander's own errors get one line that names the help to read. */
function catchUsage(command: Command, path: string): void {
  command.configureOutput({ outputError: () => {} });
  command.exitOverride((error) => {
    if (error.exitCode === 0 || error.code === 'commander.help') throw error;
    throw new CommanderError(2, error.code, `${oneLine(error.message.replace(/^error: /, ''))}: see ${path} --help`);
  });
  for (const child of command.commands) catchUsage(child, `${path} ${child.name()}`);
}

/** `thicket routes | head -1` ends quietly; whatever else the command does, it does. */
function surviveClosedPipes(): void {
  for (const stream of [process.stdout, process.stderr]) {
    stream.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code !== 'EPIPE') throw error;
    });
  }
}
