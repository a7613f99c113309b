/** The commands that talk to a node, against the real control server with a host made for the purpose. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { type IncomingMessage, request } from 'node:http';
import { createServer } from 'node:net';
import { jest } from '@jest/globals';
import { ControlClient } from '../../ts/control/client.js';
import { type ControlServer, openControl } from '../../ts/control/index.js';
import { ThicketError } from '../../ts/errors.js';
import { type FakeHost, fakeHost, keyOf, Shell } from '../cli/index.js';
import { Process, thicketProgram, waitFor } from '../lab/index.js';

// Each test starts several programs, on a machine that may be busy.
jest.setTimeout(60_000);

let shell: Shell;
let host: FakeHost;
let server: ControlServer;
let socket: string;

beforeEach(async () => {
  shell = new Shell();
  mkdirSync(shell.state, { mode: 0o700 });
  socket = shell.path('state/control.sock');
  host = fakeHost();
  server = await openControl(socket, () => host);
});

afterEach(async () => {
  await server.close();
  shell.remove();
});

const json = async (...args: string[]): Promise<unknown> => JSON.parse(await shell.done([...args, '--json']));
const rows = (text: string): string[][] =>
  text
    .trimEnd()
    .split('\n')
    .map((line) => line.split(/ {2,}/));

describe('what --json prints is what the control API says, as one document', () => {
  test.each(['status', 'tree', 'routes', 'sessions', 'services'] as const)('%s', async (name) => {
    expect(await json(name)).toEqual(host[name]());
  });

  test('trust list, trace, resolve', async () => {
    expect(await json('trust', 'list')).toEqual(host.trust());
    expect(await json('trace', 'camera.home')).toEqual(await host.trace('camera.home'));
    expect(await json('resolve', 'camera.home')).toEqual(await host.resolve('camera.home'));
  });
});

describe('for people', () => {
  test('status says who the node is, what it does, and what is wrong', async () => {
    const text = await shell.done(['status']);
    const facts = Object.fromEntries(rows(text.split('\n\n', 1)[0] ?? ''));
    expect(facts).toEqual({
      state: 'up',
      name: 'gw',
      key: keyOf('n'),
      network: keyOf('w'),
      version: '0.1.0, wasm backend',
      'why not native': '@thicket/linux-x64-gnu is missing',
      listens: 'udp://0.0.0.0:7117',
      interface: 'thicket0, 198.18.0.1/15, fd00::1/64, offload gso',
      dns: '.thicket on 198.18.0.1 port 53',
      sessions: '1, 1 up',
      services: '1, 0 up',
      routes: '2',
      relayed: '5 packets, 6.0 kB, 4 labels',
      ledger: 'payload 10.0 MB, overhead 2.0 kB, control 300 B, keep-alive 40 B',
      drops: 'replay 3',
      refused: 'bad signature 1',
    });
    expect(rows(text.split('\n\n')[1] ?? '')).toEqual([
      ['ROLE', 'LINK', 'STATE', 'RTT', 'RECEIVED', 'SENT'],
      ['parent', keyOf('p'), 'up', '12.3 ms', '999 B', '1.0 kB'],
    ]);
    expect(text).toContain('\nwarning: allow_unrelayed is on');
    expect(text).toContain('\nwarning: the clock is behind\n');
  });

  test('status of a node that is nothing yet leaves out what it has not', async () => {
    const full = host.status();
    host.status = () => ({
      ...full,
      node: { ...full.node, name: null, network: null },
      listen: [],
      allowUnrelayed: false,
      links: [],
      interface: null,
      dns: null,
      warnings: [],
      trains: { sealed: [0, 0, 0, 0, 0, 0, 0], opened: [0, 0, 0, 0, 0, 0, 0] },
      drops: {},
      refused: {},
    });
    const text = await shell.done(['status']);
    expect(text).toContain('none: this node has no certificate yet');
    expect(text).not.toMatch(/null|undefined|warning|^(network|listens|interface|dns|drops) /m);
  });

  test('status says why there is no interface', async () => {
    const full = host.status();
    host.status = () => ({
      ...full,
      mode: 'userspace',
      modeReason: 'no /dev/net/tun',
      userspace: { streams: 3, datagrams: 1, buffered: 2_000, refused: 0 },
      interface: null,
    });
    const text = await shell.done(['status']);
    expect(text).toMatch(/^mode +user space: no \/dev\/net\/tun; 3 streams, 2\.0 kB in buffers$/m);
    expect(text).not.toMatch(/^interface /m);
  });

  test('tree is drawn from the parents down', async () => {
    expect((await shell.done(['tree'])).split('\n')).toEqual([
      `${keyOf('p')}  parent, up`,
      `└─ ${keyOf('n')}  this node`,
      `   ├─ ${keyOf('c')}`,
      `   │  └─ ${keyOf('q')}  endpoint`,
      `   └─ ${keyOf('z')}`,
      '',
    ]);
    const full = host.tree();
    host.tree = () => ({ ...full, parents: [] });
    expect((await shell.done(['tree'])).split('\n').slice(0, 2)).toEqual([`${keyOf('n')}  this node`, `├─ ${keyOf('c')}`]);
  });

  test('routes, sessions, services and trust are tables, or say that there is none', async () => {
    expect(rows(await shell.done(['routes']))).toEqual([
      ['KEY', 'PARENT', 'VIA', 'KIND'],
      [keyOf('q'), keyOf('c'), keyOf('c'), 'endpoint'],
    ]);
    expect(rows(await shell.done(['sessions']))[1]).toEqual([
      ...[
        'camera.gw',
        'up',
        '3',
        '1492',
        '1.2 MB',
        '89.0 kB',
        '7',
        '2',
        '1h2m',
        '198.18.0.7,fd00::7',
        'tcp/554',
        '-',
        'tcp/22',
        keyOf('q'),
      ],
    ]);
    expect(rows(await shell.done(['services']))[1]).toEqual([
      ...['light', 'tcp/80', 'off', '192.168.1.31:80', 'group:family', '1.0 kB', '24 B', 'no route to it'],
    ]);
    expect(await shell.done(['trust', 'list'])).toBe(`${keyOf('w')}\n`);
    for (const name of ['routes', 'sessions', 'services', 'trust'] as const) {
      host[name] = () => [];
      expect(await shell.done(name === 'trust' ? ['trust', 'list'] : [name])).toMatch(/^(no|nobody) [^\n]*\n$/);
    }
  });

  test('columns line up', async () => {
    const route = host.routes()[0];
    if (route === undefined) throw new Error('no route');
    host.routes = () => [route, { ...route, key: 'short', endpoint: false }];
    const lines = (await shell.done(['routes'])).trimEnd().split('\n');
    expect(new Set(lines.map((line) => line.search(/(KIND|endpoint|node)$/))).size).toBe(1);
  });

  test('trace is a table of hops, resolve a list of facts', async () => {
    expect(rows(await shell.done(['trace', 'camera.home']))).toEqual([
      ['HOP', 'KEY', 'ROLE', 'RTT'],
      ['1', keyOf('p'), 'relay', '1.3 ms'],
      ['2', keyOf('q'), 'end', '-'],
    ]);
    expect(Object.fromEntries(rows(await shell.done(['resolve', 'camera.home'])))).toEqual({
      name: 'camera.home',
      key: keyOf('q'),
      'certified as': 'camera.gw',
      network: keyOf('w'),
      ipv4: '198.18.0.7',
    });
  });
});

describe('ping', () => {
  test('prints a line per answer and a summary', async () => {
    host.pings.push(10, new ThicketError('TIMEOUT', 'no answer'));
    expect((await shell.done(['ping', 'camera.home', '-c', '3'])).split('\n')).toEqual([
      `answer from camera.home (${keyOf('q')}): seq=1 time=10.00 ms`,
      'no answer from camera.home: seq=2 (no answer)',
      `answer from camera.home (${keyOf('q')}): seq=3 time=12.50 ms`,
      '3 sent, 2 received, 33% lost, min/avg/max 10.00/11.25/12.50 ms',
      '',
    ]);
    expect(host.calls).toEqual(Array(3).fill(['ping', 'camera.home']));
  });

  test('--json is one document with the same', async () => {
    host.pings.push(10, new ThicketError('TIMEOUT', 'no answer'));
    expect(await json('ping', 'camera.home', '-c', '2')).toEqual({
      schema: 1,
      name: 'camera.home',
      key: keyOf('q'),
      sent: 2,
      received: 1,
      lossPercent: 50,
      minMs: 10,
      avgMs: 10,
      maxMs: 10,
      answers: [
        { seq: 1, rttMs: 10, error: null },
        { seq: 2, rttMs: null, error: 'no answer' },
      ],
    });
  });

  test('asks four times without -c', async () => {
    await shell.done(['ping', 'camera.home']);
    expect(host.calls).toHaveLength(4);
  });

  test('ends with code 1 and one line when nobody answered; --json still prints its document', async () => {
    host.pings.push(new ThicketError('TIMEOUT', 'no answer'), new ThicketError('UNREACHABLE', 'gone'));
    const text = await shell.thicket(['ping', 'camera.home', '-c', '1']);
    expect(text).toEqual({
      code: 1,
      stdout: 'no answer from camera.home: seq=1 (no answer)\n1 sent, 0 received, 100% lost\n',
      stderr: "thicket: camera.home didn't answer (no answer): see whether it is up, and thicket status here\n",
    });
    const document = await shell.thicket(['ping', 'camera.home', '-c', '1', '--json']);
    expect(document.code).toBe(1);
    expect(JSON.parse(document.stdout)).toMatchObject({ key: null, received: 0, lossPercent: 100, minMs: null });
    expect(document.stderr).toMatch(/^thicket: camera\.home didn't answer \(gone\): [^\n]+\n$/);
  });

  test('ends at once when asking again makes no sense', async () => {
    host.pings.push(new ThicketError('NOT_FOUND', 'nobody is called x in that network: is its gateway up?'));
    expect(await shell.refused(['ping', 'x.home', '-c', '4'])).toBe('nobody is called x in that network: is its gateway up?');
    expect(host.calls).toHaveLength(1);
  });

  test('goes on and ends with code 0 when its reader has gone', async () => {
    const env = { ...process.env, THICKET_STATE: shell.state, NODE_OPTIONS: '' };
    const child = spawn(process.execPath, [thicketProgram, 'ping', 'camera.home', '-c', '2'], { env, stdio: ['ignore', 'pipe', 'pipe'] });
    child.stdout.destroy();
    let stderr = '';
    child.stderr.on('data', (chunk: Buffer) => {
      stderr += chunk.toString();
    });
    const [code] = await once(child, 'close');
    expect({ code, stderr, calls: host.calls.length }).toEqual({ code: 0, stderr: '', calls: 2 });
  });

  test('an interrupt ends it with the summary so far', async () => {
    const process_ = await start('ping', 'camera.home', '-c', '1000');
    await process_.waitForLine(/seq=1 /);
    process_.signal('SIGINT');
    expect(await process_.exit).toEqual({ code: 0, signal: null });
    expect(process_.stdout.at(-1)).toMatch(/^\d+ sent, \d+ received, 0% lost, /);
  });
});

describe('changes', () => {
  test('reach the node as they were typed, and say what is done', async () => {
    const args = [
      'expose',
      'camera',
      'rtsp://192.168.1.20',
      '--allow',
      'group:family',
      'http://192.168.1.20',
      '--allow',
      'node:x',
      '--force',
    ];
    expect(await shell.done(args)).toBe('exposed camera to group:family, node:x\n');
    expect(await shell.done(['expose', 'light', '192.168.1.31:80'])).toBe('exposed light to nobody yet: thicket allow WHO light\n');
    expect(await shell.done(['unexpose', 'camera'])).toBe('camera is no longer exposed\n');
    expect(await shell.done(['allow', 'group:family', 'light:80'])).toBe('group:family may reach light:80\n');
    expect(await shell.done(['deny', 'group:family', 'light:80'])).toBe('group:family may no longer reach light:80\n');
    expect(await shell.done(['trust', 'add', keyOf('w')])).toBe(`trusted: ${keyOf('w')}\n`);
    expect(await shell.done(['trust', 'remove', keyOf('w')])).toBe(`no longer trusted: ${keyOf('w')}\n`);
    expect(await shell.done(['reload'])).toBe('reloaded, but for listen, dns: restart the node to apply that\n');
    expect(host.calls).toEqual([
      ['expose', 'camera', ['rtsp://192.168.1.20', 'http://192.168.1.20'], ['group:family', 'node:x'], true],
      ['expose', 'light', ['192.168.1.31:80'], [], false],
      ['unexpose', 'camera'],
      ['allow', 'group:family', 'light:80'],
      ['deny', 'group:family', 'light:80'],
      ['setTrust', keyOf('w'), true],
      ['setTrust', keyOf('w'), false],
      ['reload'],
    ]);
  });

  test.each([
    ['expose', 'camera', '1.2.3.4:5'],
    ['unexpose', 'camera'],
    ['allow', 'group:a', 'camera'],
    ['deny', 'group:a', 'camera'],
    ['trust', 'add', 'key'],
    ['trust', 'remove', 'key'],
    ['reload'],
    ['forward', '127.0.0.1:1', 'camera:2'],
    ['proxy'],
    ['outlet', '192.168.1.1:9000', 'csms:9000', '--as', 'charger', '--from', '192.168.1.30'],
  ])('%s %s: the refusal of the node is the line on stderr', async (...args: string[]) => {
    host.refusal = new ThicketError('REFUSED', 'not like that: like this');
    expect(await shell.refused(args.filter(Boolean))).toBe('not like that: like this');
  });

  test('what is too long or too much is refused by the server, not passed on', async () => {
    expect(await shell.refused(['unexpose', 'x'.repeat(301)])).toMatch(/^the request is malformed: /);
    expect(await shell.refused(['expose', 'a', ...Array.from({ length: 65 }, (_, n) => `192.168.1.1:${n + 1}`)])).toMatch(
      /^the request is malformed: /,
    );
    expect(await shell.refused(['expose', 'a', ...Array.from({ length: 1_000 }, () => 'x'.repeat(100))])).toMatch(
      /^the request is malformed: /,
    );
    expect(host.calls).toEqual([]);
  });
});

async function start(...args: string[]): Promise<Process> {
  return Process.start([process.execPath, thicketProgram, ...args], { env: { THICKET_STATE: shell.state } });
}

describe('forward', () => {
  test.each(['SIGINT', 'SIGTERM'] as const)('runs until %s, which ends the forward in the node', async (signal) => {
    const command = await start('forward', '127.0.0.1:8554', 'camera.home:554');
    await command.waitForLine(/^127\.0\.0\.1:8554 leads to camera\.home:554$/);
    expect(host.calls).toEqual([['forward', '127.0.0.1:8554', 'camera.home:554']]);
    expect(host.held[0]?.aborted).toBe(false);
    command.signal(signal);
    expect(await command.exit).toEqual({ code: 0, signal: null });
    await waitFor(() => host.held[0]?.aborted);
  });

  test('ends with code 1 and a line when the node ends', async () => {
    const command = await start('forward', '127.0.0.1:8554', 'camera.home:554');
    await command.waitForLine(/leads to/);
    await server.close();
    expect(await command.exit).toEqual({ code: 1, signal: null });
    expect(command.stderr).toEqual(['thicket: the node ended the forward: see its log']);
  });

  test('may be interrupted before the node listens', async () => {
    let asked = false;
    host.forward = (_listen, _to, signal) => {
      asked = true;
      host.held.push(signal);
      return new Promise(() => {});
    };
    const command = await start('forward', '127.0.0.1:8554', 'camera.home:554');
    await waitFor(() => asked);
    command.signal('SIGINT');
    expect(await command.exit).toEqual({ code: 0, signal: null });
    await waitFor(() => host.held[0]?.aborted);
  });
});

describe('proxy', () => {
  test('listens on loopback unless told otherwise, and runs until interrupted', async () => {
    const command = await start('proxy');
    await command.waitForLine(/^SOCKS5 on 127\.0\.0\.1:1080$/);
    const open = await start('proxy', '192.168.1.1:1080', '--open');
    await open.waitForLine(/^SOCKS5 on 192\.168\.1\.1:1080$/);
    expect(host.calls).toEqual([
      ['proxy', '127.0.0.1:1080', false],
      ['proxy', '192.168.1.1:1080', true],
    ]);
    command.signal('SIGINT');
    expect(await command.exit).toEqual({ code: 0, signal: null });
    await waitFor(() => host.held[0]?.aborted);
    expect(host.held[1]?.aborted).toBe(false);
    await server.close();
    expect(await open.exit).toEqual({ code: 1, signal: null });
    expect(open.stderr).toEqual(['thicket: the node ended the proxy: see its log']);
  });
});

test('outlet tells the node whom it is for and whose key calls', async () => {
  const from = '192.168.1.30,02:00:5e:10:00:01';
  const command = await start('outlet', '192.168.1.1:9000', 'csms.operator:9000', '--as', 'charger', '--from', from);
  await command.waitForLine(/^192\.168\.1\.1:9000 leads 192\.168\.1\.30,02:00:5e:10:00:01 to csms\.operator:9000 as charger$/);
  expect(host.calls).toEqual([['outlet', '192.168.1.1:9000', 'csms.operator:9000', 'charger', from]]);
  command.signal('SIGTERM');
  expect(await command.exit).toEqual({ code: 0, signal: null });
  await waitFor(() => host.held[0]?.aborted);
});

describe('which node', () => {
  test('--state and --socket name it; THICKET_STATE else', async () => {
    const elsewhere = { env: { THICKET_STATE: '/nowhere' } };
    expect(await shell.refused(['status'], elsewhere)).toBe(
      'no node answers on /nowhere/control.sock: start it with thicket up, or name its state with --state',
    );
    await shell.done(['status', '--state', shell.state], elsewhere);
    await shell.done(['status', '--socket', socket], elsewhere);
  });

  test('a node that has ended, or ends in the middle of an answer, is one line', async () => {
    await server.close();
    expect(await shell.refused(['status'])).toMatch(/^no node answers on /);
    const rude = createServer((connection) =>
      connection.once('data', () => connection.end('HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n{"sch')),
    );
    await new Promise<void>((resolve) => {
      rude.listen(shell.path('rude.sock'), resolve);
    });
    expect(await shell.refused(['status', '--socket', shell.path('rude.sock')])).toBe(
      'the node ended in the middle of its answer: see its log',
    );
    rude.removeAllListeners('connection').on('connection', (connection) => connection.once('data', () => connection.destroy()));
    expect(await shell.refused(['status', '--socket', shell.path('rude.sock')])).toBe('the node ended before it answered: see its log');
    await new Promise((resolve) => {
      rude.close(resolve);
    });
  });

  test('something else than a node on the socket is one line', async () => {
    await server.close();
    const other = createServer((connection) => connection.once('data', () => connection.end('220 smtp.example.org ESMTP\r\n')));
    await new Promise<void>((resolve) => {
      other.listen(socket, resolve);
    });
    expect(await shell.refused(['status'])).toMatch(/^(no node answers on|the node ended) /);
    await new Promise((resolve) => {
      other.close(resolve);
    });
  });

  test.each([
    ['no JSON', 400, 'application/json', '{"name":', 'no JSON document'],
    ['JSON of another type', 415, 'text/plain', '{"name":"camera"}', 'content-type must be application/json'],
    ['a body that is too long', 413, 'application/json', JSON.stringify({ name: 'x'.repeat(200_000) }), 'longer than 65536 bytes'],
    ['another key', 409, 'application/json', '{"name":"camera","__proto__":{}}', '__proto__'],
  ])('%s is answered with %i, and the node is not asked', async (_, status, type, body, says) => {
    const asked = request({ socketPath: socket, method: 'POST', path: '/v1/unexpose', headers: { 'content-type': type } });
    asked.end(body);
    const [response] = (await once(asked, 'response')) as [IncomingMessage];
    const answer = JSON.parse(Buffer.concat(await response.toArray()).toString()) as unknown;
    expect(response.statusCode).toBe(status);
    expect(answer).toEqual({ error: { code: 'BAD_ARGUMENT', message: expect.stringMatching(`^the request is malformed: .*${says}`) } });
    expect(host.calls).toEqual([]);
  });

  test('a path that this version knows and the node does not: another version', async () => {
    const client = new ControlClient(socket);
    await expect(client.call('GET', '/v1/future')).rejects.toThrow('is it another version?');
    await client.close();
  });
});

describe('bugs', () => {
  test('of the node end in one line and code 1', async () => {
    host.status = () => {
      throw new TypeError('cannot read\nthis');
    };
    expect(await shell.refused(['status'])).toBe('internal error in the node (cannot read this): report it with what was asked');
  });

  test('of the command end in one line; THICKET_DEBUG=1 adds where', async () => {
    host.tree = () => JSON.parse('{}');
    expect(await shell.refused(['tree'])).toMatch(/^internal error \(.*not iterable.*\): run it again with THICKET_DEBUG=1/);
    const { stderr } = await shell.thicket(['tree'], { env: { THICKET_DEBUG: '1' } });
    expect(stderr).toMatch(/^TypeError: .*not iterable.*\n {4}at /);
    expect(stderr.trimEnd().split('\n').at(-1)).toMatch(/^thicket: internal error /);
  });
});

describe('the control socket', () => {
  test('is for its owner only', () => {
    expect(statSync(socket).mode & 0o777).toBe(0o600);
  });

  test('leaves the umask of its process as it was, when two are opened at once, too', async () => {
    const before = process.umask(0o027);
    try {
      const both = await Promise.all(['one', 'two'].map((name) => openControl(shell.path(`state/${name}.sock`), () => host)));
      expect(process.umask()).toBe(0o027);
      expect(['one', 'two'].map((name) => statSync(shell.path(`state/${name}.sock`)).mode & 0o777)).toEqual([0o600, 0o600]);
      for (const one of both) await one.close();
    } finally {
      process.umask(before);
    }
  });

  test('is refused to a second node and taken over from a dead one', async () => {
    await expect(openControl(socket, () => host)).rejects.toMatchObject({ code: 'ALREADY_RUNNING' });
    await shell.done(['status']);
    const dead = shell.path('state/dead.sock');
    await shell.run([
      process.execPath,
      '-e',
      `require('node:net').createServer().listen('${dead}', () => process.kill(process.pid, 'SIGKILL'))`,
    ]);
    expect(existsSync(dead)).toBe(true);
    const second = await openControl(dead, () => host);
    await shell.done(['status', '--socket', dead]);
    await second.close();
  });

  test('never replaces a file that is no socket', async () => {
    const file = shell.path('state/precious');
    writeFileSync(file, 'data');
    symlinkSync('precious', shell.path('state/link'));
    for (const path of [file, shell.path('state/link'), shell.state]) {
      await expect(openControl(path, () => host)).rejects.toMatchObject({ code: 'NOT_WRITABLE' });
    }
    expect(statSync(file).size).toBe(4);
  });

  test('that cannot be made is one line with its path', async () => {
    const path = shell.path('no/such/folder/control.sock');
    await expect(openControl(path, () => host)).rejects.toMatchObject({ code: 'NOT_WRITABLE', message: expect.stringContaining(path) });
    const long = shell.path('x'.repeat(120));
    await expect(openControl(long, () => host)).rejects.toMatchObject({ code: 'NOT_WRITABLE' });
  });
});
