/** The command line as a whole. Commands load what they need when they run: `thicket status` must not wait for what `thicket up` needs. */
import { Command, CommanderError } from 'commander';
import { registerAllow, registerDeny } from './commands/allow.js';
import { registerCheck } from './commands/check.js';
import { registerConfig } from './commands/config.js';
import { registerDns } from './commands/dns.js';
import { registerDoctor } from './commands/doctor.js';
import { registerJoin, registerNode } from './commands/enrol.js';
import { registerExpose, registerUnexpose } from './commands/expose.js';
import { registerForward } from './commands/forward.js';
import { registerRoutes, registerServices, registerSessions } from './commands/lists.js';
import { registerNetwork } from './commands/network.js';
import { registerOutlet } from './commands/outlet.js';
import { registerPing } from './commands/ping.js';
import { registerProxy } from './commands/proxy.js';
import { registerReload } from './commands/reload.js';
import { registerResolve } from './commands/resolve.js';
import { registerStatus } from './commands/status.js';
import { registerTrace } from './commands/trace.js';
import { registerTree } from './commands/tree.js';
import { registerTrust } from './commands/trust.js';
import { registerUp } from './commands/up.js';
import { say } from './output.js';
import { versionText } from './version.js';

const GROUPS: readonly (readonly [string, readonly ((program: Command) => void)[]])[] = [
  ['Joining:', [registerNetwork, registerNode, registerJoin]],
  ['Running:', [registerUp, registerCheck, registerDoctor, registerReload, registerConfig]],
  [
    'Looking:',
    [registerStatus, registerTree, registerRoutes, registerSessions, registerServices, registerPing, registerTrace, registerResolve],
  ],
  ['Sharing:', [registerExpose, registerUnexpose, registerAllow, registerDeny, registerTrust]],
  ['Reaching:', [registerForward, registerProxy, registerOutlet, registerDns]],
];

export function buildProgram(): Command {
  const program = new Command('thicket').description('a public overlay network for devices that cannot run a VPN');
  program.option('--version', 'print the versions of the program and its addons').on('option:version', () => {
    say(versionText());
    throw new CommanderError(0, 'commander.version', '');
  });
  for (const [heading, register] of GROUPS) {
    program.commandsGroup(heading);
    for (const command of register) command(program);
  }
  return program.addHelpText('after', '\nExit codes: 0 done; 1 refused or failed, with one line that says what to do; 2 wrong usage.');
}
