/** `thicket forward`: a port on this host that leads to a remote service, for as long as the command runs. */
import type { Command } from 'commander';
import { ThicketError } from '../../errors.js';
import { withNode } from '../node.js';
import { type NodeOption, nodeOption } from '../options.js';
import { say } from '../output.js';

export function registerForward(program: Command): void {
  nodeOption(
    program
      .command('forward')
      .description('lead a local port to a remote service until interrupted')
      .argument('<listen>', 'where to listen: 127.0.0.1:8554')
      .argument('<service>', 'where it leads: camera.home:554'),
  ).action(forward);
}

async function forward(listen: string, service: string, options: NodeOption): Promise<void> {
  const interrupted = new Promise<'interrupted'>((resolve) => {
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, () => resolve('interrupted'));
  });
  await withNode(options, async (client) => {
    const asked = client.forward(listen, service);
    // Interrupted before it listens: hanging up takes it back, and what it answers then is nobody's business.
    asked.catch(() => {});
    const forwarded = await Promise.race([asked, interrupted]);
    if (forwarded === 'interrupted') return;
    say(`${forwarded.listen} leads to ${service}`);
    if ((await Promise.race([forwarded.ended, interrupted])) !== 'interrupted') {
      throw new ThicketError('NOT_RUNNING', 'the node ended the forward: see its log');
    }
  });
}
