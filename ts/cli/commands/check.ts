/** `thicket check`: is this configuration one that the node can run with? Changes nothing. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { Command } from 'commander';
import type { Config } from '../../config/index.js';
import { ThicketError } from '../../errors.js';
import { stateFolder } from '../../trust/state-folder.js';
import { configFile } from '../files.js';
import { type ConfigOption, configOption } from '../options.js';
import { say } from '../output.js';

export function registerCheck(program: Command): void {
  configOption(
    program.command('check').description('validate a configuration and, where this node has one, its key and certificate; changes nothing'),
  ).action(check);
}

async function check(options: ConfigOption): Promise<void> {
  const { readConfig } = await import('../../config/index.js');
  const folder = stateFolder(options.state);
  const config = readConfig(configFile(options.config), folder);
  // A configuration may be checked where the node isn't: then it is all there is to check.
  if (existsSync(join(folder, 'node.key'))) await checkState(config, folder);
  say('ok');
}

async function checkState(config: Config, folder: string): Promise<void> {
  const { checkOutlets, LocalChanges } = await import('../../config/index.js');
  const { NodeStore } = await import('../../trust/index.js');
  const store = NodeStore.open(folder);
  const membership = store.membership(Math.floor(Date.now() / 1_000));
  const { endpoints, outlets } = LocalChanges.open(folder).join(config);
  checkOutlets(outlets, endpoints);
  for (const { name, groups } of endpoints) {
    if (membership === undefined) {
      throw new ThicketError('NO_CERTIFICATE', `endpoint ${name} needs a certificate of its gateway: enrol this node with thicket join`);
    }
    store.checkEndpoint(name, groups, membership);
  }
}
