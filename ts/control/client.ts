/** The other end of the control API, for the CLI. */
import { Client } from 'undici';
import { z } from 'zod';
import { type ErrorCode, ThicketError } from '../errors.js';

const Failure = z.object({ error: z.object({ code: z.string(), message: z.string() }) });

export class ControlClient {
  readonly #socket: string;
  readonly #client: Client;

  constructor(socket: string) {
    this.#socket = socket;
    this.#client = new Client('http://thicket', { socketPath: socket, headersTimeout: 60_000, bodyTimeout: 0 });
  }

  /** Throws NOT_RUNNING when no node answers, or what the node threw. `T` is the document that the path is known to give. */
  async call<T>(method: 'GET' | 'POST', path: string, body?: unknown): Promise<T> {
    const response = await this.#request(method, path, body);
    const document: unknown = await response.body.json();
    if (response.statusCode !== 200) throw failure(document);
    return document as T;
  }

  /** Asks for a forward; resolves with its address. It lives until `close`. `ended` settles when the node ends it. */
  async forward(listen: string, to: string): Promise<{ readonly listen: string; readonly ended: Promise<void> }> {
    const response = await this.#request('POST', '/v1/forward', { listen, to });
    if (response.statusCode !== 200) throw failure(await response.body.json());
    return new Promise((resolve, reject) => {
      let text = '';
      const ended = new Promise<void>((done) => {
        response.body.once('close', done);
      });
      response.body.once('error', () => {});
      response.body.on('data', (chunk: Buffer) => {
        text += chunk.toString();
        if (!text.includes('\n')) return;
        resolve({ listen: z.object({ listen: z.string() }).parse(JSON.parse(text)).listen, ended });
      });
      void ended.then(() => reject(new ThicketError('NOT_RUNNING', 'the node ended the forward: see its log')));
    });
  }

  async close(): Promise<void> {
    await this.#client.destroy();
  }

  async #request(method: 'GET' | 'POST', path: string, body: unknown): ReturnType<Client['request']> {
    const json = body === undefined ? {} : { body: JSON.stringify(body), headers: { 'content-type': 'application/json' } };
    try {
      return await this.#client.request({ method, path, ...json });
    } catch (cause) {
      throw new ThicketError(
        'NOT_RUNNING',
        `no node answers on ${this.#socket}: start it with thicket up, or name its state with --state`,
        { cause },
      );
    }
  }
}

function failure(document: unknown): ThicketError {
  const parsed = Failure.safeParse(document);
  if (!parsed.success)
    return new ThicketError('INTERNAL', 'the node answered with something else than this version expects: is it another version?');
  return new ThicketError(parsed.data.error.code as ErrorCode, parsed.data.error.message);
}
