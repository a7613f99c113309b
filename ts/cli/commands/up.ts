/** `thicket up`: run the node in the foreground. */
import { getPriority, setPriority } from 'node:os';
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
  const [{ readConfig }, { startNode }, { serve }] = await Promise.all([
    import('../../config/index.js'),
    import('../../node/index.js'),
    import('../service.js'),
  ]);
  const [file, folder] = [configFile(options.config), stateFolder(options.state)];
  await serve(async () => {
    const node = await startNode({ configure: () => readConfig(file, folder), stateFolder: folder });
    preferDecisions();
    return node;
  });
}

/**
 * Decisions before packets: this thread has little to do, but others wait for it, so it goes before our own threads that move packets, which may take all
 * that the processors have. On Linux a priority is the thread's alone. Without the privilege all are equal.
 */
function preferDecisions(): void {
  try {
    setPriority(Math.max(-20, getPriority() - 5));
  } catch {
    // As it was.
  }
}
