/** Every part of others that ships: npm packages in the bundle, crates in the addons and in the WASM, and what compilers add. From what the bundler took, and lock files and what they name. */
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { TABLE } from './table.mjs';

/** Where a part ends up: in the JavaScript bundle, in the WebAssembly, or in one of the addons. */
export const PLACES = ['bundle', 'wasm', 'thicket_addon', 'thicket_kernel'];

/** @typedef {{ name: string, version: string, licence: string, texts: string[], places: Set<string>, purl: string }} Part */

/** @returns {Part[]} by name; the same crate in two places is one part. */
export function parts() {
  const all = new Map();
  for (const part of [...npmParts(), ...crates(), ...runtimes()]) {
    const known = all.get(part.purl);
    if (known === undefined) all.set(part.purl, part);
    else for (const place of part.places) known.places.add(place);
  }
  return [...all.values()].sort((a, b) => (a.purl < b.purl ? -1 : 1));
}

function npmParts() {
  // Written by scripts/bundle.mjs.
  const bundled = JSON.parse(readFileSync('build/bundled.json', 'utf8'));
  const part = (path, place) => {
    const { name, version, license } = JSON.parse(readFileSync(join(path, 'package.json'), 'utf8'));
    const purl = `pkg:npm/${name.replace('@', '%40')}@${version}`;
    return { name, version, licence: license, texts: licenceFiles(path, license), places: new Set([place]), purl };
  };
  return [...bundled.map((path) => part(path, 'bundle')), part('node_modules/node-addon-api', 'thicket_kernel')];
}

function crates() {
  const native = TABLE.flatMap(({ rust }) => closure('native/addon/Cargo.toml', 'thicket-addon', rust, 'thicket_addon'));
  return [...native, ...closure('wasm/Cargo.toml', 'thicket-wasm', 'wasm32-unknown-unknown', 'wasm')];
}

/** What the crate `root` links on this target: no tests, build scripts or macros, which are run and not shipped. Our own crates are no part of others. */
function closure(manifest, root, target, place) {
  const args = ['metadata', '--format-version=1', '--locked', `--manifest-path=${manifest}`, `--filter-platform=${target}`];
  const { packages, resolve } = JSON.parse(execFileSync('cargo', args, { encoding: 'utf8', maxBuffer: 1 << 28 }));
  const byId = new Map(packages.map((one) => [one.id, one]));
  const nodes = new Map(resolve.nodes.map((one) => [one.id, one]));
  const seen = new Set();
  const visit = (id) => {
    if (seen.has(id) || byId.get(id).targets.some(({ kind }) => kind.includes('proc-macro'))) return;
    seen.add(id);
    for (const { pkg, dep_kinds } of nodes.get(id).deps) if (dep_kinds.some(({ kind }) => kind === null)) visit(pkg);
  };
  visit(packages.find(({ name }) => name === root).id);
  return [...seen]
    .map((id) => byId.get(id))
    .filter(({ source }) => source !== null)
    .map(({ name, version, license, manifest_path, authors }) => ({
      name,
      version,
      licence: license,
      texts: licenceFiles(dirname(manifest_path), license, authors),
      places: new Set([place]),
      purl: `pkg:cargo/${name}@${version}`,
    }));
}

/** What the compilers put into what they link. Of these licences none asks for its text beside a program (LLVM's and glibc's exceptions), but for zig's. */
function runtimes() {
  // What releases are built with (.github/workflows), not what happens to be here.
  const rust = JSON.parse(readFileSync('bench/recorded.json', 'utf8')).with.rustc;
  const zig = /^ziglang==(\S+)/m.exec(readFileSync('scripts/package/requirements.txt', 'utf8'))[1];
  const part = (name, version, licence, places, texts = []) => {
    return { name, version, licence, texts, places: new Set(places), purl: `pkg:generic/${encodeURIComponent(name)}@${version}` };
  };
  const llvm = 'Apache-2.0 WITH LLVM-exception';
  return [
    part("Rust's standard library", rust, 'MIT OR Apache-2.0', ['thicket_addon', 'wasm']),
    part('libc++, libc++abi and libunwind of LLVM', `zig-${zig}`, llvm, ['thicket_kernel']),
    part('compiler-rt of zig', zig, 'MIT', ['thicket_addon', 'thicket_kernel'], [mit('Zig contributors')]),
    part('start-up files and libc_nonshared.a of glibc', '2.28', 'LGPL-2.1-or-later WITH GCC-exception-2.0', [
      'thicket_addon',
      'thicket_kernel',
    ]),
  ];
}

/**
 * The texts that this licence wants to be kept. Where Apache-2.0 is offered it is taken: its text is that of LICENSE. All files where parts are under different
 * licences (AND).
 */
function licenceFiles(folder, licence, authors = []) {
  if (/\bAND\b/.test(licence)) return files(folder, /^(licen[cs]e|notice)/i);
  if (/\bApache-2\.0\b/.test(licence)) return files(folder, /^notice/i);
  const offered = /\bMIT\b/.test(licence) ? files(folder, /^licen[cs]e.*mit/i) : [];
  const texts = offered.length > 0 ? offered : files(folder, /^(licen[cs]e|copying)/i);
  if (texts.length > 0) return texts;
  if (licence === 'MIT') return [mit(authors.length > 0 ? authors.map((author) => author.replace(/ <.*>/, '')).join(', ') : 'its authors')];
  throw new Error(`${folder} has no licence file: write its text into scripts/package/parts.mjs`);
}

function files(folder, pattern) {
  if (!existsSync(folder)) throw new Error(`${folder} is missing: install what the lock file names`);
  const names = readdirSync(folder, { withFileTypes: true }).filter((entry) => entry.isFile() && pattern.test(entry.name));
  return names
    .map(({ name }) => name)
    .sort()
    .map((name) => readFileSync(join(folder, name), 'utf8').replaceAll('\r\n', '\n').trim());
}

const mit = (holder) => `MIT License

Copyright (c) ${holder}

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS
FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY,
WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.`;
