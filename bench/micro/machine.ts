/** What a figure depends on besides the code. */
import { readFileSync } from 'node:fs';
import { availableParallelism, cpus, release } from 'node:os';

export interface Machine {
  readonly cpu: string;
  readonly cores: number;
  readonly kernel: string;
  readonly node: string;
  readonly avx2: boolean;
  /** With IFMA, which a wide Poly1305 needs. */
  readonly avx512: boolean;
}

export function machine(): Machine {
  const flags = new Set(/^flags\s*:(.*)$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1]?.split(' '));
  return {
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    cores: availableParallelism(),
    kernel: release(),
    node: process.version,
    avx2: flags.has('avx2'),
    avx512: flags.has('avx512f') && flags.has('avx512ifma'),
  };
}
