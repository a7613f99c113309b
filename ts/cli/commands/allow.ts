/** `thicket allow` and `deny`: who may reach a service. */
import type { Command } from 'commander';
import { withoutSecrets } from '../../errors.js';
import { withNode } from '../node.js';
import { type NodeOption, nodeOption } from '../options.js';
import { say } from '../output.js';

const WHO = 'node:KEY, name:NAME, group:G, network:KEY (…@NETWORK for another network) or anyone-trusted';
const SERVICE = 'camera (all its services), camera:554 or camera:udp/5683';

export function registerAllow(program: Command): void {
  rule(program, 'allow', 'let somebody reach a service', (who, service) => `${who} may reach ${service}`);
}

export function registerDeny(program: Command): void {
  rule(program, 'deny', 'take back what allowed somebody to reach a service', (who, service) => `${who} may no longer reach ${service}`);
}

function rule(program: Command, name: 'allow' | 'deny', description: string, done: (who: string, service: string) => string): void {
  nodeOption(program.command(name).description(description).argument('<who>', WHO).argument('<service>', SERVICE)).action(
    async (who: string, service: string, options: NodeOption) => {
      await withNode(options, (client) => client.call('POST', `/v1/${name}`, { who, service }));
      say(withoutSecrets(done(who, service)));
    },
  );
}
