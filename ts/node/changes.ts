/**
 * Changes of a running node: a configuration read again, commands that change it, ways to devices that come and go. One after the other; what can fail comes
 * first, before anything has changed.
 */
import type { Logger } from 'pino';
import { type Change, type Config, changedRestartKeys, checkOutlets, keepRestartKeys, type LocalChanges } from '../config/index.js';
import { type ReloadDocument, SCHEMA } from '../control/index.js';
import { describe } from '../errors.js';
import type { Endpoints, PreparedEndpoints } from '../gateway/endpoints.js';
import type { Router } from '../routing/index.js';
import type { NodeStore } from '../trust/index.js';
import type { Answers } from './answers.js';
import type { Bindings } from './bindings.js';
import type { Clock } from './clock.js';
import { prepareAll } from './doors.js';
import type { Forwards } from './forwards.js';
import type { Links } from './links.js';
import type { Outlets } from './outlets.js';
import type { Proxies } from './proxies.js';
import type { Resolver } from './resolver.js';
import type { Session, Sessions } from './sessions.js';
import type { Settings } from './settings.js';

export interface ChangesOptions {
  /** Reads the configuration. */
  readonly configure: () => Config;
  /** The configuration that the node was started with. */
  readonly started: Config;
  readonly settings: Settings;
  readonly store: NodeStore;
  readonly local: LocalChanges;
  readonly clock: Clock;
  readonly log: Logger;
  readonly endpoints: Endpoints | undefined;
  readonly answers: Answers;
  readonly forwards: Forwards;
  readonly proxies: Proxies;
  readonly outlets: Outlets;
  readonly bindings: Bindings;
  readonly sessions: Sessions;
  readonly links: Links;
  readonly router: Router;
  readonly resolver: Resolver;
}

export class Changes {
  readonly #o: ChangesOptions;
  #turn: Promise<unknown> = Promise.resolve();

  constructor(options: ChangesOptions) {
    this.#o = options;
  }

  /** Throws BAD_CONFIG, and then nothing has changed. */
  reload(): Promise<ReloadDocument> {
    const { settings, started, store, clock } = this.#o;
    return this.#inTurn(async () => {
      const wanted = this.#o.configure();
      // What needs a restart stays as this node was started, whatever reloads there were: it acts and reports as it runs.
      const next = keepRestartKeys(started, wanted);
      const before = settings.membership;
      settings.membership = store.membership(clock.wallSeconds());
      try {
        await this.#apply(this.#joined(next));
      } catch (error) {
        settings.membership = before;
        throw error;
      }
      settings.file = next;
      this.#o.log.info('the configuration was read again');
      return { schema: SCHEMA, restart: changedRestartKeys(started, wanted) };
    });
  }

  /** In force, and on disk, when it resolves. */
  change(change: Change): Promise<void> {
    const { settings, local } = this.#o;
    return this.#inTurn(async () => {
      const { config, commit } = local.preview(this.#o.answers.join(settings.file), change);
      await this.#apply(config);
      try {
        commit();
      } catch (error) {
        // What isn't on disk isn't acknowledged, and doesn't stand.
        await this.#apply(this.#joined(settings.file));
        throw error;
      }
    });
  }

  /** This program answers for more, or less, than before: in force when it resolves. */
  answers(): Promise<void> {
    return this.#inTurn(() => this.#apply(this.#joined(this.#o.settings.file)));
  }

  /** A LAN that comes up late, or gets another address, must not need a reload. Never rejects. */
  async followRoutes(): Promise<void> {
    try {
      await this.#inTurn(async () => {
        if (await this.#o.endpoints?.moved()) await this.#apply(this.#o.settings.config);
      });
    } catch (error) {
      this.#o.log.error(describe(error));
    }
  }

  /** What a file becomes with what this program answers for, and what the CLI changed. */
  #joined(file: Config): Config {
    return this.#o.local.join(this.#o.answers.join(file));
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#turn.then(work);
    this.#turn = result.catch(() => {});
    return result;
  }

  async #apply(next: Config): Promise<void> {
    const { settings, endpoints, sessions, router, log } = this.#o;
    checkOutlets(next.outlets, next.endpoints);
    const doors = await prepareAll([
      () => this.#o.forwards.prepare(next.forwards),
      () => this.#o.proxies.prepare(next.proxies),
      () => this.#o.outlets.prepare(next.outlets),
    ]);
    let prepared: PreparedEndpoints | undefined;
    try {
      prepared = await endpoints?.prepare(next.endpoints);
    } catch (error) {
      await doors.cancel();
      throw error;
    }
    const before = settings.config;
    settings.config = next;
    const gone = prepared === undefined ? [] : ((await endpoints?.commit(prepared, () => this.#judgeAll())) ?? []);
    await doors.commit();
    log.level = next.log.level;
    for (const session of sessions.all().filter((s) => gone.includes(s.own))) await this.#evict(session, 'the endpoint is gone');
    router.withdraw(gone);
    this.#applyLinks(before, next);
    await this.#judgeAll();
    this.#o.resolver.forgetFailures();
    router.changed();
    // New certificates are shown at once, old ones would otherwise count until they end.
    this.#o.links.renew();
    sessions.renew();
  }

  #applyLinks(before: Config, next: Config): void {
    const { links, router } = this.#o;
    for (const parent of before.parents) {
      const still = next.parents.some((p) => p.key === parent.key && p.host === parent.host && p.port === parent.port);
      if (!still) links.removeParent(parent.key);
    }
    for (const parent of next.parents) links.addParent(parent);
    links.judge();
    router.rejudge();
  }

  /** Rules changed under live sessions: each goes on with what it may still do, or ends. */
  async #judgeAll(): Promise<void> {
    const { settings, sessions, bindings } = this.#o;
    const judge = async (session: Session): Promise<void> => {
      if (!settings.trust.admits(session.identity)) return this.#evict(session, 'no longer trusted');
      await bindings.refresh(session);
      sessions.offer(session.id);
    };
    await Promise.all(sessions.all().map(judge));
  }

  #evict(session: Session, reason: string): Promise<void> {
    return this.#o.bindings.evict(session, () => this.#o.sessions.close(session.id, reason));
  }
}
