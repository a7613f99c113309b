/** The control API: HTTP and JSON on a Unix socket that only the node's own user may open. */
import { chmodSync, lstatSync, unlinkSync } from 'node:fs';
import { connect } from 'node:net';
import { type FastifyInstance, fastify } from 'fastify';
import { z } from 'zod';
import { describe, type ErrorCode, isThicketError, ThicketError } from '../errors.js';
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
}

const Name = z.strictObject({ name: z.string().max(300) });
const Rule = z.strictObject({ who: z.string().max(300), service: z.string().max(300) });
const Expose = z.strictObject({
  name: z.string().max(63),
  targets: z.array(z.string().max(300)).max(64),
  allow: z.array(z.string().max(300)).max(64),
  force: z.boolean(),
});
const Trust = z.strictObject({ key: z.string().max(100), trusted: z.boolean() });
const Forward = z.strictObject({ listen: z.string().max(100), to: z.string().max(300) });

const BODY_LIMIT = 64 * 1024;

export interface ControlServer {
  close(): Promise<void>;
}

/** `host` is asked per request, and may throw while there is none yet. Throws ALREADY_RUNNING when another node answers on the socket, NOT_WRITABLE when it can't be made. */
export async function openControl(socket: string, host: () => ControlHost): Promise<ControlServer> {
  await removeStale(socket);
  const app = fastify({ bodyLimit: BODY_LIMIT, forceCloseConnections: true });
  routes(app, host);
  app.setErrorHandler((error, _request, reply) => {
    const [status, code, message] = failure(error);
    void reply.status(status).send({ error: { code, message } });
  });
  // Before the umask changes: it is the whole process's, so it may hold for the making of the socket only.
  await app.ready();
  const umask = process.umask(0o177);
  try {
    await app.listen({ path: socket });
    chmodSync(socket, 0o600);
  } catch (error) {
    await app.close();
    throw new ThicketError(
      'NOT_WRITABLE',
      `the control socket ${socket} can't be made (${describe(error)}): choose another with control: { socket: … }`,
    );
  } finally {
    process.umask(umask);
  }
  return { close: () => app.close() };
}

/** HTTP status, code and line of an error: the node's own, of a request that fastify can't read, or a bug of ours. */
function failure(error: unknown): readonly [number, ErrorCode, string] {
  if (isThicketError(error)) return [409, error.code, error.message];
  const status = error instanceof Error && 'statusCode' in error ? error.statusCode : undefined;
  if (typeof status === 'number' && status < 500) return [status, 'BAD_ARGUMENT', `the request is malformed: ${describe(error)}`];
  return [500, 'INTERNAL', `internal error in the node (${describe(error)}): report it with what was asked`];
}

function routes(app: FastifyInstance, host: () => ControlHost): void {
  app.get('/v1/status', () => host().status());
  app.get('/v1/tree', () => host().tree());
  app.get('/v1/routes', () => host().routes());
  app.get('/v1/sessions', () => host().sessions());
  app.get('/v1/services', () => host().services());
  app.get('/v1/trust', () => host().trust());
  app.post('/v1/ping', ({ body }) => host().ping(read(Name, body).name));
  app.post('/v1/trace', ({ body }) => host().trace(read(Name, body).name));
  app.post('/v1/resolve', ({ body }) => host().resolve(read(Name, body).name));
  app.post('/v1/expose', async ({ body }) => {
    const { name, targets, allow, force } = read(Expose, body);
    await host().expose(name, targets, allow, force);
    return {};
  });
  app.post('/v1/unexpose', async ({ body }) => {
    await host().unexpose(read(Name, body).name);
    return {};
  });
  app.post('/v1/allow', async ({ body }) => {
    const { who, service } = read(Rule, body);
    await host().allow(who, service);
    return {};
  });
  app.post('/v1/deny', async ({ body }) => {
    const { who, service } = read(Rule, body);
    await host().deny(who, service);
    return {};
  });
  app.post('/v1/trust', async ({ body }) => {
    const { key, trusted } = read(Trust, body);
    await host().setTrust(key, trusted);
    return {};
  });
  app.post('/v1/reload', () => host().reload());
  app.post('/v1/forward', async ({ body, raw }, reply) => {
    const { listen, to } = read(Forward, body);
    const gone = new AbortController();
    raw.socket.once('close', () => gone.abort());
    const address = await host().forward(listen, to, gone.signal);
    // The answer stays open for as long as the forward shall live: who asked ends it by hanging up.
    reply.hijack();
    reply.raw.writeHead(200, { 'content-type': 'application/json' });
    reply.raw.write(`${JSON.stringify({ listen: address })}\n`);
  });
}

function read<T>(schema: z.ZodType<T>, body: unknown): T {
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
