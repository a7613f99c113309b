/** The compiled `thicket` command for tests: run to its end, with every byte that it prints kept. */
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { thicketProgram } from '../lab/index.js';

export { type FakeHost, fakeHost, keyOf } from './fake-host.js';

export interface Ran {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  readonly env?: Readonly<Record<string, string>>;
  readonly stdin?: string;
}

/** A user's shell: a folder, a state directory, and what was ever printed. */
export class Shell {
  readonly folder = mkdtempSync(join(tmpdir(), 'thicket-cli-'));
  readonly state = join(this.folder, 'state');
  readonly #printed: Buffer[] = [];

  path(...parts: string[]): string {
    return join(this.folder, ...parts);
  }

  /** All that any command printed, byte by byte. */
  get printed(): Buffer {
    return Buffer.concat(this.#printed);
  }

  /** Runs `thicket ARGS` in the folder, with the state directory in the environment. */
  thicket(args: readonly string[], options: RunOptions = {}): Promise<Ran> {
    return this.run([process.execPath, thicketProgram, ...args], options);
  }

  run([program = '', ...args]: readonly string[], options: RunOptions = {}): Promise<Ran> {
    const { NODE_OPTIONS: _, ...env } = process.env;
    const child = spawn(program, args, { cwd: this.folder, env: { ...env, THICKET_STATE: this.state, ...options.env } });
    const [out, err]: [Buffer[], Buffer[]] = [[], []];
    child.stdout.on('data', (chunk: Buffer) => out.push(chunk));
    child.stderr.on('data', (chunk: Buffer) => err.push(chunk));
    // A command that doesn't read its input may have ended before it is written.
    child.stdin.on('error', () => {});
    child.stdin.end(options.stdin ?? '');
    return new Promise((resolve, reject) => {
      child.once('error', reject);
      child.once('close', (code) => {
        this.#printed.push(...out, ...err);
        resolve({ code, stdout: Buffer.concat(out).toString(), stderr: Buffer.concat(err).toString() });
      });
    });
  }

  /** Runs a command that must succeed, quietly; returns what it printed. */
  async done(args: readonly string[], options: RunOptions = {}): Promise<string> {
    const ran = await this.thicket(args, options);
    expect({ ...ran, stdout: '' }).toEqual({ code: 0, stdout: '', stderr: '' });
    return ran.stdout;
  }

  /** Runs a command that must be refused with one line on stderr, which is returned, and nothing on stdout. */
  async refused(args: readonly string[], options: RunOptions = {}, code = 1): Promise<string> {
    const ran = await this.thicket(args, options);
    expect({ ...ran, stderr: '' }).toEqual({ code, stdout: '', stderr: '' });
    expect(ran.stderr).toMatch(/^thicket: [^\n]+: [^\n]+\n$/);
    return ran.stderr.slice('thicket: '.length, -1);
  }

  remove(): void {
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** Every form in which 32 secret bytes might be printed. */
export function secretForms(secret: Uint8Array): Buffer[] {
  const bytes = Buffer.from(secret);
  const texts = [bytes.toString('hex'), bytes.toString('hex').toUpperCase(), base32(bytes), base32(bytes).toUpperCase()];
  // Within something longer, base64 has three alignments; the characters at the seams depend on the neighbours.
  for (const shift of [0, 1, 2]) {
    const text = Buffer.concat([Buffer.alloc(shift), bytes])
      .toString('base64')
      .replace(/=+$/, '');
    const inner = text.slice(shift === 0 ? 0 : shift + 1, -1);
    texts.push(inner, inner.replaceAll('+', '-').replaceAll('/', '_'));
  }
  return [bytes, Buffer.from([...bytes].join(',')), ...texts.map((text) => Buffer.from(text))];
}

function base32(bytes: Uint8Array): string {
  let bits = [...bytes].map((byte) => byte.toString(2).padStart(8, '0')).join('');
  bits = bits.padEnd(Math.ceil(bits.length / 5) * 5, '0');
  return (bits.match(/.{5}/g) ?? []).map((five) => 'abcdefghijklmnopqrstuvwxyz234567'[Number.parseInt(five, 2)]).join('');
}
