/** The README's quick setup, its commands taken from the README as they stand and run on the lab's machines. */
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Host, type InternetHost, Lab, repository, startCamera, startLight, thicketProgram, waitFor } from '../lab/index.js';

const MACHINES: Readonly<Record<string, InternetHost>> = { server: 'root', gateway: 'gw', laptop: 'viewer' };
const README = readFileSync(join(repository, 'README.md'), 'utf8');

interface Block {
  readonly language: string;
  readonly text: string;
}

function blocks(): Block[] {
  return [...README.matchAll(/^```(\w+)\n([\s\S]*?)^```$/gm)].map(([, language = '', text = '']) => ({ language, text }));
}

/** The commands of a block with the machines that `# machine` lines name. */
function commands(text: string): { readonly machine: string; readonly command: string }[] {
  let machine = '';
  const found: { machine: string; command: string }[] = [];
  for (const line of text.split('\n')) {
    const named = /^# (\w+)$/.exec(line);
    if (named !== null) machine = named[1] ?? '';
    else if (line.trim() !== '') found.push({ machine, command: line });
  }
  return found;
}

describe('the README', () => {
  let lab: Lab;

  beforeAll(async () => {
    lab = await Lab.create();
    await Promise.all([startCamera(lab), startLight(lab, 'light1')]);
  }, 60_000);

  afterAll(async () => {
    await lab?.destroy();
  }, 60_000);

  const host = (machine: string): Host => {
    const name = MACHINES[machine];
    if (name === undefined) throw new Error(`the README names a machine that the lab hasn't: ${machine}`);
    return lab.host(name);
  };

  test('its quick setup leads from three new machines to a light that answers and a picture that plays', async () => {
    const desk = join(lab.dir, 'desk');
    const bin = join(lab.dir, 'bin');
    mkdirSync(desk);
    mkdirSync(bin);
    writeFileSync(join(bin, 'thicket'), `#!/bin/sh\nexec ${process.execPath} ${thicketProgram} "$@"\n`);
    // A player without a screen: what it receives is decoded all the same, and every error ends it.
    writeFileSync(join(bin, 'ffplay'), '#!/bin/sh\nexec ffmpeg -nostdin -v error -xerror -i "$1" -t 3 -f null -\n');
    for (const name of ['thicket', 'ffplay']) chmodSync(join(bin, name), 0o755);
    // Files are carried between the machines by hand: here they all lie on one desk.
    const run = async (machine: string, command: string): Promise<string> => {
      const env = { THICKET_STATE: host(machine).state, PATH: `${bin}:${process.env.PATH}` };
      const { stdout } = await host(machine).exec(['sh', '-ec', `cd ${desk} && ${command}`], { env, timeoutMs: 60_000 });
      return stdout;
    };

    const shell = blocks().filter((block) => block.language === 'sh');
    const [create, enrol, use] = shell.map((block) => commands(block.text));
    if (create === undefined || enrol === undefined || use === undefined || shell.length !== 3)
      throw new Error('the README has other blocks');
    const printed: Record<string, string> = {};
    for (const { machine, command } of [...create, ...enrol]) {
      const output = await run(machine, command);
      if (command === 'thicket node init') printed[`<${machine} key>`] = output.trim();
      const network = /^network id +([a-z2-7]{52})$/m.exec(output)?.[1];
      if (network !== undefined && command.startsWith('thicket network create')) printed['<network id>'] = network;
    }

    for (const { text } of blocks().filter((block) => block.language === 'yaml')) {
      const [first = '', ...lines] = text.split('\n');
      const config = Object.entries(printed).reduce((all, [mark, value]) => all.replaceAll(mark, value), lines.join('\n'));
      expect(config).not.toContain('<');
      for (const machine of first.replace('# ', '').split(', ')) host(machine).write('thicket.yaml', config);
    }
    for (const machine of ['server', 'gateway', 'laptop']) {
      const node = await host(machine).spawnThicket(['up', '--config', host(machine).path('thicket.yaml')]);
      await node.waitForLine(/^up as /);
    }
    await waitFor(async () => (await host('laptop').thicketJson<{ state: string }>(['status'])).state === 'up', { what: 'the laptop up' });

    for (const { machine, command } of use) {
      const output = await run(machine, command);
      if (command.startsWith('curl')) expect(JSON.parse(output)).toEqual({ on: false });
      if (command.startsWith('thicket ping')) expect(output).toContain('0% lost');
    }
  }, 120_000);
});
