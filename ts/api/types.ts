/** The words of the programmatic API. What a program sees of Thicket stands here, in ts/api/node.ts and in ts/api/network.ts; it depends on Node.js alone. */
import type { Duplex } from 'node:stream';

/** thicket.yaml as an object: `thicket config example` says what each key means, and its default; `interface.mode` is `userspace` here unless told otherwise. */
export interface NodeConfig {
  readonly listen?: readonly string[] | undefined;
  readonly parents?: readonly string[] | undefined;
  readonly relay?:
    | {
        readonly for?: 'any' | 'none' | readonly string[] | undefined;
        readonly children?: number | undefined;
        readonly descendants?: number | undefined;
        readonly endpoints?: number | undefined;
      }
    | undefined;
  readonly allow_unrelayed?: boolean | undefined;
  readonly interface?:
    | {
        readonly name?: string | undefined;
        readonly mode?: 'auto' | 'tun' | 'userspace' | undefined;
        readonly ipv4?: string | undefined;
        readonly ipv6?: string | undefined;
        readonly offload?: 'auto' | 'off' | undefined;
        readonly aead?: 'auto' | 'ring' | undefined;
        readonly threads?: 'auto' | number | undefined;
      }
    | undefined;
  readonly dns?:
    | { readonly domain?: string | undefined; readonly port?: number | undefined; readonly ttl?: string | undefined }
    | undefined;
  readonly networks?: Readonly<Record<string, string>> | undefined;
  readonly trust?: readonly ({ readonly network: string } | { readonly node: string })[] | undefined;
  readonly session?: { readonly rekey?: string | undefined } | undefined;
  readonly endpoints?: readonly EndpointConfig[] | undefined;
  readonly forwards?: readonly { readonly listen: string; readonly to: string }[] | undefined;
  readonly proxies?: readonly { readonly listen: string; readonly open?: boolean | undefined }[] | undefined;
  readonly outlets?:
    | readonly {
        readonly listen: string;
        readonly to: string;
        readonly as: string;
        readonly from: { readonly ip: string; readonly mac?: string | undefined };
      }[]
    | undefined;
  readonly control?: { readonly socket?: string | undefined } | undefined;
  readonly log?: { readonly level?: LogLevel | undefined } | undefined;
}

export interface EndpointConfig {
  readonly name: string;
  readonly groups?: readonly string[] | undefined;
  readonly services?:
    | readonly {
        readonly port: string;
        readonly proto?: 'rtsp' | null | undefined;
        readonly target: string;
        readonly allow?: readonly string[] | undefined;
        readonly force?: boolean | undefined;
      }[]
    | undefined;
}

export type LogLevel = 'debug' | 'info' | 'warn' | 'error';

/** A node's state directory: its key, its certificate, and what it must not forget. */
export interface StateOptions {
  /** Made, for its owner alone, where it isn't there. One node at a time uses it. */
  readonly state: string;
}

export interface OpenOptions extends StateOptions {
  readonly config: NodeConfig;
  /** Takes the log, line by line, from `config.log.level` on (`info`). Default: nobody does. */
  readonly onLog?: (line: LogLine) => void;
}

export interface LogLine {
  readonly level: LogLevel;
  readonly message: string;
}

/** What a node asks the owner of its network for. */
export interface SigningRequest {
  readonly key: string;
  /** For `Network.certify`, or `thicket network sign --request`. */
  readonly request: string;
}

export interface Membership {
  /** Under which the network certified the node. */
  readonly name: string;
  /** The network's id. */
  readonly network: string;
  readonly notAfter: Date;
}

/** A service: `camera.home.thicket:554` (the domain may be left out), or its parts. */
export type Target = string | { readonly name: string; readonly port: number };

export interface DialOptions {
  /** Destroys the stream when it aborts. */
  readonly signal?: AbortSignal;
}

/** Who a name, or a key, is. */
export interface Resolved {
  readonly key: string;
  /** The name in its certificate, and the network that signed that. */
  readonly name: string;
  readonly network: string;
  /** By which this node knows it; they mean nothing on any other. */
  readonly ipv4: string;
  readonly ipv6: string | undefined;
}

export interface ListenOptions {
  /** The endpoint's name: one DNS label. The node's certificate must have the right `gateway`. */
  readonly endpoint: string;
  /** TCP, 1 to 65,535. */
  readonly port: number;
  /** Who may call: `group:family`, `node:KEY`, `name:NAME`, `network:KEY`, `anyone-trusted`. Default: nobody. */
  readonly allow?: readonly string[];
}

export interface Caller {
  readonly key: string;
  /** The name in its certificate, and the network that signed that. */
  readonly name: string;
  readonly network: string;
  readonly groups: readonly string[];
}

/** Takes a caller's stream, which is connected. It errors as a socket does: listen to `error` from the start, or callers who hang up end the program. */
export type OnStream = (stream: Duplex, caller: Caller) => void;

export interface Listener {
  /** Ends the service, and the streams that came by it with a reset. */
  close(): Promise<void>;
}

/** `code` of an error of `dial` and `resolve`. `cause` has what Thicket itself says, where it says something. */
export type OverlayErrorCode =
  | 'ECONNREFUSED'
  | 'ECONNRESET'
  | 'ETIMEDOUT'
  | 'EHOSTUNREACH'
  | 'ENETUNREACH'
  | 'ENOBUFS'
  /** Nobody has that name. */
  | 'ENOTFOUND'
  /** One end doesn't trust the other, or the name is this node's own. */
  | 'EACCES'
  /** The node closes. */
  | 'ECANCELED'
  | 'EINVAL'
  /** All else: see `cause`. */
  | 'EFAULT';
