/** Writes LICENSES.md, or with --check fails when it isn't current. Usage: node scripts/package/licences.mjs [--check] */
import { readFileSync, writeFileSync } from 'node:fs';
import { parts } from './parts.mjs';

const FILE = 'LICENSES.md';
const all = parts();

const cell = (text) => text.replaceAll('|', '\\|');
const rows = all.map(
  ({ name, version, licence, places }) => `| ${cell(name)} | ${version} | ${licence} | ${[...places].sort().join(', ')} |`,
);

/** Equal texts once, under the names of all that they are for. */
const texts = new Map();
for (const { name, texts: its } of all) {
  for (const text of its) {
    const key = text.replace(/\s+/g, ' ');
    texts.set(key, { text, names: [...(texts.get(key)?.names ?? []), name] });
  }
}
const sections = [...texts.values()].map(
  ({ text, names }) => `### ${[...new Set(names)].join(', ')}\n\n${text.replace(/^/gm, '    ').replace(/ +$/gm, '')}`,
);

const document = `# Licences

Thicket is under Apache-2.0 (LICENSE). Its packages carry these parts of others: \`bundle\` and \`wasm\` are in the package \`thicket\`, \`thicket_addon\` and
\`thicket_kernel\` in those of the platforms. Written by scripts/package/licences.mjs; CI checks that it is current. libnftables, which is opened where a host has
it, is not in any of them.

| part | version | licence | in |
| --- | --- | --- | --- |
${rows.join('\n')}

## Texts

Where a part may be had under Apache-2.0, it is: the text is that of LICENSE.

${sections.join('\n\n')}
`;

if (!process.argv.includes('--check')) writeFileSync(FILE, document);
else if (readFileSync(FILE, 'utf8') !== document) {
  process.stderr.write(`${FILE} is not current: run node scripts/package/licences.mjs and commit it\n`);
  process.exit(1);
}
