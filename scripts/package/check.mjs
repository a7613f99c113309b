/** What must be true of the addons and packages before anybody gets them. Usage: node scripts/package/check.mjs STAGED-FOLDER...; says what isn't and exits with 1. */
import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { basename, join } from 'node:path';
import { ADDONS, GLIBC_FLOOR, TABLE } from './table.mjs';

/** Bytes unpacked. */
const MAIN_MAX = 6_000_000;
const PLATFORM_MAX = 4_000_000;
/** What an addon may ask of its host: the C library and, in the program itself, Node.js. */
const LIBRARIES = {
  glibc: /^(libc|libm|libdl|libpthread|librt)\.so\.\d+$|^ld-linux[\w-]*\.so\.\d+$/,
  musl: /^libc(\.musl-\w+)?\.so(\.1)?$/,
};

const faults = [];
for (const folder of process.argv.slice(2)) {
  const name = basename(folder);
  const size = unpacked(folder);
  const most = name === 'thicket' ? MAIN_MAX : PLATFORM_MAX;
  process.stderr.write(`${name}: ${size} bytes unpacked\n`);
  if (size > most) faults.push(`${name} has ${size} bytes unpacked, more than ${most}`);
  for (const file of files(folder).filter((one) => /\.(node|wasm)$/.test(one))) {
    const path = /(\/(?:home|root|tmp|work|usr\/local)\/[\w./-]+)/.exec(readFileSync(file, 'latin1'))?.[1];
    if (path !== undefined) faults.push(`${file} tells a path of the machine that built it: ${path}`);
  }
  const row = TABLE.find(({ triple }) => triple === name);
  if (row !== undefined) for (const addon of ADDONS) examine(join(folder, addon), `${name}/${addon}`, row.libc);
}
if (faults.length > 0) {
  for (const fault of faults) process.stderr.write(`${fault}\n`);
  process.exit(1);
}

/** readelf, as objdump knows only the processors that it was built for. */
function examine(file, name, libc) {
  const symbols = readelf('--dyn-syms', file);
  for (const [, version] of symbols.matchAll(/@GLIBC_(\d[\d.]*)/g)) {
    if (newer(version, GLIBC_FLOOR)) faults.push(`${name} needs glibc ${version}, more than ${GLIBC_FLOOR}`);
  }
  const dynamic = readelf('--dynamic', file);
  for (const [, library] of dynamic.matchAll(/\(NEEDED\).*\[(.*)\]/g)) {
    if (!LIBRARIES[libc].test(library)) faults.push(`${name} needs ${library}`);
  }
  if (/\((RPATH|RUNPATH)\)/.test(dynamic)) faults.push(`${name} has a search path of the machine that built it`);
  const exported = symbols.split('\n').flatMap((line) => /\b(GLOBAL|WEAK)\b.*\bDEFAULT\b\s+\d+ (\S+)/.exec(line)?.[2] ?? []);
  const strange = exported.filter((symbol) => !/^(napi_|node_api_)/.test(symbol));
  if (strange.length > 0)
    faults.push(`${name} exports ${strange.slice(0, 5).join(', ')}${strange.length > 5 ? ` and ${strange.length - 5} more` : ''}`);
  if (/\.symtab|\.debug_/.test(readelf('--section-headers', file))) faults.push(`${name} is not stripped`);
}

function readelf(option, file) {
  return execFileSync('readelf', ['--wide', option, file], { encoding: 'utf8' });
}

function newer(version, than) {
  const [a, b] = [version, than].map((text) => text.split('.').map(Number));
  return a[0] !== b[0] ? a[0] > b[0] : a[1] > b[1] || (a[1] === b[1] && (a[2] ?? 0) > (b[2] ?? 0));
}

function files(folder) {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name));
}

function unpacked(folder) {
  return files(folder).reduce((sum, file) => sum + statSync(file).size, 0);
}
