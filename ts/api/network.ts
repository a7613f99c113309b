/** A network, as its owner keeps it: the key that certifies nodes. It belongs on no node. */
import { parseDuration } from '../config/index.js';
import { ThicketError } from '../errors.js';
import { decodeRequest, encodeBundle, formatNetworkRef, NetworkFolder, type Right } from '../trust/index.js';

export interface NetworkOptions {
  /** Where its key is kept. */
  readonly folder: string;
}

export interface CertifyOptions {
  /** The node's name, one DNS label. */
  readonly name: string;
  /** Groups that it is in, and groups that it may put its endpoints in. */
  readonly groups?: readonly string[];
  readonly delegate?: readonly string[];
  readonly rights?: readonly ('gateway' | 'relay' | 'enroll')[];
  /** Short endpoint names that it may use as their gateway, which gives it the right `gateway`. Other gateways that had them lose them, unless `add`. */
  readonly endpoints?: readonly string[];
  readonly add?: boolean;
  /** For how long: `365d` (the default), `12h`. */
  readonly expires?: string;
  /** This computer's clock is right, though the last signature is more than a day ago. */
  readonly dateOk?: boolean;
}

const DAY_MS = 86_400_000;

export class Network {
  readonly #folder: NetworkFolder;

  private constructor(folder: NetworkFolder) {
    this.#folder = folder;
  }

  /** Makes a network in a new folder. Throws a ThicketError: EXISTS where there is one. */
  static async create({ folder, name }: NetworkOptions & { readonly name: string }): Promise<Network> {
    return new Network(NetworkFolder.create(folder, name));
  }

  /** Throws a ThicketError: NO_KEY where there is none. */
  static async open({ folder }: NetworkOptions): Promise<Network> {
    return new Network(NetworkFolder.open(folder));
  }

  /** 52 characters, public: who trusts the network is told this. */
  get id(): string {
    return this.#folder.ref.key;
  }

  /** The id with the naming secret, for `networks:` of those who shall find its names. */
  get withNamingSecret(): string {
    return formatNetworkRef(this.#folder.ref);
  }

  get name(): string {
    return this.#folder.name;
  }

  /** Certifies a node's request, of `Node.init` or `thicket node request`; resolves with what `Node.join` takes. Throws a ThicketError. */
  async certify(request: string, options: CertifyOptions): Promise<string> {
    const { name, groups = [], delegate = [], rights = [], endpoints = [], add = false, dateOk = false, expires = '365d' } = options;
    const bundle = this.#folder.sign(decodeRequest(request), {
      name,
      groups,
      delegable: delegate,
      rights: rights.map(checkRight),
      endpoints,
      add,
      dateOk,
      expiresInSeconds: Math.floor(parseDuration(expires, 60_000, 36_500 * DAY_MS) / 1_000),
      now: Math.floor(Date.now() / 1_000),
    });
    return encodeBundle(bundle);
  }
}

const RIGHTS: readonly Right[] = ['gateway', 'relay', 'enroll'];

function checkRight(right: Right): Right {
  if (RIGHTS.includes(right)) return right;
  throw new ThicketError('BAD_ARGUMENT', `"${right}" is not a right: use one of ${RIGHTS.join(', ')}`);
}
