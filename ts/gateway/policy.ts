/**
 * Policy: who may reach which service of an endpoint, compiled per session to the short list that the data plane looks packets up in.
 * An empty list means nobody.
 */
import type { AllowedService, Protocol } from '../dataplane/data-plane.js';
import type { PublicKey } from '../trust/index.js';
import { matches, type VerifiedIdentity, type Who } from '../trust/index.js';

/** One service of an endpoint as configured: a port of the endpoint that stands for a port of a device. */
export interface Service {
  readonly protocol: Protocol;
  readonly port: number;
  readonly rtsp: boolean;
  /** Absent: this program answers by itself. */
  readonly target?: { readonly host: string; readonly port: number };
  readonly allow: readonly Who[];
  readonly force: boolean;
  /** Index for accounting, unique on this node while it runs. */
  readonly account: number;
  /** Why the service is off (its rule can't be installed): nobody may reach it. */
  readonly off?: string;
  /** Our own address on the device's network: where RTSP media ports are reserved. */
  readonly lan?: string;
}

/** The services that `identity` may reach, as the data plane wants them. */
export function compilePolicy(
  services: readonly Service[],
  identity: VerifiedIdentity,
  ownNetwork: PublicKey | undefined,
): AllowedService[] {
  return services
    .filter((service) => service.off === undefined)
    .filter((service) => service.allow.some((who) => matches(who, identity, ownNetwork)))
    .map((service) => ({
      protocol: service.protocol,
      port: service.port,
      family: service.target?.host.includes(':') ? 6 : 4,
      ...(service.target === undefined ? { local: true } : { target: service.target }),
      account: service.account,
      ...(service.rtsp && service.lan !== undefined ? { rtsp: { lan: service.lan } } : {}),
    }));
}
