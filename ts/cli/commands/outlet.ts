/** `thicket outlet`: a port on the LAN's side by which one device calls a remote service, for as long as the command runs. */
import type { Command } from 'commander';
import { hold } from '../held.js';
import { type NodeOption, nodeOption } from '../options.js';

interface OutletFlags extends NodeOption {
  readonly as: string;
  readonly from: string;
}

export function registerOutlet(program: Command): void {
  nodeOption(
    program
      .command('outlet')
      .description('let one device of the LAN call one remote service until interrupted')
      .argument('<listen>', 'where to listen: 192.168.1.1:9000')
      .argument('<service>', 'where it leads: csms.operator:9000')
      .requiredOption('--as <endpoint>', 'the endpoint that stands for the device: its key calls')
      .requiredOption('--from <ip[,mac]>', 'the one device that may use it'),
  ).action(outlet);
}

function outlet(listen: string, service: string, { as, from, ...options }: OutletFlags): Promise<void> {
  return hold(
    'outlet',
    options,
    (client) => client.outlet(listen, service, as, from),
    (address) => `${address} leads ${from} to ${service} as ${as}`,
  );
}
