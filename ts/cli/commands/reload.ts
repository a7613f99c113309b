/** `thicket reload`: apply a changed configuration. */
import type { Command } from 'commander';
import type { ReloadDocument } from '../../control/documents.js';
import { withNode } from '../node.js';
import { type NodeOption, nodeOption } from '../options.js';
import { say } from '../output.js';

export function registerReload(program: Command): void {
  nodeOption(program.command('reload').description('make the running node read its configuration again; a bad one changes nothing')).action(
    reload,
  );
}

async function reload(options: NodeOption): Promise<void> {
  const { restart } = await withNode(options, (client) => client.call<ReloadDocument>('POST', '/v1/reload'));
  say(restart.length === 0 ? 'reloaded' : `reloaded, but for ${restart.join(', ')}: restart the node to apply that`);
}
