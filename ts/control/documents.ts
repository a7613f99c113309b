/** The JSON documents of the control API and of `--json`. Others script against them: keys are added, never renamed; `schema` rises when a meaning changes. */

export const SCHEMA = 1;

export interface LinkDocument {
  readonly key: string;
  readonly role: 'parent' | 'child';
  readonly state: 'up' | 'connecting';
  readonly rttMs: number | null;
  readonly rxBytes: number;
  readonly txBytes: number;
}

export interface SessionDocument {
  /** The far end's key, and ours: the node's own or an endpoint's. */
  readonly key: string;
  readonly own: string;
  readonly name: string;
  readonly network: string;
  readonly state: 'dialing' | 'up' | 'lost';
  /** Links on the way; null until measured. */
  readonly hops: number | null;
  /** Bytes of the longest IP packet that the path carries from here, as the first link sees it; null before anything long was sent. */
  readonly pathMtu: number | null;
  readonly rxBytes: number;
  readonly txBytes: number;
  readonly rekeys: number;
  readonly flows: number;
  readonly ageSeconds: number;
  /** Local addresses that stand for the far end here. */
  readonly addresses: readonly string[];
  /** What the far end lets us reach, such as `tcp/554`. */
  readonly offered: readonly string[];
  /** What we let the far end reach. */
  readonly allowed: readonly string[];
  /** Our flows that the far end refused last. */
  readonly denied: readonly string[];
}

export interface ServiceDocument {
  readonly name: string;
  readonly port: string;
  /** `off`: not reachable for the reason in `reason`. `unknown`: not measured yet, or UDP. */
  readonly state: 'up' | 'down' | 'off' | 'unknown';
  readonly reason: string | null;
  readonly device: string;
  readonly rtsp: boolean;
  readonly allow: readonly string[];
  readonly key: string;
  readonly payloadBytes: number;
  readonly overheadBytes: number;
}

export interface RouteDocument {
  readonly key: string;
  readonly parent: string;
  /** The child of ours that it is reached through. */
  readonly via: string;
  readonly endpoint: boolean;
}

export interface TreeNodeDocument {
  readonly key: string;
  readonly endpoint: boolean;
  readonly children: readonly TreeNodeDocument[];
}

export interface TreeDocument {
  readonly schema: number;
  readonly parents: readonly { readonly key: string; readonly state: 'up' | 'connecting' }[];
  readonly node: TreeNodeDocument;
}

export interface StatusDocument {
  readonly schema: number;
  readonly version: string;
  readonly backend: string;
  /** One line: why it isn't the better one. Null for the best. */
  readonly backendShortfall: string | null;
  readonly node: { readonly key: string; readonly name: string | null; readonly network: string | null };
  readonly state: 'up' | 'connecting';
  readonly listen: readonly string[];
  readonly allowUnrelayed: boolean;
  readonly links: readonly LinkDocument[];
  readonly sessions: readonly SessionDocument[];
  readonly services: readonly ServiceDocument[];
  readonly routes: number;
  readonly interface: { readonly name: string; readonly offload: string; readonly ipv4: string; readonly ipv6: string | null } | null;
  /** How programs and devices here meet the overlay: by an interface, or in user-space mode; null on a relay without either. */
  readonly mode: 'tun' | 'userspace' | null;
  /** Why it is user-space mode. */
  readonly modeReason: string | null;
  /** In user-space mode: TCP streams, UDP flows, bytes that wait in buffers, streams refused for want of them. */
  readonly userspace: { readonly streams: number; readonly datagrams: number; readonly buffered: number; readonly refused: number } | null;
  readonly dns: { readonly domain: string; readonly addresses: readonly string[]; readonly port: number } | null;
  readonly relay: { readonly packets: number; readonly bytes: number; readonly labels: number };
  readonly ledger: { readonly payload: number; readonly overhead: number; readonly control: number; readonly keepAlive: number };
  /** How full trains are: so many calls of the AEAD had 1, 2–3, 4–7, 8–15, 16–31, 32–63, and 64 or more packets. */
  readonly trains: { readonly sealed: readonly number[]; readonly opened: readonly number[] };
  /** Dropped packets by reason, and refused control frames by reason. */
  readonly drops: Readonly<Record<string, number>>;
  readonly refused: Readonly<Record<string, number>>;
  readonly warnings: readonly string[];
}

export interface PingDocument {
  readonly name: string;
  readonly key: string;
  readonly rttMs: number;
}

/** What `thicket ping --json` prints: made by the CLI out of several `PingDocument`s. */
export interface PingReport {
  readonly schema: number;
  readonly name: string;
  /** Null when nobody answered. */
  readonly key: string | null;
  readonly sent: number;
  readonly received: number;
  readonly lossPercent: number;
  readonly minMs: number | null;
  readonly avgMs: number | null;
  readonly maxMs: number | null;
  /** In the order they were sent; `rttMs` is null for a lost one. */
  readonly answers: readonly { readonly seq: number; readonly rttMs: number | null; readonly error: string | null }[];
}

export interface TraceDocument {
  readonly schema: number;
  readonly name: string;
  readonly hops: readonly { readonly hop: number; readonly key: string; readonly role: 'relay' | 'end'; readonly rttMs: number | null }[];
}

export interface ResolveDocument {
  readonly schema: number;
  readonly name: string;
  readonly key: string;
  readonly certifiedAs: string;
  readonly network: string;
  readonly ipv4: string;
  readonly ipv6: string | null;
}

export interface ReloadDocument {
  readonly schema: number;
  /** Keys whose change needs a restart. */
  readonly restart: readonly string[];
}
