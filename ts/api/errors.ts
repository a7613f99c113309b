/** Errors of dialling and resolving, with the codes that programs know from Node.js. */
import { describe, type ErrorCode, isThicketError } from '../errors.js';
import type { OverlayErrorCode } from './types.js';

const CODES: Partial<Record<ErrorCode, OverlayErrorCode>> = {
  NOT_FOUND: 'ENOTFOUND',
  NO_ROUTE: 'ENOTFOUND',
  BAD_KEY: 'ENOTFOUND',
  UNKNOWN_NETWORK: 'ENOTFOUND',
  UNREACHABLE: 'ENETUNREACH',
  NO_PARENT: 'ENETUNREACH',
  TIMEOUT: 'ETIMEDOUT',
  UNTRUSTED: 'EACCES',
  DENIED: 'EACCES',
  REFUSED: 'EACCES',
  REVOKED: 'EACCES',
  EXPIRED: 'EACCES',
  CLOSING: 'ECANCELED',
  SESSION_CLOSED: 'ECONNRESET',
  POOL_EXHAUSTED: 'ENOBUFS',
  BAD_ARGUMENT: 'EINVAL',
};

const SOCKET_CODES: ReadonlySet<string> = new Set<OverlayErrorCode>([
  'ECONNREFUSED',
  'ECONNRESET',
  'ETIMEDOUT',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'ENOBUFS',
  'EACCES',
]);

/** What `dial` and `resolve` fail with. `message` is one line: what failed, and what to do. */
export class OverlayError extends Error {
  readonly code: OverlayErrorCode;
  readonly syscall: 'connect' | 'resolve';

  constructor(code: OverlayErrorCode, syscall: 'connect' | 'resolve', message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'OverlayError';
    this.code = code;
    this.syscall = syscall;
  }
}

/** Any error of the node's, as programs shall see it. */
export function overlayError(error: unknown, syscall: 'connect' | 'resolve', what: string): OverlayError {
  if (error instanceof OverlayError) return error;
  return new OverlayError(codeOf(error), syscall, `${what}: ${describe(error)}`, { cause: error });
}

function codeOf(error: unknown): OverlayErrorCode {
  if (isThicketError(error)) return CODES[error.code] ?? 'EFAULT';
  const code: unknown = typeof error === 'object' && error !== null ? Reflect.get(error, 'code') : undefined;
  return typeof code === 'string' && SOCKET_CODES.has(code) ? (code as OverlayErrorCode) : 'EFAULT';
}
