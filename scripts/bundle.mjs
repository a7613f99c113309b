// Bundles ts/ and the packages that it uses into dist/: a file for each entry, and chunks that they share or load when they need them.
// A node that runs would keep every module's file, scope and source text in memory otherwise: as separate files they cost some 10 MB.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { build } from 'esbuild';

/** What is started or imported by its place in dist/. */
const ENTRIES = ['cli/main', 'dataplane/wasm/worker', 'index'];

const { metafile } = await build({
  entryPoints: Object.fromEntries(ENTRIES.map((entry) => [entry, `ts/${entry}.ts`])),
  outdir: 'dist',
  chunkNames: 'chunks/[name]-[hash]',
  bundle: true,
  splitting: true,
  format: 'esm',
  platform: 'node',
  target: 'node20',
  // V8 keeps a source's text: at one byte a character, if all are ASCII. Names stay for traces.
  charset: 'ascii',
  minifyWhitespace: true,
  minifySyntax: true,
  lineLimit: 140,
  legalComments: 'none',
  sourcemap: 'linked',
  sourcesContent: false,
  // Packages in CommonJS ask for Node's modules by require.
  banner: { js: "import{createRequire as __createRequire}from'node:module';const require=__createRequire(import.meta.url);" },
  metafile: true,
  logLevel: 'warning',
});

writeFileSync('dist/LICENSES.txt', licences(Object.keys(metafile.inputs)));

/** The licences of all packages that are in the bundle, as they want to be kept with it. */
function licences(inputs) {
  const packages = inputs.map((input) => /^(?:.*\/)?node_modules\/(?:@[^/]+\/)?[^/]+/.exec(input)?.[0]).filter(Boolean);
  return [...new Set(packages)]
    .sort()
    .map(licence)
    .join(`\n${'-'.repeat(72)}\n\n`);
}

function licence(folder) {
  const { name, version, license } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
  const file = readdirSync(folder).find((entry) => /^licen[cs]e/i.test(entry));
  if (file === undefined) throw new Error(`${folder} has no licence file: add its text by hand`);
  return `${name} ${version} (${license})\n\n${readFileSync(join(folder, file), 'utf8').trim()}\n`;
}
