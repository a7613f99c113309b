#!/usr/bin/env node
/** The `thicket` command. */
import { buildProgram } from './program.js';
import { run } from './run.js';

// Nothing here may be cut short by leaving at once: writing to files, terminals and pipes is synchronous on Linux.
process.exit(await run(buildProgram(), process.argv));
