/**
 * Run by Node.js of another place: seals and opens Wycheproof's vectors with each kernel of an addon, and seals a train. Usage: node vectors.mjs ADDON VECTORS; prints
 * one document.
 */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';

const [, , file, vectors] = process.argv;
const addon = createRequire(import.meta.url)(file);
const { testGroups } = JSON.parse(readFileSync(vectors, 'utf8'));
const cases = testGroups.flatMap(({ tests }) => tests);
const bytes = (hex) => new Uint8Array(Buffer.from(hex, 'hex'));
const attempt = (run) => {
  try {
    const result = run();
    return result && Buffer.from(result).toString('hex');
  } catch {
    return undefined;
  }
};

const kernels = addon.aeadKernels().map((name) => {
  const chosen = addon.chooseAead(name);
  const wrong = [];
  for (const { tcId, key, iv, aad, msg, ct, tag, result } of cases) {
    const aead = new addon.AeadKey(bytes(key));
    const opened = attempt(() => aead.open(bytes(iv), bytes(aad), bytes(ct + tag)));
    const sealed = attempt(() => aead.seal(bytes(iv), bytes(aad), bytes(msg)));
    const valid = result === 'valid';
    if (opened !== (valid ? msg : undefined) || (sealed === ct + tag) !== valid) wrong.push(tcId);
  }
  // Longer than any lanes, the last packet shorter; from a counter whose next one needs more than 53 bits.
  const train = Uint8Array.from({ length: 39 * 1_436 + 100 }, (_, at) => at * 31);
  const counter = (1n << 53n) - 1n;
  const aead = new addon.AeadKey(Uint8Array.from({ length: 32 }, (_, at) => at * 7 + 1));
  aead.sealTrain(counter, train, 1_436);
  const sealed = createHash('sha256').update(train).digest('hex');
  return { name, chosen, wrong, train: sealed, opened: aead.openTrain(counter, train, 1_436) };
});
console.log(JSON.stringify({ arch: process.arch, version: process.version, cases: cases.length, kernels }));
