/**
 * Whether a file may be given to the dynamic loader at all. A damaged addon ends the process with SIGSEGV or SIGBUS instead of throwing, so what is no whole shared
 * object for this processor is refused before (layout: System V ABI, chapter 4, and its supplements' machine numbers).
 */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';

const MACHINES: Readonly<Record<number, string>> = { 3: 'x86', 40: 'arm', 62: 'x64', 183: 'arm64', 243: 'riscv64' };
const SHARED_OBJECT = 3;

/** What is wrong with the file, or undefined: `is damaged (…)`, `is for arm64, not x64`. Throws what opening it throws. */
export function elfFault(file: string, arch: string): string | undefined {
  const head = Buffer.alloc(64);
  const fd = openSync(file, 'r');
  let size: number;
  let read: number;
  try {
    size = fstatSync(fd).size;
    read = readSync(fd, head, 0, head.length, 0);
  } finally {
    closeSync(fd);
  }
  const wide = head[4] === 2;
  if (read < (wide ? 64 : 52) || head.readUInt32BE(0) !== 0x7f454c46) return 'is damaged (no ELF file)';
  if (head[5] !== 1 || head.readUInt16LE(16) !== SHARED_OBJECT) return 'is damaged (no shared object)';
  const machine = MACHINES[head.readUInt16LE(18)] ?? 'another processor';
  if (machine !== arch) return `is for ${machine}, not ${arch}`;
  // The linker writes the table of sections last: where it isn't whole, the file was cut.
  const sections = wide
    ? Number(head.readBigUInt64LE(40)) + head.readUInt16LE(58) * head.readUInt16LE(60)
    : head.readUInt32LE(32) + head.readUInt16LE(46) * head.readUInt16LE(48);
  return sections > size ? `is damaged (cut off at ${size} of ${sections} bytes)` : undefined;
}
