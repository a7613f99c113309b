/** `thicket doctor`: can a node run here, and how well? Needs no running node. */
import { existsSync } from 'node:fs';
import type { Command } from 'commander';
import type { Check } from '../../doctor/index.js';
import { ThicketError } from '../../errors.js';
import { stateFolder } from '../../trust/state-folder.js';
import { configFile } from '../files.js';
import { type ConfigOption, configOption, type JsonOption, jsonOption } from '../options.js';
import { say, sayJson } from '../output.js';

export function registerDoctor(program: Command): void {
  jsonOption(
    configOption(program.command('doctor').description('look for what a node needs on this host and say what to do about what is missing')),
  ).action(doctor);
}

async function doctor(options: ConfigOption & JsonOption): Promise<void> {
  const { examine, thisHost } = await import('../../doctor/index.js');
  const document = await examine(thisHost(process.env), { interface: await needsInterface(options) });
  if (options.json) sayJson(document);
  else for (const check of document.checks) say(line(check));
  if (document.ok) return;
  const missing = document.checks.filter(({ state }) => state === 'missing').map(({ name }) => name);
  throw new ThicketError('NOT_FOUND', `a node can't run here (${missing.join(', ')}): do what the lines marked missing say`);
}

/** As the node itself decides (ts/node/place.ts). Without a configuration it is open what kind of node this will be. */
async function needsInterface(options: ConfigOption): Promise<boolean | undefined> {
  const file = configFile(options.config);
  if (options.config === undefined && !existsSync(file)) return undefined;
  const { readConfig } = await import('../../config/index.js');
  const { listen, allowUnrelayed, interface: its } = readConfig(file, stateFolder(options.state));
  return (listen.length === 0 || allowUnrelayed) && its.mode === 'tun';
}

/** `ok       tun           /dev/net/tun can be opened` */
const line = ({ state, name, text }: Check): string => `${state.padEnd(7)}  ${name.padEnd(12)}  ${text}`;
