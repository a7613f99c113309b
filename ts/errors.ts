/**
 * Errors that a user may meet: a stable code, and one line that says what failed and what to do.
 */

const brand = Symbol.for('thicket.error');

export type ErrorCode =
  | 'ADDRESS_IN_USE'
  | 'ALREADY_RUNNING'
  | 'BACKEND_UNAVAILABLE'
  | 'BAD_ARGUMENT'
  | 'BAD_CERTIFICATE'
  | 'BAD_CONFIG'
  | 'BAD_ENCODING'
  | 'BAD_HANDSHAKE'
  | 'BAD_KEY'
  | 'BAD_REQUEST'
  | 'BAD_SIGNATURE'
  | 'BAD_STATE'
  | 'BUSY'
  | 'CLOSING'
  | 'DATA_PLANE'
  | 'DENIED'
  | 'EXISTS'
  | 'EXPIRED'
  | 'INTERNAL'
  | 'LAX_PERMISSIONS'
  | 'NETLINK'
  | 'NFT_FAILED'
  | 'NFT_MISSING'
  | 'NO_CERTIFICATE'
  | 'NO_KEY'
  | 'NO_PARENT'
  | 'NO_PRIVILEGE'
  | 'NO_ROUTE'
  | 'NO_TUN'
  | 'NOT_FOUND'
  | 'NOT_RUNNING'
  | 'NOT_WRITABLE'
  | 'POOL_EXHAUSTED'
  | 'POOL_ROUTED'
  | 'REFUSED'
  | 'REVOKED'
  | 'SESSION_CLOSED'
  | 'TIMEOUT'
  | 'TOO_LONG'
  | 'UNKNOWN_NETWORK'
  | 'UNREACHABLE'
  | 'UNTRUSTED'
  | 'WRONG_KEY';

/**
 * A text without what is, or may be, a naming secret: messages repeat what was written, go to logs, and a slip of the pen must not bring it there.
 * It stands behind a network id, or alone with its 26 characters.
 */
export function withoutSecrets(text: string): string {
  return text.replace(/([a-z2-7]{52})\.[a-z2-7]{20,}/gi, '$1.…').replace(/(?<![\w./-])[a-z2-7]{26}(?![a-z2-7])/gi, '…');
}

/** What Thicket throws. `message` is one line: what failed, a colon, what to do; naming secrets are taken out. */
export class ThicketError extends Error {
  readonly code: ErrorCode;
  readonly [brand] = true;

  constructor(code: ErrorCode, message: string, options?: ErrorOptions) {
    super(withoutSecrets(message), options);
    this.name = 'ThicketError';
    this.code = code;
  }
}

/** Whether `error` is a ThicketError, of this or another copy of the package. */
export function isThicketError(error: unknown): error is ThicketError {
  return typeof error === 'object' && error !== null && brand in error;
}

/** One line about any error, for logs and the terminal. */
export function describe(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
