/** Options that several commands share. */
import { join } from 'node:path';
import { type Command, InvalidArgumentError, Option } from 'commander';
// Not by the folder's index, which loads libsodium: commands that only talk to a node are scripted, so they start quickly.
import { stateFolder } from '../trust/state-folder.js';

export interface StateOption {
  readonly state?: string;
}

export interface NodeOption extends StateOption {
  readonly socket?: string;
}

export interface JsonOption {
  readonly json?: boolean;
}

export interface ConfigOption extends StateOption {
  readonly config?: string;
}

export function stateOption(command: Command): Command {
  return command.option(
    '--state <dir>',
    "the node's state directory (default: $THICKET_STATE, else /var/lib/thicket or ~/.local/state/thicket)",
  );
}

/** For commands that talk to a running node. */
export function nodeOption(command: Command): Command {
  return stateOption(command).option('--socket <file>', "the node's control socket (default: control.sock in the state directory)");
}

export function jsonOption(command: Command): Command {
  return command.option('--json', 'print one JSON document');
}

export function configOption(command: Command): Command {
  return stateOption(
    command.option('--config <file>', 'the configuration (default: /etc/thicket/thicket.yaml or ~/.config/thicket/thicket.yaml)'),
  );
}

export function controlSocket(options: NodeOption): string {
  return options.socket ?? join(stateFolder(options.state), 'control.sock');
}

/** An option that may be given several times; a list, empty without it. `check` may refuse a value with InvalidArgumentError. */
export function listOption(flags: string, description: string, check: (value: string) => string = (value) => value): Option {
  return new Option(flags, `${description}; may be given several times`)
    .argParser<readonly string[]>((value, before) => [...before, check(value)])
    .default([], 'none');
}

/** A whole number from `least` to `most`. */
export function wholeNumber(least: number, most: number): (text: string) => number {
  return (text) => {
    const value = /^\d{1,9}$/.test(text) ? Number(text) : Number.NaN;
    if (!(value >= least && value <= most)) throw new InvalidArgumentError(`use a whole number from ${least} to ${most}`);
    return value;
  };
}
