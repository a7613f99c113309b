/** The networks' owners: they make network keys and sign requests, by the CLI, on a machine that runs no node. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { LabError, run, thicketProgram } from '../lab/index.js';

export interface SignWhat {
  readonly name: string;
  readonly groups?: readonly string[];
  readonly delegate?: readonly string[];
  readonly rights?: readonly string[];
  readonly grants?: readonly string[];
  /** Further arguments of `network sign`, such as `--add`. */
  readonly more?: readonly string[];
}

export class Owner {
  readonly name: string;
  /** The network's folder; holds the network key. */
  readonly folder: string;
  /** `<network id>.<naming secret>`, as `networks:` wants it. */
  readonly network: string;
  /** Serials are counted in the folder: one signature after another. */
  #turn: Promise<unknown> = Promise.resolve();

  private constructor(name: string, folder: string, network: string) {
    this.name = name;
    this.folder = folder;
    this.network = network;
  }

  static async create(name: string, parent: string): Promise<Owner> {
    mkdirSync(parent, { recursive: true, mode: 0o700 });
    const folder = join(parent, name);
    const { stdout } = await thicket(['network', 'create', name, '--dir', folder]);
    const network = /\b[a-z2-7]{52}\.[a-z2-7]{26}\b/.exec(stdout)?.[0];
    if (network === undefined) throw new LabError(`thicket network create told no network with its naming secret:\n${stdout}`);
    return new Owner(name, folder, network);
  }

  /** The network's public key alone. */
  get id(): string {
    return this.network.slice(0, 52);
  }

  /** Signs a request; returns the file for `thicket join --certificate`. */
  sign(request: string, what: SignWhat): Promise<string> {
    const turn = this.#turn.then(() => this.#sign(request, what));
    this.#turn = turn.catch(() => undefined);
    return turn;
  }

  async #sign(request: string, what: SignWhat): Promise<string> {
    const base = join(this.folder, '..', `${this.name}-${what.name}`);
    writeFileSync(`${base}.request`, request, { mode: 0o600 });
    const options = [
      ...each('--group', what.groups),
      ...each('--delegate', what.delegate),
      ...each('--right', what.rights),
      ...each('--endpoint', what.grants),
      ...(what.more ?? []),
    ];
    const out = `${base}.certificate`;
    await thicket([
      'network',
      'sign',
      '--network',
      this.folder,
      '--request',
      `${base}.request`,
      '--name',
      what.name,
      ...options,
      '--out',
      out,
    ]);
    return out;
  }
}

function each(option: string, values: readonly string[] = []): string[] {
  return values.flatMap((value) => [option, value]);
}

const thicket = (args: readonly string[]): ReturnType<typeof run> => run([process.execPath, thicketProgram, ...args]);
