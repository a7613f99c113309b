/** zod's small build, speaking English: what is said of a malformed file or request. The usual one costs 2 MB in a running node. */
import { config } from 'zod/mini';
import en from 'zod/v4/locales/en.js';

config(en());

export * from 'zod/mini';
