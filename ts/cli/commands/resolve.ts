/** `thicket resolve`: who is behind a name, and by which local addresses. */
import type { Command } from 'commander';
import type { ResolveDocument } from '../../control/documents.js';
import { withNode } from '../node.js';
import { type JsonOption, jsonOption, type NodeOption, nodeOption } from '../options.js';
import { facts, say, sayJson } from '../output.js';

export function registerResolve(program: Command): void {
  jsonOption(
    nodeOption(
      program
        .command('resolve')
        .description('look a name up, verify who holds it, and show its local addresses')
        .argument('<name>', 'a name such as camera.home, or a key'),
    ),
  ).action(resolve);
}

async function resolve(name: string, options: NodeOption & JsonOption): Promise<void> {
  const document = await withNode(options, (client) => client.call<ResolveDocument>('POST', '/v1/resolve', { name }));
  if (options.json) return sayJson(document);
  say(
    facts([
      ['name', document.name],
      ['key', document.key],
      ['certified as', document.certifiedAs],
      ['network', document.network],
      ['ipv4', document.ipv4],
      ['ipv6', document.ipv6],
    ]),
  );
}
