/** What the CLI changed (`expose`, `allow`, `deny`, `trust`): one state file, joined with thicket.yaml and kept on reload. */
import { join } from 'node:path';
import { ThicketError } from '../errors.js';
import { checkLabel, formatWho, loadState, parseKey, parseWho, saveState, type Trusted, type Who } from '../trust/index.js';
import * as z from '../zod.js';
import type { Config, EndpointConfig, ServiceConfig } from './config.js';
import type { ServicePort } from './values.js';

const Port = { protocol: z.enum(['tcp', 'udp']), port: z.int().check(z.minimum(1), z.maximum(65_535)) };
const Rule = z.strictObject({ who: z.string(), endpoint: z.string(), service: z.optional(z.strictObject(Port)) });
const Stored = z.strictObject({
  endpoints: z.record(
    z.string(),
    z.array(
      z.strictObject({
        ...Port,
        rtsp: z.boolean(),
        force: z.boolean(),
        target: z.strictObject({ host: z.string(), port: z.int().check(z.minimum(1), z.maximum(65_535)) }),
      }),
    ),
  ),
  /** In the order they were given: the last that fits a service wins over thicket.yaml. */
  rules: z.array(z.extend(Rule, { allow: z.boolean() })),
  trust: z.array(z.strictObject({ key: z.string(), trusted: z.boolean() })),
});
type Stored = z.infer<typeof Stored>;

export type Change =
  | { readonly do: 'expose'; readonly name: string; readonly services: readonly ServiceConfig[]; readonly allow: readonly string[] }
  | { readonly do: 'unexpose'; readonly name: string }
  | { readonly do: 'allow' | 'deny'; readonly who: string; readonly endpoint: string; readonly service: ServicePort | undefined }
  | { readonly do: 'trust' | 'distrust'; readonly key: string };

const EMPTY: Stored = { endpoints: {}, rules: [], trust: [] };

/** The changes of a state directory. */
export class LocalChanges {
  readonly #file: string;
  #stored: Stored;

  private constructor(file: string, stored: Stored) {
    this.#file = file;
    this.#stored = stored;
  }

  /** Throws BAD_STATE for a damaged file. */
  static open(stateFolder: string): LocalChanges {
    const file = join(stateFolder, 'local.json');
    const parsed = Stored.safeParse(loadState(file) ?? EMPTY);
    if (!parsed.success) throw new ThicketError('BAD_STATE', `${file} is damaged: restore it from a backup, or remove it`);
    return new LocalChanges(file, parsed.data);
  }

  /** What `config` becomes with these changes and `change`, without keeping it. */
  preview(config: Config, change: Change): { readonly config: Config; readonly commit: () => void } {
    const next = apply(this.#stored, config, change);
    return {
      config: joined(config, next),
      commit: () => {
        saveState(this.#file, next);
        this.#stored = next;
      },
    };
  }

  join(config: Config): Config {
    return joined(config, this.#stored);
  }
}

function apply(stored: Stored, config: Config, change: Change): Stored {
  switch (change.do) {
    case 'expose': {
      checkLabel('endpoint name', change.name);
      if (change.services.length === 0) throw new ThicketError('BAD_ARGUMENT', 'nothing to expose: name at least one target');
      if (config.endpoints.some((e) => e.name === change.name)) {
        throw new ThicketError('EXISTS', `${change.name} is in the configuration file already: change it there, then thicket reload`);
      }
      const services = change.services.map(({ protocol, port, rtsp, force, target }) => {
        if (target === undefined)
          throw new ThicketError('BAD_ARGUMENT', 'a service without a target lives with the program that answers: listen there');
        return { protocol, port, rtsp, force, target: { ...target } };
      });
      const ports = new Set(services.map((s) => `${s.protocol}/${s.port}`));
      if (ports.size < services.length) throw new ThicketError('BAD_ARGUMENT', 'two targets for one port: give each a port of its own');
      const rules = change.allow.map((who) => ({ who: canonical(who, config), endpoint: change.name, allow: true }));
      const others = stored.rules.filter((rule) => rule.endpoint !== change.name || rules.every((r) => r.who !== rule.who));
      return { ...stored, endpoints: { ...stored.endpoints, [change.name]: services }, rules: [...others, ...rules] };
    }
    case 'unexpose': {
      if (config.endpoints.some((e) => e.name === change.name)) {
        throw new ThicketError('REFUSED', `${change.name} is in the configuration file: remove it there, then thicket reload`);
      }
      if (!Object.hasOwn(stored.endpoints, change.name))
        throw new ThicketError('NOT_FOUND', `nothing is exposed as ${change.name}: see thicket services`);
      const { [change.name]: _, ...endpoints } = stored.endpoints;
      return { ...stored, endpoints, rules: stored.rules.filter((rule) => rule.endpoint !== change.name) };
    }
    case 'allow':
    case 'deny': {
      const before = joined(config, stored).endpoints.find((e) => e.name === change.endpoint);
      const meant = before?.services.filter((s) => fits(change.service, s)) ?? [];
      if (meant.length === 0)
        throw new ThicketError('NOT_FOUND', `no service ${serviceText(change)} is exposed here: see thicket services`);
      const who = canonical(change.who, config);
      if (change.do === 'deny' && !meant.some((s) => s.allow.some((w) => formatWho(w) === who))) {
        throw new ThicketError('NOT_FOUND', `${serviceText(change)} isn't allowed to ${who} by itself: see thicket services`);
      }
      const rule = {
        who,
        endpoint: change.endpoint,
        allow: change.do === 'allow',
        ...(change.service && { service: { ...change.service } }),
      };
      const others = stored.rules.filter((r) => !(r.who === who && r.endpoint === rule.endpoint && covers(change.service, r.service)));
      return { ...stored, rules: [...others, rule] };
    }
    case 'trust':
    case 'distrust': {
      const key = parseKey(change.key.split('.', 1)[0] ?? '');
      const trusted = change.do === 'trust';
      if (!trusted && !joined(config, stored).trust.some((t) => trustedKey(t) === key)) {
        throw new ThicketError('NOT_FOUND', `${key} isn't trusted here: see thicket trust list`);
      }
      return { ...stored, trust: [...stored.trust.filter((t) => t.key !== key), { key, trusted }] };
    }
  }
}

const canonical = (who: string, config: Config): string => formatWho(parseWho(who, networkOf(config)));

/** Nicknames of `config`, or keys. */
export function networkOf(config: Config): (text: string) => ReturnType<typeof parseKey> {
  return (text) => config.networks.get(text)?.key ?? parseKey(text.split('.', 1)[0] ?? '');
}

const trustedKey = (t: Trusted): string => ('network' in t ? t.network : t.node);

const fits = (wanted: ServicePort | undefined, service: ServicePort): boolean =>
  wanted === undefined || (wanted.protocol === service.protocol && wanted.port === service.port);

/** Whether a rule for `wide` says all that one for `narrow` said. */
const covers = (wide: ServicePort | undefined, narrow: ServicePort | undefined): boolean =>
  wide === undefined || (narrow !== undefined && fits(wide, narrow));

function serviceText(change: { readonly endpoint: string; readonly service: ServicePort | undefined }): string {
  return change.service === undefined ? change.endpoint : `${change.endpoint}:${change.service.protocol}/${change.service.port}`;
}

function joined(config: Config, stored: Stored): Config {
  const exposed = Object.entries(stored.endpoints)
    .filter(([name]) => config.endpoints.every((e) => e.name !== name))
    .map(([name, services]): EndpointConfig => ({ name, groups: [], services: services.map((s) => ({ ...s, allow: [] })) }));
  const endpoints = [...config.endpoints, ...exposed].map((endpoint) => ({
    ...endpoint,
    services: endpoint.services.map((service) => ({ ...service, allow: allowed(endpoint.name, service, stored) })),
  }));
  const denied = new Set(stored.trust.filter((t) => !t.trusted).map((t) => t.key));
  const kept = config.trust.filter((t) => !denied.has(trustedKey(t)));
  const listed = new Set(kept.map(trustedKey));
  const added = stored.trust.filter((t) => t.trusted && !listed.has(t.key)).map((t): Trusted => ({ network: parseKey(t.key) }));
  const trust = [...kept, ...added];
  return { ...config, endpoints, trust };
}

function allowed(endpoint: string, service: ServiceConfig, stored: Stored): readonly Who[] {
  const all = new Map(service.allow.map((who) => [formatWho(who), who]));
  for (const rule of stored.rules) {
    if (rule.endpoint !== endpoint || !fits(rule.service, service)) continue;
    if (rule.allow) all.set(rule.who, parseWho(rule.who));
    else all.delete(rule.who);
  }
  return [...all.values()];
}
