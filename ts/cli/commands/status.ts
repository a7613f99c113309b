/** `thicket status`. */
import type { Command } from 'commander';
import type { LinkDocument, StatusDocument } from '../../control/documents.js';
import { withNode } from '../node.js';
import { type JsonOption, jsonOption, type NodeOption, nodeOption } from '../options.js';
import { bytes, facts, milliseconds, say, sayJson, table } from '../output.js';

export function registerStatus(program: Command): void {
  jsonOption(nodeOption(program.command('status').description('show what the running node is and does'))).action(status);
}

async function status(options: NodeOption & JsonOption): Promise<void> {
  const document = await withNode(options, (client) => client.call<StatusDocument>('GET', '/v1/status'));
  if (options.json) return sayJson(document);
  const { node, dns, relay, ledger } = document;
  const up = document.sessions.filter((session) => session.state === 'up').length;
  const services = document.services.filter((service) => service.state === 'up').length;
  say(
    facts([
      ['state', document.state],
      ['name', node.name ?? 'none: this node has no certificate yet'],
      ['key', node.key],
      ['network', node.network],
      ['version', `${document.version}, ${document.backend} backend`],
      ['why not native', document.backendShortfall],
      ['listens', document.listen.length === 0 ? null : document.listen.join(', ')],
      ['interface', interfaceText(document)],
      ['mode', modeText(document)],
      ['dns', dns === null ? null : `.${dns.domain} on ${dns.addresses.join(', ')} port ${dns.port}`],
      ['sessions', `${document.sessions.length}, ${up} up`],
      ['services', `${document.services.length}, ${services} up`],
      ['routes', `${document.routes}`],
      ['relayed', `${relay.packets} packets, ${bytes(relay.bytes)}, ${relay.labels} labels`],
      [
        'ledger',
        `payload ${bytes(ledger.payload)}, overhead ${bytes(ledger.overhead)}, control ${bytes(ledger.control)}, keep-alive ${bytes(ledger.keepAlive)}`,
      ],
      ['drops', counters(document.drops)],
      ['refused', counters(document.refused)],
    ]),
  );
  if (document.links.length > 0) say(`\n${table(['role', 'link', 'state', 'rtt', 'received', 'sent'], document.links.map(linkRow))}`);
  if (document.allowUnrelayed) say('\nwarning: allow_unrelayed is on: who reaches this node may learn its address');
  for (const warning of document.warnings) say(`\nwarning: ${warning}`);
}

const linkRow = (link: LinkDocument): readonly string[] => [
  link.role,
  link.key,
  link.state,
  milliseconds(link.rttMs),
  bytes(link.rxBytes),
  bytes(link.txBytes),
];

function interfaceText(document: StatusDocument): string | null {
  if (document.interface === null) return null;
  const { name, ipv4, ipv6, offload } = document.interface;
  return `${name}, ${[ipv4, ...(ipv6 === null ? [] : [ipv6])].join(', ')}, offload ${offload}`;
}

function modeText({ mode, modeReason, userspace }: StatusDocument): string | null {
  if (mode !== 'userspace') return null;
  const streams = userspace === null ? '' : `; ${userspace.streams} streams, ${bytes(userspace.buffered)} in buffers`;
  return `user space: ${modeReason ?? ''}${streams}`;
}

function counters(counts: Readonly<Record<string, number>>): string | null {
  const some = Object.entries(counts).filter(([, count]) => count > 0);
  return some.length === 0 ? null : some.map(([reason, count]) => `${reason} ${count}`).join(', ');
}
