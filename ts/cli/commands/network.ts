/** `thicket network`: what an owner does with the network key, offline. */
import { resolve } from 'node:path';
import { type Command, InvalidArgumentError } from 'commander';
import { describe } from '../../errors.js';
import type { Right } from '../../trust/index.js';
import { readInput, writeOutput } from '../files.js';
import { listOption } from '../options.js';
import { day, facts, say } from '../output.js';

interface SignFlags {
  readonly network: string;
  readonly request: string;
  readonly name: string;
  readonly group: readonly string[];
  readonly delegate: readonly string[];
  readonly right: readonly Right[];
  readonly endpoint: readonly string[];
  readonly add?: boolean;
  readonly expires: string;
  readonly dateOk?: boolean;
  readonly out?: string;
}

const RIGHTS: readonly Right[] = ['gateway', 'relay', 'enroll'];

export function registerNetwork(program: Command): void {
  const network = program.command('network').description('make a network and certify its nodes (keep the network key offline)');
  network
    .command('create')
    .description('make a network key; prints the network id, alone and with the naming secret')
    .argument('<name>', 'your own name for the network, such as home')
    .option('--dir <dir>', 'the folder to make (default: ./NAME)')
    .action(create);
  network
    .command('sign')
    .description("certify a node's request; prints the certificate, or writes it with --out")
    .requiredOption('--network <dir>', "the network's folder")
    .requiredOption('--request <file>', 'the request, from thicket node request; - for standard input')
    .requiredOption('--name <name>', "the node's name, one DNS label")
    .addOption(listOption('--group <group>', 'a group that the node is in'))
    .addOption(listOption('--delegate <group>', 'a group that the node, a gateway, may put its endpoints in'))
    .addOption(listOption('--right <right>', RIGHTS.join(', '), oneRight))
    .addOption(listOption('--endpoint <name>', 'a short endpoint name that the node may use as its gateway'))
    .option('--add', 'keep the other gateways that have these endpoint names (without it they lose them)')
    .option('--expires <duration>', 'for how long: 365d, 12h', '365d')
    .option('--date-ok', "this computer's clock is right, though the last signature is more than a day ago")
    .option('--out <file>', 'where to write the certificate and, beside it, the naming secret')
    .action(sign);
}

function oneRight(text: string): string {
  if (!RIGHTS.some((right) => right === text)) throw new InvalidArgumentError(`use one of ${RIGHTS.join(', ')}`);
  return text;
}

async function create(name: string, { dir }: { readonly dir?: string }): Promise<void> {
  const { checkLabel, formatNetworkRef, NetworkFolder } = await import('../../trust/index.js');
  checkLabel('network name', name);
  const folder = resolve(dir ?? name);
  const { ref } = NetworkFolder.create(folder, name);
  say(
    facts([
      ['network id', ref.key],
      ['with naming secret', formatNetworkRef(ref)],
      ['folder', folder],
    ]),
  );
  say('Keep the folder offline, on no node, and back it up. Who has the naming secret can look names up.');
}

async function sign(flags: SignFlags, command: Command): Promise<void> {
  const { decodeCertificate, decodeRequest, encodeBundle, NetworkFolder } = await import('../../trust/index.js');
  const expiresInSeconds = await seconds(flags.expires, command);
  const folder = NetworkFolder.open(flags.network);
  const key = decodeRequest(await readInput(flags.request, 'request'));
  const bundle = folder.sign(key, {
    name: flags.name,
    groups: flags.group,
    delegable: flags.delegate,
    rights: flags.right,
    endpoints: flags.endpoint,
    add: flags.add === true,
    dateOk: flags.dateOk === true,
    expiresInSeconds,
    now: Math.floor(Date.now() / 1_000),
  });
  if (flags.out === undefined || flags.out === '-') {
    process.stdout.write(encodeBundle(bundle));
    return;
  }
  await writeOutput(flags.out, encodeBundle(bundle));
  const { serial, notAfter } = decodeCertificate(bundle.certificate);
  say(
    `certified ${key} as ${flags.name} in ${folder.name}, serial ${serial}, until ${day(notAfter)}: on the node, thicket join --certificate ${flags.out}`,
  );
}

async function seconds(text: string, command: Command): Promise<number> {
  const { parseDuration } = await import('../../config/index.js');
  try {
    return Math.floor(parseDuration(text, 60_000, 36_500 * 86_400_000) / 1_000);
  } catch (error) {
    command.error(`option '--expires <duration>': ${describe(error)}`);
  }
}
