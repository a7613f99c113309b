/** `thicket proxy`: a SOCKS5 proxy into the overlay, for as long as the command runs. */
import type { Command } from 'commander';
import { hold } from '../held.js';
import { type NodeOption, nodeOption } from '../options.js';

interface ProxyFlags extends NodeOption {
  readonly open?: boolean;
}

export function registerProxy(program: Command): void {
  nodeOption(
    program
      .command('proxy')
      .description('be a SOCKS5 proxy for .thicket names until interrupted; nothing else is reached through it')
      .argument('[listen]', 'where to listen', '127.0.0.1:1080')
      .option('--open', 'other hosts may use it, though it asks for no password'),
  ).action(proxy);
}

function proxy(listen: string, options: ProxyFlags): Promise<void> {
  return hold(
    'proxy',
    options,
    (client) => client.proxy(listen, options.open === true),
    (address) => `SOCKS5 on ${address}`,
  );
}
