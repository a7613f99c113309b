/** `thicket node` and `thicket join`: how a node gets its key and its certificate. */
import type { Command } from 'commander';
import { ThicketError } from '../../errors.js';
import { stateFolder } from '../../trust/state-folder.js';
import { readInput, writeOutput } from '../files.js';
import { type StateOption, stateOption } from '../options.js';
import { day, say } from '../output.js';

export function registerNode(program: Command): void {
  const node = program.command('node').description("make this node's key and a request for its certificate");
  stateOption(node.command('init').description("make this node's key; prints the public half, which is its address")).action(init);
  stateOption(
    node
      .command('request')
      .description('print a signing request for thicket network sign')
      .option('--out <file>', 'where to write it instead'),
  ).action(request);
}

export function registerJoin(program: Command): void {
  stateOption(
    program
      .command('join')
      .description("take the certificate that the network's owner signed")
      .argument('[token]', 'an invite token')
      .option('--certificate <file>', 'what thicket network sign wrote; - for standard input'),
  ).action(join);
}

async function init(options: StateOption): Promise<void> {
  const { NodeStore } = await import('../../trust/index.js');
  say(NodeStore.init(stateFolder(options.state)).pair.publicKey);
}

async function request(options: StateOption & { readonly out?: string }): Promise<void> {
  const { NodeStore } = await import('../../trust/index.js');
  const text = NodeStore.open(stateFolder(options.state)).request();
  if (options.out === undefined || options.out === '-') process.stdout.write(text);
  else await writeOutput(options.out, text);
}

async function join(token: string | undefined, options: StateOption & { readonly certificate?: string }, command: Command): Promise<void> {
  if (token !== undefined) {
    throw new ThicketError('REFUSED', 'invite tokens are not in this version: use thicket join --certificate FILE');
  }
  if (options.certificate === undefined) command.error("required option '--certificate <file>' not specified");
  const { NodeStore } = await import('../../trust/index.js');
  const store = NodeStore.open(stateFolder(options.state));
  const membership = store.join(await readInput(options.certificate, 'certificate'), Math.floor(Date.now() / 1_000));
  say(`joined ${membership.network.key} as ${membership.name}, until ${day(membership.notAfter)}`);
}
