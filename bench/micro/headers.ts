/** Reading and writing headers, measured in Rust: native/core/examples/headers.rs. */
import { join } from 'node:path';
import { repository, run } from '../../test/lab/index.js';
import type { RateRow } from './results.js';

export async function headerRows(seconds: number): Promise<RateRow[]> {
  const { stdout } = await run([join(repository, 'native/target/release/examples/headers'), String(seconds)], { timeoutMs: 60_000 });
  const rows = JSON.parse(stdout) as readonly { readonly what: string; readonly nanoseconds: number }[];
  return rows.map(({ what, nanoseconds }) => ({ what, perSecond: 1e9 / nanoseconds, margin: 0 }));
}
