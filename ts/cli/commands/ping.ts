/** `thicket ping`: does a key or a name answer, and how fast? */
import { setTimeout as delay } from 'node:timers/promises';
import type { Command } from 'commander';
import { type PingDocument, type PingReport, SCHEMA } from '../../control/documents.js';
import { type ErrorCode, isThicketError, ThicketError } from '../../errors.js';
import { withNode } from '../node.js';
import { type JsonOption, jsonOption, type NodeOption, nodeOption, wholeNumber } from '../options.js';
import { say, sayJson } from '../output.js';

interface PingFlags extends NodeOption, JsonOption {
  readonly count: number;
}

interface Answer {
  readonly seq: number;
  readonly rttMs: number | null;
  readonly error: string | null;
}

/** Milliseconds between two questions. */
const INTERVAL = 1_000;
/** Failures that the next question may not meet. All others end the command at once. */
const LOST: ReadonlySet<ErrorCode> = new Set(['TIMEOUT', 'UNREACHABLE', 'NO_ROUTE', 'NO_PARENT', 'SESSION_CLOSED', 'BUSY']);

export function registerPing(program: Command): void {
  jsonOption(
    nodeOption(
      program
        .command('ping')
        .description('measure the way to a node or an endpoint, inside its session')
        .argument('<name>', 'a name such as camera.home, or a key')
        .option('-c, --count <n>', 'how many questions to send', wholeNumber(1, 1_000_000), 4),
    ),
  ).action(ping);
}

async function ping(name: string, options: PingFlags): Promise<void> {
  const interrupted = new AbortController();
  const interrupt = (): void => interrupted.abort();
  process.once('SIGINT', interrupt);
  process.once('SIGTERM', interrupt);
  const answers: Answer[] = [];
  let key: string | null = null;
  await withNode(options, async (client) => {
    const ended = new Promise<undefined>((resolve) => {
      interrupted.signal.addEventListener('abort', () => resolve(undefined), { once: true });
    });
    for (let seq = 1; seq <= options.count && !interrupted.signal.aborted; seq += 1) {
      const began = performance.now();
      const answer = await Promise.race([ask(() => client.call<PingDocument>('POST', '/v1/ping', { name }), seq), ended]);
      if (answer === undefined) break;
      key = answer.key ?? key;
      answers.push({ seq, rttMs: answer.rttMs, error: answer.error });
      if (!options.json) say(answerText(name, answer));
      const rest = INTERVAL - (performance.now() - began);
      if (seq < options.count && rest > 0) await delay(rest, undefined, { signal: interrupted.signal }).catch(() => {});
    }
  });
  const report = summary(name, key, answers);
  if (options.json) sayJson(report);
  else say(summaryText(report));
  if (report.received === 0) {
    const why = answers.at(-1)?.error;
    if (why === undefined || why === null)
      throw new ThicketError('TIMEOUT', `${name} hasn't answered yet when it was interrupted: give it longer`);
    throw new ThicketError('TIMEOUT', `${name} didn't answer (${why}): see whether it is up, and thicket status here`);
  }
}

async function ask(question: () => Promise<PingDocument>, seq: number): Promise<Answer & { readonly key: string | null }> {
  try {
    const { key, rttMs } = await question();
    return { seq, key, rttMs, error: null };
  } catch (error) {
    if (!isThicketError(error) || !LOST.has(error.code)) throw error;
    return { seq, key: null, rttMs: null, error: error.message };
  }
}

function summary(name: string, key: string | null, answers: readonly Answer[]): PingReport {
  const times = answers.flatMap(({ rttMs }) => (rttMs === null ? [] : [rttMs]));
  const some = times.length > 0;
  const sent = answers.length;
  return {
    schema: SCHEMA,
    name,
    key,
    sent,
    received: times.length,
    lossPercent: sent === 0 ? 0 : (100 * (sent - times.length)) / sent,
    minMs: some ? Math.min(...times) : null,
    avgMs: some ? times.reduce((sum, time) => sum + time, 0) / times.length : null,
    maxMs: some ? Math.max(...times) : null,
    answers,
  };
}

const ms = (value: number | null): string => (value ?? 0).toFixed(2);

function answerText(name: string, { seq, key, rttMs, error }: Answer & { readonly key: string | null }): string {
  return rttMs === null
    ? `no answer from ${name}: seq=${seq} (${error ?? ''})`
    : `answer from ${name} (${key ?? ''}): seq=${seq} time=${ms(rttMs)} ms`;
}

function summaryText({ sent, received, lossPercent, minMs, avgMs, maxMs }: PingReport): string {
  const counts = `${sent} sent, ${received} received, ${lossPercent.toFixed(0)}% lost`;
  return received === 0 ? counts : `${counts}, min/avg/max ${ms(minMs)}/${ms(avgMs)}/${ms(maxMs)} ms`;
}
