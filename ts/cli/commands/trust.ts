/** `thicket trust`: whom sessions are allowed with besides our own network. */
import type { Command } from 'commander';
import { withNode } from '../node.js';
import { type JsonOption, jsonOption, type NodeOption, nodeOption } from '../options.js';
import { say, sayJson } from '../output.js';

export function registerTrust(program: Command): void {
  const trust = program
    .command('trust')
    .description('whom sessions are allowed with besides our own network (it opens no service: allow does)');
  change(trust, 'add', 'admit a network or a single node', true);
  change(trust, 'remove', 'admit it no longer; its live sessions end', false);
  jsonOption(nodeOption(trust.command('list').description('show the keys that are admitted'))).action(list);
}

function change(trust: Command, name: string, description: string, trusted: boolean): void {
  nodeOption(trust.command(name).description(description).argument('<key>', "a network's or a node's key")).action(
    async (key: string, options: NodeOption) => {
      await withNode(options, (client) => client.call('POST', '/v1/trust', { key, trusted }));
      // A network may be written with its naming secret behind a dot: that isn't for the screen.
      const [shown] = key.split('.', 1);
      say(trusted ? `trusted: ${shown}` : `no longer trusted: ${shown}`);
    },
  );
}

async function list(options: NodeOption & JsonOption): Promise<void> {
  const keys = await withNode(options, (client) => client.call<readonly string[]>('GET', '/v1/trust'));
  if (options.json) sayJson(keys);
  else say(keys.length === 0 ? 'nobody but our own network' : keys.join('\n'));
}
