/** `thicket routes`, `sessions`, `services`: one table each. */
import type { Command } from 'commander';
import type { RouteDocument, ServiceDocument, SessionDocument } from '../../control/documents.js';
import { withNode } from '../node.js';
import { type JsonOption, jsonOption, type NodeOption, nodeOption } from '../options.js';
import { bytes, duration, list, say, sayJson, table } from '../output.js';

export function registerRoutes(program: Command): void {
  listing<RouteDocument>(program, 'routes', 'show who is reached through which child', {
    none: 'no routes: nobody is below this node',
    head: ['key', 'parent', 'via', 'kind'],
    row: (route) => [route.key, route.parent, route.via, route.endpoint ? 'endpoint' : 'node'],
  });
}

export function registerSessions(program: Command): void {
  listing<SessionDocument>(program, 'sessions', 'show the end-to-end sessions of this node and its endpoints', {
    none: 'no sessions',
    head: [
      'name',
      'state',
      'hops',
      'mtu',
      'received',
      'sent',
      'rekeys',
      'flows',
      'age',
      'addresses',
      'offered',
      'allowed',
      'denied',
      'key',
    ],
    row: (s) => [
      s.name || '-',
      s.state,
      s.hops === null ? '-' : `${s.hops}`,
      s.pathMtu === null ? '-' : `${s.pathMtu}`,
      bytes(s.rxBytes),
      bytes(s.txBytes),
      `${s.rekeys}`,
      `${s.flows}`,
      duration(s.ageSeconds),
      list(s.addresses),
      list(s.offered),
      list(s.allowed),
      list(s.denied),
      s.key,
    ],
  });
}

export function registerServices(program: Command): void {
  listing<ServiceDocument>(program, 'services', 'show what this gateway exposes, to whom, and whether the devices answer', {
    none: 'no services: expose one with thicket expose NAME TARGET',
    head: ['name', 'port', 'state', 'device', 'allowed to', 'payload', 'overhead', 'note'],
    row: (s) => [
      s.name,
      s.port,
      s.state,
      s.device,
      s.allow.length === 0 ? 'nobody' : s.allow.join(','),
      bytes(s.payloadBytes),
      bytes(s.overheadBytes),
      s.reason ?? (s.rtsp ? 'RTSP' : ''),
    ],
  });
}

interface Listing<T> {
  readonly none: string;
  readonly head: readonly string[];
  readonly row: (item: T) => readonly string[];
}

function listing<T>(program: Command, name: string, description: string, how: Listing<T>): void {
  jsonOption(nodeOption(program.command(name).description(description))).action(async (options: NodeOption & JsonOption) => {
    const items = await withNode(options, (client) => client.call<readonly T[]>('GET', `/v1/${name}`));
    if (options.json) sayJson(items);
    else say(items.length === 0 ? how.none : table(how.head, items.map(how.row)));
  });
}
