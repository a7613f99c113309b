// Bundles ts/ and the packages that it uses into dist/: a file for each entry, and chunks that they share or load when they need them.
// A node that runs would keep every module's file, scope and source text in memory otherwise: as separate files they cost some 10 MB.
import { mkdirSync, writeFileSync } from 'node:fs';
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

// Which packages are in it, for LICENSES.md and the list of parts (scripts/package/parts.mjs).
const packages = Object.keys(metafile.inputs).map((input) => /^(?:.*\/)?node_modules\/(?:@[^/]+\/)?[^/]+/.exec(input)?.[0]);
mkdirSync('build', { recursive: true });
writeFileSync('build/bundled.json', `${JSON.stringify([...new Set(packages.filter(Boolean))].sort())}\n`);
