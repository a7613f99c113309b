/** `thicket forward`: a port on this host that leads to a remote service, for as long as the command runs. */
import type { Command } from 'commander';
import { hold } from '../held.js';
import { type NodeOption, nodeOption } from '../options.js';

export function registerForward(program: Command): void {
  nodeOption(
    program
      .command('forward')
      .description('lead a local port to a remote service until interrupted')
      .argument('<listen>', 'where to listen: 127.0.0.1:8554')
      .argument('<service>', 'where it leads: camera.home:554'),
  ).action(forward);
}

function forward(listen: string, service: string, options: NodeOption): Promise<void> {
  return hold(
    'forward',
    options,
    (client) => client.forward(listen, service),
    (address) => `${address} leads to ${service}`,
  );
}
