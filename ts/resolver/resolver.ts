/**
 * `thicket dns install|remove`: makes the host's resolver ask Thicket's DNS server for Thicket's names, and takes that back. What was changed, and
 * how it was before, is kept in the state directory.
 */
import { rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { ThicketError } from '../errors.js';
import { ensurePrivateFolder, loadState, saveState } from '../trust/index.js';
import * as z from '../zod.js';
import { checkConfiguration, type Dnsmasq, findDnsmasq, restartDnsmasq } from './dnsmasq.js';
import { confFolder, servesOthers, thicketConf } from './dnsmasq-config.js';
import { ResolverHost } from './host.js';
import { forget, KeptFile, keep, readText, restore, stateOf, writeKept } from './kept-file.js';
import { nameservers, namesThicket, withThicket, writerOf } from './resolv-conf.js';
import { UNIT, UNIT_FILE, unitText } from './systemd-resolved.js';
import { type ResolverTarget, serverAddress } from './target.js';

export const METHODS = ['systemd-resolved', 'dnsmasq', 'resolv.conf'] as const;
export type Method = (typeof METHODS)[number];

export interface ResolverOptions {
  readonly stateFolder: string;
  /** What stands before every path of the host's; for tests. Default `/`. */
  readonly root?: string;
}

export interface ResolverReport {
  /** What was done, a line each. */
  readonly done: readonly string[];
  readonly warnings: readonly string[];
}

const RESOLV_CONF = '/etc/resolv.conf';
const DNSMASQ_CONF = 'thicket.conf';

const Target = z.strictObject({
  addresses: z.readonly(z.array(z.string())),
  port: z.number(),
  domain: z.string(),
  interfaceName: z.string(),
  pools: z.readonly(z.array(z.string())),
});
const RecordFile = z.strictObject({ method: z.enum(METHODS), target: Target, file: KeptFile });
type RecordFile = z.infer<typeof RecordFile>;

interface Plan {
  readonly path: string;
  readonly content: string;
  /** What else there is to know when it is done. */
  readonly notes: readonly string[];
  readonly warnings: readonly string[];
  /** Makes the resolver read it. Returns what else there is to say. */
  readonly apply: () => Promise<readonly string[]>;
}

/** Sets the resolver up; again, when it is already. Throws one line that says what to do. */
export async function installResolver(target: ResolverTarget, how: Method | 'auto', options: ResolverOptions): Promise<ResolverReport> {
  const host = new ResolverHost(options.root);
  ensurePrivateFolder(options.stateFolder);
  const record = loadRecord(options.stateFolder);
  const method = how === 'auto' ? detect(host, target) : how;
  if (record !== undefined && record.method === method && JSON.stringify(record.target) === JSON.stringify(target)) {
    if (stateOf(record.file) === 'ours') {
      return { done: [`already set up: ${effect(method, target, record.file.path)}`], warnings: await applyAgain(host, record) };
    }
  }
  const removed = record === undefined ? undefined : await undo(host, record, options.stateFolder);
  const plan = makePlan(host, method, target);
  const file = keep(plan.path, plan.content, options.stateFolder);
  saveState(recordPath(options.stateFolder), { method, target, file } satisfies RecordFile);
  try {
    writeKept(file, plan.content);
    const more = await plan.apply();
    const moved = record === undefined || record.file.path === plan.path ? [] : (removed?.done ?? []);
    return { done: [...moved, effect(method, target, plan.path), ...plan.notes], warnings: [...plan.warnings, ...more] };
  } catch (error) {
    if (stateOf(file) === 'ours') restore(file);
    dropRecord(options.stateFolder, file);
    throw error;
  }
}

/** Takes back what `installResolver` did; undefined when it did nothing. */
export async function removeResolver(options: ResolverOptions): Promise<ResolverReport | undefined> {
  const record = loadRecord(options.stateFolder);
  return record === undefined ? undefined : undo(new ResolverHost(options.root), record, options.stateFolder);
}

function effect(method: Method, target: ResolverTarget, path: string): string {
  return `.${target.domain} names are asked of ${serverAddress(target)} by ${method === 'resolv.conf' ? 'whoever reads' : `${method}, through`} ${path}`;
}

// ── choosing ────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** The resolver that programs on this host ask now. */
function detect(host: ResolverHost, target: ResolverTarget): Method {
  const servers = nameservers(readText(host.path(RESOLV_CONF)) ?? '').filter((server) => !target.addresses.includes(server));
  const byLibrary = /^hosts:.*\sresolve\b/m.test(readText(host.path('/etc/nsswitch.conf')) ?? '');
  if (host.has('/run/systemd/resolve') && (byLibrary || servers.some((server) => /^127\.0\.0\.5[34]$/.test(server))))
    return 'systemd-resolved';
  const [first = ''] = servers;
  if (/^127\.|^::1$/.test(first) && findDnsmasq('') !== undefined) return 'dnsmasq';
  return 'resolv.conf';
}

function makePlan(host: ResolverHost, method: Method, target: ResolverTarget): Plan {
  if (method === 'systemd-resolved') return planResolved(host, target);
  return method === 'dnsmasq' ? planDnsmasq(host, target) : planResolvConf(host, target);
}

function planResolvConf(host: ResolverHost, target: ResolverTarget): Plan {
  if (target.port !== 53) {
    throw new ThicketError(
      'REFUSED',
      `/etc/resolv.conf can't name a port, and Thicket's DNS is on ${target.port}: set dns.port to 53, or use --how dnsmasq`,
    );
  }
  const path = host.path(RESOLV_CONF);
  const before = readText(path) ?? '';
  const { content, warnings } = withThicket(before, target);
  const writer = writerOf(before);
  const rewritten =
    writer === undefined ? [] : [`${writer} writes ${path} by itself: when it does so again, run thicket dns install again`];
  const note =
    "it refuses all other names, and the C library (glibc) asks the next server then; c-ares (Node.js's dns.resolve) doesn't, and musl believes whoever answers first: for such programs use --how dnsmasq";
  return { path, content, notes: [note], warnings: [...warnings, ...rewritten], apply: async () => [] };
}

function planDnsmasq(host: ResolverHost, target: ResolverTarget): Plan {
  const running = findDnsmasq('');
  if (running === undefined) {
    throw new ThicketError('NOT_RUNNING', 'no dnsmasq answers on 127.0.0.1:53 here: start it, or choose another way with --how');
  }
  const folder = confFolder(running.options);
  if (folder === undefined) {
    throw new ThicketError(
      'REFUSED',
      'the running dnsmasq reads no folder of files: add conf-dir=/etc/dnsmasq.d/,*.conf to its configuration, restart it, and run this again',
    );
  }
  const path = host.path(join(folder, DNSMASQ_CONF));
  if (!host.has(folder)) {
    throw new ThicketError('REFUSED', `dnsmasq reads ${folder}, which isn't there: make that folder, and run this again`);
  }
  const { options } = findDnsmasq(path) ?? running;
  const warnings: string[] = [];
  if (servesOthers(options)) {
    warnings.push(
      `this dnsmasq also answers other hosts, who can then ask for .${target.domain} names: to keep it to this host, give it interface=lo`,
    );
  }
  if (!nameservers(readText(host.path(RESOLV_CONF)) ?? '').some((server) => /^127\.|^::1$/.test(server))) {
    warnings.push("/etc/resolv.conf doesn't name 127.0.0.1: programs here don't ask dnsmasq until it does");
  }
  return {
    path,
    content: thicketConf(target, options),
    notes: [],
    warnings,
    apply: async () => {
      await checkConfiguration(host, running);
      return restartIfThere(host, running);
    },
  };
}

function planResolved(host: ResolverHost, target: ResolverTarget): Plan {
  if (!host.has('/run/systemd/resolve')) {
    throw new ThicketError('NOT_RUNNING', 'systemd-resolved does not run here: start it, or choose another way with --how');
  }
  if (!host.has(dirname(UNIT_FILE))) throw new ThicketError('REFUSED', `there is no ${dirname(UNIT_FILE)}: choose another way with --how`);
  return { path: host.path(UNIT_FILE), content: unitText(target), notes: [], warnings: [], apply: () => startUnit(host, target) };
}

// ── applying ────────────────────────────────────────────────────────────────────────────────────────────────────────────

async function applyAgain(host: ResolverHost, { method, target }: RecordFile): Promise<readonly string[]> {
  return method === 'systemd-resolved' ? startUnit(host, target) : [];
}

async function startUnit(host: ResolverHost, { interfaceName }: ResolverTarget): Promise<readonly string[]> {
  await host.run('systemctl', 'daemon-reload');
  await host.run('systemctl', 'enable', UNIT);
  // Without the interface it would wait for it; it starts by itself when that comes.
  if (host.has(`/sys/class/net/${interfaceName}`)) await host.run('systemctl', 'restart', UNIT);
  return [];
}

async function restartIfThere(host: ResolverHost, running: Dnsmasq | undefined): Promise<readonly string[]> {
  const left = running === undefined ? undefined : await restartDnsmasq(host, running);
  return left === undefined ? [] : [left];
}

// ── taking back ─────────────────────────────────────────────────────────────────────────────────────────────────────────

async function undo(host: ResolverHost, record: RecordFile, stateFolder: string): Promise<ResolverReport> {
  const { file, method, target } = record;
  const { path } = file;
  const state = stateOf(file);
  if (state === 'changed' && stillLeadsHere(record)) {
    const was = file.before.kind === 'file' ? `; what was there before is in ${file.before.backup}` : '';
    throw new ThicketError(
      'REFUSED',
      `${path} was changed by somebody since thicket dns install: take ${serverAddress(target)} out of it by hand, then run this again${was}`,
    );
  }
  if (method === 'systemd-resolved' && state === 'ours') await host.run('systemctl', 'disable', '--now', UNIT);
  if (state === 'ours') restore(file);
  const warnings: string[] = [];
  if (method === 'systemd-resolved' && state === 'ours') await host.run('systemctl', 'daemon-reload');
  if (method === 'dnsmasq' && state === 'ours') warnings.push(...(await restartIfThere(host, findDnsmasq(path))));
  dropRecord(stateFolder, file);
  return { done: [state !== 'changed' ? `${path} is as it was` : `${path} was put right by somebody else and is left as it is`], warnings };
}

/** The file isn't what we wrote: does it say what we said all the same? */
function stillLeadsHere({ method, target, file }: RecordFile): boolean {
  const text = readText(file.path) ?? '';
  return method === 'resolv.conf' ? namesThicket(text, target) : text.includes(serverAddress(target));
}

// ── the record ──────────────────────────────────────────────────────────────────────────────────────────────────────────

function recordPath(stateFolder: string): string {
  return join(stateFolder, 'resolver.json');
}

function loadRecord(stateFolder: string): RecordFile | undefined {
  const stored = loadState(recordPath(stateFolder));
  if (stored === undefined) return undefined;
  const parsed = RecordFile.safeParse(stored);
  if (!parsed.success) {
    throw new ThicketError('BAD_STATE', `${recordPath(stateFolder)} is damaged: put the resolver right by hand, then remove that file`);
  }
  return parsed.data;
}

function dropRecord(stateFolder: string, file: KeptFile): void {
  rmSync(recordPath(stateFolder), { force: true });
  forget(file);
}
