/**
 * Lays each package's folder: files, and a package.json that says exactly what is in it. Usage: node scripts/package/stage.mjs OUT [TRIPLE...]: into OUT/thicket
 * and OUT/TRIPLE, from dist/, wasm/pkg/ and build/cross/. With triples, only these platforms; the main package names them all.
 */
import { createHash } from 'node:crypto';
import { chmodSync, copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { ADDONS, GLIBC_FLOOR, TABLE } from './table.mjs';

const [out, ...only] = process.argv.slice(2);
const root = JSON.parse(readFileSync('package.json', 'utf8'));
const { version, license, engines, repository } = root;
/** What all packages carry besides. */
const PAPERS = ['LICENSE', 'LICENSES.md'];

rmSync(out, { recursive: true, force: true });
main();
for (const row of TABLE) if (only.length === 0 || only.includes(row.triple)) platform(row);

function main() {
  const { name, description, keywords, type, bin, exports, types } = root;
  // With maps: THICKET_DEBUG=1 wants them.
  const scripts = walk('dist').filter((file) => /\.js(\.map)?$/.test(file));
  const papers = [...PAPERS, 'CHANGELOG.md'];
  // Its own package.json says that these scripts are CommonJS.
  const data = ['dist/build-time', ...walk('wasm/pkg').filter((file) => /\.(js|wasm)$|package\.json$/.test(file))];
  const files = [...scripts, ...declarations(), ...data, ...papers].sort();
  lay(join(out, 'thicket'), ['README.md', ...files], {
    name,
    version,
    description,
    keywords,
    license,
    repository,
    type,
    engines,
    bin,
    exports,
    types,
    files,
    // All that it needs is in the bundle, but for what only one kind of place can load.
    optionalDependencies: Object.fromEntries(TABLE.map((row) => [row.name, version])),
  });
}

function platform({ triple, name, os, cpu, libc }) {
  const from = join('build/cross', triple);
  const folder = join(out, triple);
  const place = `${os} ${cpu} with ${libc === 'glibc' ? `glibc ${GLIBC_FLOOR} or newer` : libc}`;
  const sha256 = ADDONS.map((addon) => [
    addon,
    createHash('sha256')
      .update(readFileSync(join(from, addon)))
      .digest('hex'),
  ]);
  lay(folder, PAPERS, {
    name,
    version,
    description: `Addons of thicket for ${place}`,
    license,
    repository,
    engines,
    os: [os],
    cpu: [cpu],
    libc: [libc],
    files: [...ADDONS, 'LICENSES.md'],
    // Yarn keeps packages in archives otherwise, from which nothing can be loaded.
    preferUnplugged: true,
    // The loader compares before it loads: a damaged addon would end the process.
    thicket: { sha256: Object.fromEntries(sha256) },
  });
  for (const addon of ADDONS) copy(join(from, addon), join(folder, addon));
  writeFileSync(
    join(folder, 'README.md'),
    `# ${name}\n\nThe addons of thicket for ${place}. npm installs them with the package \`thicket\`; alone they do nothing.\n`,
  );
}

function lay(folder, files, manifest) {
  mkdirSync(folder, { recursive: true });
  for (const file of files) copy(file, join(folder, file));
  writeFileSync(join(folder, 'package.json'), `${JSON.stringify(manifest, undefined, 2)}\n`);
}

function copy(from, to) {
  mkdirSync(dirname(to), { recursive: true });
  copyFileSync(from, to);
  // Whatever the umask was.
  chmodSync(to, from.endsWith('cli/main.js') ? 0o755 : 0o644);
}

/** What the programmatic interface's types need: the declarations that dist/index.d.ts leads to. */
function declarations() {
  const entry = 'dist/index.d.ts';
  if (!existsSync(entry)) return [];
  const found = new Set();
  const visit = (file) => {
    if (found.has(file)) return;
    found.add(file);
    for (const [, path] of readFileSync(file, 'utf8').matchAll(/(?:from|import\()\s*'(\.[^']+)\.js'/g)) {
      visit(relative('.', join(dirname(file), `${path}.d.ts`)));
    }
  };
  visit(entry);
  return [...found];
}

function walk(folder) {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name));
}
