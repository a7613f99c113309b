/** What is set up in a way that probably isn't meant: one line each, for the log and `status`. */
import type { Config } from '../config/index.js';
import type { Membership } from '../trust/index.js';

export function warningsOf(config: Config, membership: Membership | undefined): string[] {
  const warnings: string[] = [];
  const listens = config.listen.length > 0;
  if (membership === undefined && (!listens || config.allowUnrelayed)) {
    warnings.push('this node has no certificate, so nobody talks to it: have it signed by its network, then thicket join');
  }
  if (listens && config.relay.for === 'none') warnings.push('this node listens but relays for nobody: set relay: { for: … }');
  if (config.allowUnrelayed) warnings.push('allow_unrelayed: whoever connects to this node, or is connected to, sees its real address');
  for (const [nickname, network] of config.networks) {
    const known = network.namingSecret !== undefined || network.key === membership?.network.key;
    if (!known) warnings.push(`networks: ${nickname} has no naming secret behind its key, so its names don't resolve, only keys do`);
  }
  return warnings;
}
