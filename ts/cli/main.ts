#!/usr/bin/env node
/** The `thicket` command. */
import { createRequire } from 'node:module';
import { Command } from 'commander';
import { describe } from '../errors.js';
import { version } from '../version.js';

const require = createRequire(import.meta.url);

/** One addon's version, or why it can't be loaded. */
function addonVersion(file: string): string {
  try {
    return (require(`../../build/Release/${file}`) as { version(): string }).version();
  } catch (error) {
    return `missing (${describe(error).split('\n', 1)[0] ?? ''})`;
  }
}

const program = new Command('thicket').description('a public overlay network for devices that cannot run a VPN');
program.version(
  `thicket ${version}\naddon ${addonVersion('thicket_addon.node')}\nkernel ${addonVersion('thicket_kernel.node')}`,
  '--version',
);
program.parse();
