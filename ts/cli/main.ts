#!/usr/bin/env node
/** The `thicket` command. */
import { setFlagsFromString } from 'node:v8';

// Before the rest is loaded. The young generation stays as small as it is: a stream's pieces lie outside of it, and would go only when it is full.
setFlagsFromString('--semi-space-growth-factor=1');

// Traces in the words of ts/ and not of what was bundled. Before the rest is loaded; it costs time and memory that only who looks for a bug has.
if (process.env.THICKET_DEBUG === '1') process.setSourceMapsEnabled(true);
const [{ buildProgram }, { run }] = await Promise.all([import('./program.js'), import('./run.js')]);

// Nothing here may be cut short by leaving at once: writing to files, terminals and pipes is synchronous on Linux.
process.exit(await run(buildProgram(), process.argv));
