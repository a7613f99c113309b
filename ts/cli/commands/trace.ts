/** `thicket trace`: the hops of the path to a name. */
import type { Command } from 'commander';
import type { TraceDocument } from '../../control/documents.js';
import { withNode } from '../node.js';
import { type JsonOption, jsonOption, type NodeOption, nodeOption } from '../options.js';
import { milliseconds, say, sayJson, table } from '../output.js';

export function registerTrace(program: Command): void {
  jsonOption(
    nodeOption(
      program
        .command('trace')
        .description('show the relays on the way to a node or an endpoint, with round-trip times')
        .argument('<name>', 'a name such as camera.home, or a key'),
    ),
  ).action(trace);
}

async function trace(name: string, options: NodeOption & JsonOption): Promise<void> {
  const document = await withNode(options, (client) => client.call<TraceDocument>('POST', '/v1/trace', { name }));
  if (options.json) return sayJson(document);
  say(
    table(
      ['hop', 'key', 'role', 'rtt'],
      document.hops.map((hop) => [`${hop.hop}`, hop.key, hop.role, milliseconds(hop.rttMs)]),
    ),
  );
}
