/** What the program that embeds this node answers for by itself: services of endpoints here that lead to no device, but to its own code. */
import type { Duplex } from 'node:stream';
import { type Config, type EndpointConfig, networkOf, type ServiceConfig } from '../config/index.js';
import type { DataPlaneEvent, SessionId } from '../dataplane/index.js';
import { ThicketError } from '../errors.js';
import type { HostedEndpoint } from '../gateway/endpoints.js';
import { parseWho } from '../trust/index.js';
import type { Session } from './session.js';

export interface Answer {
  /** A name of an endpoint, as in `expose`; it may have other services, of devices, too. */
  readonly endpoint: string;
  /** TCP. */
  readonly port: number;
  /** Who may call, as in thicket.yaml; nobody else. */
  readonly allow: readonly string[];
  /** Takes a caller's stream over, which is connected, or was: it must listen to its errors before it returns. */
  readonly onStream: (stream: Duplex, session: Session) => void;
}

export interface AnswersOptions {
  /** Puts in force what has changed here. */
  readonly refresh: () => Promise<void>;
  readonly endpoints: () => readonly HostedEndpoint[];
  readonly session: (id: SessionId) => Session | undefined;
}

type Incoming = Extract<DataPlaneEvent, { readonly type: 'incoming' }>;

export class Answers {
  readonly #o: AnswersOptions;
  readonly #all = new Set<Answer>();

  constructor(options: AnswersOptions) {
    this.#o = options;
  }

  /** Answers from now on; resolves with what ends it, and the streams that came by it. Throws EXISTS, REFUSED, or what makes an endpoint impossible. */
  async open(answer: Answer): Promise<() => Promise<void>> {
    const close = async (): Promise<void> => {
      if (this.#all.delete(answer)) await this.#o.refresh();
    };
    this.#all.add(answer);
    try {
      await this.#o.refresh();
    } catch (error) {
      this.#all.delete(answer);
      throw error;
    }
    const off = this.#o
      .endpoints()
      .find(({ name }) => name === answer.endpoint)
      ?.services.find((service) => service.protocol === 'tcp' && service.port === answer.port)?.off;
    if (off === undefined) return close;
    await close();
    throw new ThicketError('REFUSED', `${answer.endpoint}:${answer.port} can't be answered: ${off}`);
  }

  /** A configuration with these services. Throws EXISTS, or BAD_KEY for somebody who is nobody. */
  join(config: Config): Config {
    if (this.#all.size === 0) return config;
    const endpoints = new Map(config.endpoints.map((endpoint) => [endpoint.name, endpoint]));
    for (const answer of this.#all) {
      const endpoint: EndpointConfig = endpoints.get(answer.endpoint) ?? { name: answer.endpoint, groups: [], services: [] };
      if (endpoint.services.some(({ protocol, port }) => protocol === 'tcp' && port === answer.port)) throw taken(answer);
      const allow = answer.allow.map((who) => parseWho(who, networkOf(config)));
      const service: ServiceConfig = { protocol: 'tcp', port: answer.port, rtsp: false, allow, force: false };
      endpoints.set(answer.endpoint, { ...endpoint, services: [...endpoint.services, service] });
    }
    return { ...config, endpoints: [...endpoints.values()] };
  }

  /** A caller's stream: to who answers, or to nobody. */
  take({ session: id, account, stream }: Incoming): void {
    const session = this.#o.session(id);
    const endpoint = this.#o.endpoints().find(({ services }) => services.some((service) => service.account === account));
    const port = endpoint?.services.find((service) => service.account === account)?.port;
    const answer = endpoint === undefined || port === undefined ? undefined : this.#answer(endpoint.name, port);
    if (session !== undefined && answer !== undefined) return answer.onStream(stream, session);
    // It may have failed already: nobody is to hear of that.
    stream.on('error', () => {});
    stream.destroy();
  }

  #answer(endpoint: string, port: number): Answer | undefined {
    return [...this.#all].find((answer) => answer.endpoint === endpoint && answer.port === port);
  }
}

const taken = ({ endpoint, port }: Answer): ThicketError =>
  new ThicketError('EXISTS', `${endpoint} has a service on port ${port} already: choose another port`);
