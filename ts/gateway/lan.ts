/** The way from this host to devices, as far as it has to be known: the kernel addon tells it with a TUN, Node.js itself in user-space mode. */
import { createSocket } from 'node:dgram';
import { isIPv6 } from 'node:net';
import { networkInterfaces } from 'node:os';
import { describe, ThicketError } from '../errors.js';
import type { FlowPair, NatService } from './nat/index.js';

export interface Lan {
  /** This host's own addresses. */
  addresses(): Promise<readonly { readonly address: string }[]>;
  /** Our own address on the way to a device. Throws NO_ROUTE. */
  routeTo(host: string): Promise<{ readonly source: string }>;
}

/** What makes packets for endpoints reach devices. */
export interface Translation {
  /** All services at once: on failure the former state stays. Throws BAD_CONFIG for services that can't be, or what the kernel says. */
  apply(services: readonly NatService[]): Promise<void>;
  /** Ends these flows; resolves when they are ended. */
  cut(pairs: readonly FlowPair[]): Promise<void>;
}

/** Any port will do: connecting a UDP socket sends nothing. */
const DISCARD = 9;

/** Asks without privileges and without addons. */
export const systemLan: Lan = {
  addresses: () => Promise.resolve(Object.values(networkInterfaces()).flatMap((of) => (of ?? []).map(({ address }) => ({ address })))),
  routeTo: (host) =>
    new Promise((resolve, reject) => {
      const socket = createSocket(isIPv6(host) ? 'udp6' : 'udp4');
      const failed = (error: Error): void => {
        socket.close();
        reject(
          new ThicketError('NO_ROUTE', `there is no route to ${host} (${describe(error)}): check this host's network`, { cause: error }),
        );
      };
      // The callback of `connect` gets its error, too, which the types don't say.
      const connected = (error?: Error): void => {
        if (error !== undefined) return failed(error);
        const source = socket.address().address;
        socket.close();
        resolve({ source });
      };
      socket.connect(DISCARD, host, connected);
    }),
};
