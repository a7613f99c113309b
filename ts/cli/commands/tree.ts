/** `thicket tree`: the tree as this node knows it, from its parents down. */
import type { Command } from 'commander';
import type { TreeDocument, TreeNodeDocument } from '../../control/documents.js';
import { withNode } from '../node.js';
import { type JsonOption, jsonOption, type NodeOption, nodeOption } from '../options.js';
import { say, sayJson } from '../output.js';

export function registerTree(program: Command): void {
  jsonOption(nodeOption(program.command('tree').description('show the tree as this node knows it: its parents and all below it'))).action(
    tree,
  );
}

async function tree(options: NodeOption & JsonOption): Promise<void> {
  const document = await withNode(options, (client) => client.call<TreeDocument>('GET', '/v1/tree'));
  if (options.json) return sayJson(document);
  for (const parent of document.parents) say(`${parent.key}  parent, ${parent.state}`);
  const root = document.parents.length === 0;
  say(`${root ? '' : '└─ '}${document.node.key}  this node`);
  for (const line of below(document.node, root ? '' : '   ')) say(line);
}

function* below(node: TreeNodeDocument, indent: string): Generator<string> {
  for (const [index, child] of node.children.entries()) {
    const last = index === node.children.length - 1;
    yield `${indent}${last ? '└─ ' : '├─ '}${child.key}${child.endpoint ? '  endpoint' : ''}`;
    yield* below(child, `${indent}${last ? '   ' : '│  '}`);
  }
}
