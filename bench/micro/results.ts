/** What bench/micro measures. */

export interface SealRow {
  readonly implementation: string;
  readonly size: number;
  /** Packets in one call. */
  readonly packets: number;
  /** Nanoseconds a packet. */
  readonly seal: number;
  readonly open: number;
}

export interface RateRow {
  readonly what: string;
  readonly perSecond: number;
  /** Relative margin of error, percent, at 95 % confidence; 0 where it wasn't told. */
  readonly margin: number;
}

export interface Micro {
  readonly seal: readonly SealRow[];
  readonly handshakes: readonly RateRow[];
  readonly certificates: readonly RateRow[];
  /** By the number of nodes in the table. */
  readonly routes: readonly (RateRow & { readonly nodes: number })[];
  readonly dns: readonly RateRow[];
  readonly headers: readonly RateRow[];
}

/** What the addon's rows are called, by what it seals with: `AVX-512`, `AVX2` or `ring`. */
export function nativeName(kernel: string): string {
  return `native (N-API), ${kernel}`;
}
