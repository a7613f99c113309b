/** The other end of the control API, for the CLI. Spoken with node:http alone: an HTTP client from npm takes longer to load than the question. */
import { type ClientRequest, type IncomingMessage, request } from 'node:http';
import { type ErrorCode, ThicketError } from '../errors.js';

/** Milliseconds until an answer must have begun: the slowest questions (a ping through a tree that is coming up) take a few seconds. */
const PATIENCE = 60_000;

/** What lives until the client is closed. */
export interface Held {
  /** Where it listens. */
  readonly listen: string;
  /** Settles when the node ends it. */
  readonly ended: Promise<void>;
}

export class ControlClient {
  readonly #socket: string;
  readonly #open = new Set<ClientRequest>();

  constructor(socket: string) {
    this.#socket = socket;
  }

  /** Throws NOT_RUNNING when no node answers, or what the node threw. `T` is the document that the path is known to give. */
  async call<T>(method: 'GET' | 'POST', path: string, body?: unknown): Promise<T> {
    const response = await this.#request(method, path, body);
    let text = '';
    response.setEncoding('utf8');
    try {
      for await (const chunk of response) text += chunk;
    } catch (cause) {
      throw new ThicketError('NOT_RUNNING', 'the node ended in the middle of its answer: see its log', { cause });
    }
    const document = parse(text);
    if (response.statusCode !== 200 || document === undefined) throw failure(document);
    return document as T;
  }

  /** Asks for a forward. */
  forward(listen: string, to: string): Promise<Held> {
    return this.#hold('forward', { listen, to });
  }

  /** Asks for a SOCKS5 proxy. */
  proxy(listen: string, open: boolean): Promise<Held> {
    return this.#hold('proxy', { listen, open });
  }

  /** Asks for an outlet; `from` is `IP[,MAC]`. */
  outlet(listen: string, to: string, as: string, from: string): Promise<Held> {
    return this.#hold('outlet', { listen, to, as, from });
  }

  async #hold(what: string, body: unknown): Promise<Held> {
    const response = await this.#request('POST', `/v1/${what}`, body);
    return new Promise((resolve, reject) => {
      let text = '';
      const ended = new Promise<void>((done) => {
        response.once('close', done);
      });
      response.on('error', () => {});
      response.setEncoding('utf8');
      response.on('data', (chunk: string) => {
        text += chunk;
        if (response.statusCode !== 200 || !text.includes('\n')) return;
        const document = parse(text);
        if (isRecord(document) && typeof document['listen'] === 'string') resolve({ listen: document['listen'], ended });
        else reject(failure(document));
      });
      void ended.then(() => {
        if (response.statusCode === 200) reject(new ThicketError('NOT_RUNNING', `the node ended the ${what}: see its log`));
        else reject(failure(parse(text)));
      });
    });
  }

  async close(): Promise<void> {
    for (const open of this.#open) open.destroy();
  }

  #request(method: 'GET' | 'POST', path: string, body: unknown): Promise<IncomingMessage> {
    const json = body === undefined ? undefined : JSON.stringify(body);
    const headers = json === undefined ? {} : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(json) };
    return new Promise((resolve, reject) => {
      const asked = request({ socketPath: this.#socket, method, path, headers, agent: false });
      const timer = setTimeout(() => {
        reject(new ThicketError('TIMEOUT', `the node didn't answer within ${PATIENCE / 1_000} s: see its log`));
        asked.destroy();
      }, PATIENCE);
      this.#open.add(asked);
      asked.once('response', (response) => {
        clearTimeout(timer);
        resolve(response);
      });
      asked.on('error', (error: NodeJS.ErrnoException) => {
        clearTimeout(timer);
        reject(unreachable(this.#socket, error));
      });
      asked.once('close', () => this.#open.delete(asked));
      asked.end(json);
    });
  }
}

function unreachable(socket: string, cause: NodeJS.ErrnoException): ThicketError {
  switch (cause.code) {
    case 'EACCES':
    case 'EPERM':
      return new ThicketError('NO_PRIVILEGE', `the node's socket ${socket} can't be opened: use the user that runs the node`, { cause });
    case 'ECONNRESET':
      return new ThicketError('NOT_RUNNING', 'the node ended before it answered: see its log', { cause });
    default:
      return new ThicketError('NOT_RUNNING', `no node answers on ${socket}: start it with thicket up, or name its state with --state`, {
        cause,
      });
  }
}

const isRecord = (value: unknown): value is Record<string, unknown> => typeof value === 'object' && value !== null;

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function failure(document: unknown): ThicketError {
  const error = isRecord(document) ? document['error'] : undefined;
  if (!isRecord(error) || typeof error['code'] !== 'string' || typeof error['message'] !== 'string') {
    return new ThicketError('INTERNAL', 'the node answered with something else than this version expects: is it another version?');
  }
  return new ThicketError(error['code'] as ErrorCode, error['message']);
}
