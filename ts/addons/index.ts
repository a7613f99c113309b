/** The prebuilt addons: which of them this place can run, and loading them. */
export { detectLibc, hostEvidence, type LibcFound } from './libc.js';
export { type LoadedAddon, loadAddon } from './load.js';
export { type AddonName, type Environment, hostSources, type PlatformPackage, type Sources } from './sources.js';
export { type Libc, selectTriple, type Triple, triples } from './triples.js';
