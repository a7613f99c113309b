/** What this node is set to at the moment: its configuration with what the CLI changed, its certificate, and whom it trusts. */
import type { Config } from '../config/index.js';
import { type Membership, TrustList } from '../trust/index.js';

export class Settings {
  /** As in the file; what needs a restart is as the node was started. */
  file: Config;
  #config: Config;
  #membership: Membership | undefined;
  #trust: TrustList;

  constructor(file: Config, joined: Config, membership: Membership | undefined) {
    this.file = file;
    this.#config = joined;
    this.#membership = membership;
    this.#trust = this.#trusted();
  }

  get config(): Config {
    return this.#config;
  }

  get membership(): Membership | undefined {
    return this.#membership;
  }

  get trust(): TrustList {
    return this.#trust;
  }

  set membership(membership: Membership | undefined) {
    this.#membership = membership;
    this.#trust = this.#trusted();
  }

  set config(config: Config) {
    this.#config = config;
    this.#trust = this.#trusted();
  }

  #trusted(): TrustList {
    return new TrustList(this.#membership?.network.key, this.#config.trust);
  }
}
