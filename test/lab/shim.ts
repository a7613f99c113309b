/** A worse path between two hosts, made in user space because the kernel here has no netem. */
import { join } from 'node:path';
import type { Host } from './host.js';
import { repository } from './repository.js';

export interface ShimOptions {
  /** Milliseconds added to the round trip, half of it each way; default 0. */
  readonly rttMs?: number;
  /** Percentages of packets; default 0. A reordered packet is held back by `reorderMs`. */
  readonly reorderPercent?: number;
  readonly duplicatePercent?: number;
  readonly lossPercent?: number;
  /** Milliseconds; default 5. */
  readonly reorderMs?: number;
  /** Makes the choices repeatable; default 1. */
  readonly seed?: number;
}

/**
 * Leads the router's packets between two addresses through a TUN, whose program gives them back when it sees fit. What comes from the TUN is
 * routed as ever, hence the rule that excepts it.
 */
export async function startShim(
  router: Host,
  [a, b]: readonly [string, string],
  number: number,
  options: ShimOptions,
): Promise<() => Promise<void>> {
  const tun = `shim${number}`;
  const family = a.includes(':') ? '-6' : '-4';
  const table = String(1000 + number);
  const figures = [options.rttMs ?? 0, options.reorderPercent ?? 0, options.reorderMs ?? 5, options.duplicatePercent ?? 0];
  const args = [...figures, options.lossPercent ?? 0, options.seed ?? 1].map(String);
  const program = await router.spawn(['/usr/bin/python3', join(repository, 'test', 'fixtures', 'shim.py'), tun, ...args]);
  await program.waitForLine(/^ready$/);
  const rules = [
    `iif ${tun} lookup main pref ${number}`,
    `from ${a} to ${b} lookup ${table} pref 500`,
    `from ${b} to ${a} lookup ${table} pref 500`,
  ];
  const ip = (text: string): Promise<unknown> => router.exec(['ip', family, ...text.split(' ')]);
  await router.exec(['ip', 'link', 'set', tun, 'up']);
  await ip(`route add default dev ${tun} table ${table}`);
  for (const rule of rules) await ip(`rule add ${rule}`);
  return async () => {
    for (const rule of [...rules].reverse()) await ip(`rule del ${rule}`);
    await program.kill('SIGTERM');
  };
}
