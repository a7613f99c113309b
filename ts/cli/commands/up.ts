/** `thicket up`: run the node in the foreground. */
import type { Command } from 'commander';
import { stateFolder } from '../../trust/state-folder.js';
import { configFile } from '../files.js';
import { type ConfigOption, configOption } from '../options.js';

export function registerUp(program: Command): void {
  configOption(
    program
      .command('up')
      .description('run the node in the foreground; SIGTERM leaves the host as it was, SIGHUP reloads the configuration'),
  ).action(up);
}

async function up(options: ConfigOption): Promise<void> {
  const [{ startNode }, { serve }] = await Promise.all([import('../../node/index.js'), import('../service.js')]);
  await serve(() => startNode({ configFile: configFile(options.config), stateFolder: stateFolder(options.state) }));
}
