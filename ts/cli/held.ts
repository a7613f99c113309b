/** Commands that keep something open in the node for as long as they run. */
import type { ControlClient, Held } from '../control/client.js';
import { ThicketError } from '../errors.js';
import { withNode } from './node.js';
import type { NodeOption } from './options.js';
import { say } from './output.js';

/** Opens `what`, says what `told` says of its address, and stays until interrupted. Throws what the node throws, or when the node ends it. */
export async function hold(
  what: string,
  options: NodeOption,
  open: (client: ControlClient) => Promise<Held>,
  told: (listen: string) => string,
): Promise<void> {
  const interrupted = new Promise<'interrupted'>((resolve) => {
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, () => resolve('interrupted'));
  });
  await withNode(options, async (client) => {
    const asked = open(client);
    // Interrupted before it listens: hanging up takes it back, and what it answers then is nobody's business.
    asked.catch(() => {});
    const held = await Promise.race([asked, interrupted]);
    if (held === 'interrupted') return;
    say(told(held.listen));
    if ((await Promise.race([held.ended, interrupted])) !== 'interrupted') {
      throw new ThicketError('NOT_RUNNING', `the node ended the ${what}: see its log`);
    }
  });
}
