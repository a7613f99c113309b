/**
 * What systemd wants to hear of a Type=notify service (sd_notify(3)). Node has no Unix datagram sockets, so systemd's own `systemd-notify` says it; where
 * the node doesn't run as root, the unit needs NotifyAccess=all, since it is a child that speaks.
 */
import { execFile } from 'node:child_process';
import { describe } from '../errors.js';
import { complain } from './output.js';

const TIMEOUT = 10_000;

export type NotifyState = 'READY' | 'RELOADING' | 'STOPPING';

/** Tells the service manager, if there is one. Never rejects: a node that can't say that it is up is still up. */
export async function notifySystemd(state: NotifyState, env: Readonly<Record<string, string | undefined>> = process.env): Promise<void> {
  if (!env.NOTIFY_SOCKET) return;
  const words = [`${state}=1`];
  // libuv's clock is CLOCK_MONOTONIC, which is what systemd compares with.
  if (state === 'RELOADING') words.push(`MONOTONIC_USEC=${process.hrtime.bigint() / 1_000n}`);
  await new Promise<void>((resolve) => {
    execFile('systemd-notify', words, { env, timeout: TIMEOUT }, (error) => {
      if (error !== null) {
        complain(`systemd wasn't told ${state}=1 (${describe(error)}): install systemd-notify, or use Type=exec in the unit`);
      }
      resolve();
    });
  });
}
