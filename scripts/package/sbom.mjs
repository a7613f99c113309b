/**
 * Writes OUT/thicket-VERSION.cdx.json: what is in the tarballs of OUT, as CycloneDX 1.6, ordered and dated so that equal commits give equal files. Usage: node
 * scripts/package/sbom.mjs OUT
 */
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parts } from './parts.mjs';
import { ADDONS, TABLE } from './table.mjs';

const [out] = process.argv.slice(2);
const { version, license, description } = JSON.parse(readFileSync('package.json', 'utf8'));
const tarballs = readdirSync(out).filter((file) => file.endsWith('.tgz'));
const all = parts();

const licences = (expression) => [/[ (]/.test(expression) ? { expression } : { license: { id: expression } }];

/** The packages of ours, each with its tarball's checksum. */
const ours = [
  { name: 'thicket', places: ['bundle', 'wasm'] },
  ...TABLE.map(({ name }) => ({ name, places: ADDONS.map((addon) => addon.replace('.node', '')) })),
]
  .map(({ name, places }) => ({
    name,
    places,
    purl: `pkg:npm/${name.replace('@', '%40')}@${version}`,
    file: `${name.replace('@', '').replace('/', '-')}-${version}.tgz`,
  }))
  .filter(({ file }) => tarballs.includes(file));

const document = {
  bomFormat: 'CycloneDX',
  specVersion: '1.6',
  version: 1,
  metadata: {
    timestamp: new Date(Number(process.env.SOURCE_DATE_EPOCH) * 1_000).toISOString(),
    component: { type: 'application', 'bom-ref': 'thicket', name: 'thicket', version, description, licenses: licences(license) },
  },
  components: [
    ...ours.map(({ name, purl, file }) => ({
      type: 'library',
      'bom-ref': purl,
      name,
      version,
      purl,
      licenses: licences(license),
      hashes: [
        {
          alg: 'SHA-256',
          content: createHash('sha256')
            .update(readFileSync(join(out, file)))
            .digest('hex'),
        },
      ],
    })),
    ...all.map(({ name, version: its, licence, purl }) => ({
      type: 'library',
      'bom-ref': purl,
      name,
      version: its,
      purl,
      licenses: licences(licence),
    })),
  ],
  dependencies: [
    { ref: 'thicket', dependsOn: ours.map(({ purl }) => purl) },
    ...ours.map(({ purl, places }) => ({
      ref: purl,
      dependsOn: all.filter((part) => places.some((place) => part.places.has(place))).map((part) => part.purl),
    })),
  ],
};
// A number that is the document's own (RFC 9562, version 8: of whatever the maker likes), as a random one would make each run another file.
const hash = createHash('sha256').update(JSON.stringify(document)).digest('hex');
const uuid = `${hash.slice(0, 8)}-${hash.slice(8, 12)}-8${hash.slice(13, 16)}-8${hash.slice(17, 20)}-${hash.slice(20, 32)}`;
writeFileSync(
  join(out, `thicket-${version}.cdx.json`),
  `${JSON.stringify({ $schema: 'http://cyclonedx.org/schema/bom-1.6.schema.json', ...document, serialNumber: `urn:uuid:${uuid}` }, undefined, 2)}\n`,
);
