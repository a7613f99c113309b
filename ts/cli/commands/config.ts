/** `thicket config example`. */
import type { Command } from 'commander';

export function registerConfig(program: Command): void {
  program
    .command('config')
    .description('about thicket.yaml')
    .command('example')
    .description('print a commented thicket.yaml with every key and its default')
    .action(async () => {
      const { exampleConfig } = await import('../../config/example.js');
      process.stdout.write(exampleConfig);
    });
}
