/** `thicket expose` and `unexpose`: a device's name, address, NAT and policy, made and removed together. */
import type { Command } from 'commander';
import { withoutSecrets } from '../../errors.js';
import { withNode } from '../node.js';
import { listOption, type NodeOption, nodeOption } from '../options.js';
import { say } from '../output.js';

interface ExposeFlags extends NodeOption {
  readonly allow: readonly string[];
  readonly force?: boolean;
}

export function registerExpose(program: Command): void {
  nodeOption(
    program
      .command('expose')
      .description('give a device behind this gateway a name, services and a policy')
      .argument('<name>', "the endpoint's name, one DNS label")
      .argument('<target...>', 'rtsp://192.168.1.20, http://192.168.1.31:8080, 192.168.1.20:554 or udp/5683=192.168.1.40:5683')
      .addOption(listOption('--allow <who>', 'who may reach it: node:KEY, name:NAME, group:G, network:KEY or anyone-trusted'))
      .option('--force', "the target may be on this gateway itself, or in loopback, link-local or the overlay's pool"),
  ).action(expose);
}

export function registerUnexpose(program: Command): void {
  nodeOption(
    program
      .command('unexpose')
      .description('remove what thicket expose made: name, services, policy')
      .argument('<name>', "the endpoint's name"),
  ).action(unexpose);
}

async function expose(name: string, targets: readonly string[], { allow, force, ...node }: ExposeFlags): Promise<void> {
  await withNode(node, (client) => client.call('POST', '/v1/expose', { name, targets, allow, force: force === true }));
  say(
    withoutSecrets(
      allow.length > 0 ? `exposed ${name} to ${allow.join(', ')}` : `exposed ${name} to nobody yet: thicket allow WHO ${name}`,
    ),
  );
}

async function unexpose(name: string, options: NodeOption): Promise<void> {
  await withNode(options, (client) => client.call('POST', '/v1/unexpose', { name }));
  say(`${name} is no longer exposed`);
}
