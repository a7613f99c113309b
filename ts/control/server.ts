/** The control API: HTTP and JSON on a Unix socket that only the node's own user may open. */
import { once } from 'node:events';
import { chmodSync, lstatSync, unlinkSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { connect } from 'node:net';
import { describe, type ErrorCode, isThicketError, ThicketError } from '../errors.js';
import * as z from '../zod.js';
import type {
  PingDocument,
  ReloadDocument,
  ResolveDocument,
  RouteDocument,
  ServiceDocument,
  SessionDocument,
  StatusDocument,
  TraceDocument,
  TreeDocument,
} from './documents.js';

/** What the API can ask of the node. Each may throw a ThicketError, which the caller gets as it is. */
export interface ControlHost {
  status(): StatusDocument;
  tree(): TreeDocument;
  routes(): readonly RouteDocument[];
  sessions(): readonly SessionDocument[];
  services(): readonly ServiceDocument[];
  trust(): readonly string[];
  ping(name: string): Promise<PingDocument>;
  trace(name: string): Promise<TraceDocument>;
  resolve(name: string): Promise<ResolveDocument>;
  expose(name: string, targets: readonly string[], allow: readonly string[], force: boolean): Promise<void>;
  unexpose(name: string): Promise<void>;
  allow(who: string, service: string): Promise<void>;
  deny(who: string, service: string): Promise<void>;
  setTrust(key: string, trusted: boolean): Promise<void>;
  reload(): Promise<ReloadDocument>;
  /** Forwards until `signal` aborts; resolves with the address once it listens. */
  forward(listen: string, to: string, signal: AbortSignal): Promise<string>;
  /** A SOCKS5 proxy until `signal` aborts; resolves with the address once it listens. `open`: on an address that other hosts reach, too. */
  proxy(listen: string, open: boolean, signal: AbortSignal): Promise<string>;
  /** An outlet until `signal` aborts; resolves with the address once it listens. `from` is `IP[,MAC]`. */
  outlet(listen: string, to: string, as: string, from: string, signal: AbortSignal): Promise<string>;
}

const text = (most: number) => z.string().check(z.maxLength(most));
const Name = z.strictObject({ name: text(300) });
const Rule = z.strictObject({ who: text(300), service: text(300) });
const Expose = z.strictObject({
  name: text(63),
  targets: z.array(text(300)).check(z.maxLength(64)),
  allow: z.array(text(300)).check(z.maxLength(64)),
  force: z.boolean(),
});
const Trust = z.strictObject({ key: text(100), trusted: z.boolean() });
const Forward = z.strictObject({ listen: text(100), to: text(300) });
const Outlet = z.strictObject({ listen: text(100), to: text(300), as: text(63), from: text(100) });
const ProxyAsked = z.strictObject({ listen: text(100), open: z.boolean() });

const BODY_LIMIT = 64 * 1024;

export interface ControlServer {
  close(): Promise<void>;
}

interface Request {
  readonly body: unknown;
  /** For an answer that stays open. */
  readonly response: ServerResponse;
}

/** What answers a request; undefined when it has answered by itself. */
type Handler = (host: ControlHost, request: Request) => unknown;

/**
 * `host` is asked per request, and may throw while there is none yet. Throws ALREADY_RUNNING when another node answers on the socket, NOT_WRITABLE when it
 * can't be made. On node:http alone: a web framework with its own schema compiler and logger takes several times the memory of all that a relay decides.
 */
export async function openControl(socket: string, host: () => ControlHost): Promise<ControlServer> {
  await removeStale(socket);
  const server = createServer((request, response) => void answer(host, request, response));
  try {
    const listening = once(server, 'listening');
    // The umask is the whole process's, so it holds for the making of the socket only, which is done when `listen` returns: a second node in this process
    // that began meanwhile would find ours, and leave it behind.
    const umask = process.umask(0o177);
    try {
      server.listen(socket);
    } finally {
      process.umask(umask);
    }
    await listening;
    chmodSync(socket, 0o600);
  } catch (error) {
    server.close();
    throw new ThicketError(
      'NOT_WRITABLE',
      `the control socket ${socket} can't be made (${describe(error)}): choose another with control: { socket: … }`,
    );
  }
  return {
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

async function answer(host: () => ControlHost, request: IncomingMessage, response: ServerResponse): Promise<void> {
  try {
    const handler = ROUTES.get(`${request.method} ${request.url}`);
    if (handler === undefined) throw new BadRequest(404, `the node knows no ${request.method} ${request.url}: is it another version?`);
    const body = request.method === 'POST' ? await readBody(request) : undefined;
    const document = await handler(host(), { body, response });
    if (document !== undefined) reply(response, 200, document);
  } catch (error) {
    const [status, code, message] = failure(error);
    reply(response, status, { error: { code, message } });
  }
}

function reply(response: ServerResponse, status: number, document: unknown): void {
  const text = Buffer.from(JSON.stringify(document));
  response.writeHead(status, { 'content-type': 'application/json; charset=utf-8', 'content-length': text.length }).end(text);
}

/** A request that can't be read, and the HTTP status that says why. */
class BadRequest extends ThicketError {
  readonly status: number;

  constructor(status: number, what: string) {
    super('BAD_ARGUMENT', what);
    this.status = status;
  }
}

/** A request's JSON document, undefined without one. Nothing above the limit is kept, but all is read: else the caller wouldn't hear the answer. */
async function readBody(request: IncomingMessage): Promise<unknown> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size <= BODY_LIMIT) chunks.push(chunk);
  }
  if (size > BODY_LIMIT) throw new BadRequest(413, `the request is malformed: its body is longer than ${BODY_LIMIT} bytes`);
  if (size === 0) return undefined;
  if (!/^application\/json\s*(;|$)/i.test(request.headers['content-type'] ?? '')) {
    throw new BadRequest(415, 'the request is malformed: its content-type must be application/json');
  }
  try {
    return JSON.parse(Buffer.concat(chunks).toString());
  } catch {
    throw new BadRequest(400, 'the request is malformed: its body is no JSON document');
  }
}

/** HTTP status, code and line of an error: the node's own, of a request that can't be read, or a bug of ours. */
function failure(error: unknown): readonly [number, ErrorCode, string] {
  if (error instanceof BadRequest) return [error.status, error.code, error.message];
  if (isThicketError(error)) return [409, error.code, error.message];
  return [500, 'INTERNAL', `internal error in the node (${describe(error)}): report it with what was asked`];
}

const ROUTES: ReadonlyMap<string, Handler> = new Map<string, Handler>([
  ['GET /v1/status', (host) => host.status()],
  ['GET /v1/tree', (host) => host.tree()],
  ['GET /v1/routes', (host) => host.routes()],
  ['GET /v1/sessions', (host) => host.sessions()],
  ['GET /v1/services', (host) => host.services()],
  ['GET /v1/trust', (host) => host.trust()],
  ['POST /v1/ping', (host, { body }) => host.ping(read(Name, body).name)],
  ['POST /v1/trace', (host, { body }) => host.trace(read(Name, body).name)],
  ['POST /v1/resolve', (host, { body }) => host.resolve(read(Name, body).name)],
  [
    'POST /v1/expose',
    async (host, { body }) => {
      const { name, targets, allow, force } = read(Expose, body);
      await host.expose(name, targets, allow, force);
      return {};
    },
  ],
  [
    'POST /v1/unexpose',
    async (host, { body }) => {
      await host.unexpose(read(Name, body).name);
      return {};
    },
  ],
  [
    'POST /v1/allow',
    async (host, { body }) => {
      const { who, service } = read(Rule, body);
      await host.allow(who, service);
      return {};
    },
  ],
  [
    'POST /v1/deny',
    async (host, { body }) => {
      const { who, service } = read(Rule, body);
      await host.deny(who, service);
      return {};
    },
  ],
  [
    'POST /v1/trust',
    async (host, { body }) => {
      const { key, trusted } = read(Trust, body);
      await host.setTrust(key, trusted);
      return {};
    },
  ],
  ['POST /v1/reload', (host) => host.reload()],
  [
    'POST /v1/forward',
    (host, { body, response }) => {
      const { listen, to } = read(Forward, body);
      return hold(response, (signal) => host.forward(listen, to, signal));
    },
  ],
  [
    'POST /v1/proxy',
    (host, { body, response }) => {
      const { listen, open } = read(ProxyAsked, body);
      return hold(response, (signal) => host.proxy(listen, open, signal));
    },
  ],
  [
    'POST /v1/outlet',
    (host, { body, response }) => {
      const { listen, to, as, from } = read(Outlet, body);
      return hold(response, (signal) => host.outlet(listen, to, as, from, signal));
    },
  ],
]);

/** The answer stays open for as long as what was asked for shall live: who asked ends it by hanging up. */
async function hold(response: ServerResponse, open: (signal: AbortSignal) => Promise<string>): Promise<void> {
  const gone = new AbortController();
  response.once('close', () => gone.abort());
  const listen = await open(gone.signal);
  response.writeHead(200, { 'content-type': 'application/json' });
  response.write(`${JSON.stringify({ listen })}\n`);
}

function read<T>(schema: z.ZodMiniType<T>, body: unknown): T {
  const parsed = schema.safeParse(body);
  if (!parsed.success) throw new ThicketError('BAD_ARGUMENT', `the request is malformed: ${parsed.error.issues[0]?.message ?? ''}`);
  return parsed.data;
}

async function removeStale(socket: string): Promise<void> {
  const found = lstatSync(socket, { throwIfNoEntry: false });
  if (found === undefined) return;
  if (!found.isSocket()) {
    throw new ThicketError('NOT_WRITABLE', `${socket} is no socket and is left alone: choose another with control: { socket: … }`);
  }
  const alive = await new Promise<boolean>((resolve) => {
    const probe = connect(socket, () => {
      probe.destroy();
      resolve(true);
    });
    probe.once('error', () => resolve(false));
  });
  if (alive) throw new ThicketError('ALREADY_RUNNING', `a node answers on ${socket} already: stop it first`);
  unlinkSync(socket);
}
