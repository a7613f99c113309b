/** Help and usage errors of every command, by the compiled program. */
import { jest } from '@jest/globals';
import type { Command } from 'commander';
import { buildProgram } from '../../ts/cli/program.js';
import { Shell } from '../cli/index.js';

// Each test starts several programs, on a machine that may be busy.
jest.setTimeout(60_000);

const shell = new Shell();
afterAll(() => shell.remove());

function all(command: Command, path: readonly string[] = []): (readonly [string, Command])[] {
  return [[path.join(' '), command], ...command.commands.flatMap((child) => all(child, [...path, child.name()]))];
}

const commands = all(buildProgram());

/** Help wraps its lines: compared without any space. */
const dense = (text: string): string => text.replace(/\s+/g, '');

describe('help', () => {
  test.each(commands)('"thicket %s --help" says what it does and names every argument, option and sub-command', async (path, command) => {
    const help = await shell.done([...path.split(' ').filter(Boolean), '--help']);
    expect(command.description()).not.toBe('');
    expect(dense(help)).toContain(dense(command.description()));
    for (const argument of command.registeredArguments) {
      expect(argument.description).not.toBe('');
      expect(dense(help)).toContain(dense(argument.description));
    }
    for (const option of command.options) {
      expect(option.description).not.toBe('');
      expect(help).toContain(`  ${option.flags} `);
      expect(dense(help)).toContain(dense(option.description));
    }
    for (const child of command.commands) expect(help).toContain(`  ${child.name()}`);
  });

  test('every command of the first release is there', () => {
    const wanted = [
      ...['network create', 'network sign', 'node init', 'node request', 'join', 'up', 'check', 'doctor', 'reload', 'config example'],
      ...['status', 'tree', 'routes', 'sessions', 'services', 'ping', 'trace', 'resolve', 'forward'],
      ...['expose', 'unexpose', 'allow', 'deny', 'trust add', 'trust remove', 'trust list', 'dns install', 'dns remove'],
    ];
    expect(commands.map(([path]) => path)).toEqual(expect.arrayContaining(wanted));
  });

  test('what design.md wants as JSON has --json', () => {
    const json = commands.filter(([, command]) => command.options.some((option) => option.long === '--json')).map(([path]) => path);
    const wanted = ['status', 'tree', 'routes', 'sessions', 'services', 'ping', 'trace', 'resolve', 'trust list', 'doctor'];
    expect(json).toEqual(expect.arrayContaining(wanted));
  });

  test('"thicket help ping" is "thicket ping --help"', async () => {
    expect(await shell.done(['help', 'ping'])).toBe(await shell.done(['ping', '--help']));
  });

  test('--version names the program and both addons', async () => {
    expect(await shell.done(['--version'])).toMatch(/^thicket \S+\naddon \S.*\nkernel \S.*\n$/);
  });
});

describe('wrong usage ends with code 2 and one line', () => {
  test.each([
    [['stauts'], "unknown command 'stauts' (Did you mean status?): see thicket --help"],
    [['status', '--jsno'], "unknown option '--jsno' (Did you mean --json?): see thicket status --help"],
    [['status', 'extra'], "too many arguments for 'status'. Expected 0 arguments but got 1.: see thicket status --help"],
    [['ping'], "missing required argument 'name': see thicket ping --help"],
    [['ping', 'camera', '-c', '0'], /^option '-c, --count <n>' argument '0' is invalid\. use a whole number .*: see thicket ping --help$/],
    [['network', 'create'], "missing required argument 'name': see thicket network create --help"],
    [
      ['network', 'sign', '--network', 'x', '--request', 'y'],
      /^required option '--name <name>' not specified: see thicket network sign --help$/,
    ],
    [
      ['network', 'sign', '--network', 'x', '--request', 'y', '--name', 'n', '--right', 'fly'],
      /argument 'fly' is invalid\. use one of gateway, relay, enroll: see/,
    ],
    [
      ['network', 'sign', '--network', 'x', '--request', 'y', '--name', 'n', '--expires', '5'],
      /--expires.*"5" is not a duration.*: see thicket network sign --help/,
    ],
    [['join'], "required option '--certificate <file>' not specified: see thicket join --help"],
    [['expose', 'camera'], "missing required argument 'target': see thicket expose --help"],
    [['trust', 'adopt', 'x'], /^unknown command 'adopt'.*: see thicket trust --help$/],
  ] as const)('thicket %j', async (args, message) => {
    const line = await shell.refused(args, {}, 2);
    if (typeof message === 'string') expect(line).toBe(message);
    else expect(line).toMatch(message);
  });

  test.each([[[]], [['network']], [['trust']]])('thicket %j without a command prints its help to stderr', async (args: string[]) => {
    const { code, stdout, stderr } = await shell.thicket(args);
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
    expect(stderr).toMatch(new RegExp(`^Usage: ${['thicket', ...args].join(' ')} `));
  });
});

describe('output', () => {
  test('config example prints a configuration that says of every key whether reload applies it', async () => {
    const example = await shell.done(['config', 'example']);
    expect(example).toContain('parents: [');
    expect(example.match(/\((reload|restart)\)/g)?.length).toBeGreaterThan(10);
  });
});
