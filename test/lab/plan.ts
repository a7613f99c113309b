/** The lab's map: which hosts there are, and their addresses. */

/** Hosts on the lab's Internet, each on a subnet of its own behind the router `inet`. */
export const INTERNET_HOSTS = ['gw', 'root', 'mid', 'viewer', 'viewer2', 'gw2', 'stranger'] as const;

/** Devices and the networks they stand in: `lan` is behind `gw`, `lan2` behind `gw2`. None has a default route or IPv6. */
export const DEVICES = {
  camera: { lan: 'lan', address: '192.168.1.20' },
  broker: { lan: 'lan', address: '192.168.1.21' },
  files: { lan: 'lan', address: '192.168.1.22' },
  light1: { lan: 'lan', address: '192.168.1.31' },
  light2: { lan: 'lan', address: '192.168.1.32' },
  lamp: { lan: 'lan2', address: '192.168.2.31' },
} as const;

export const LANS = {
  lan: { gateway: 'gw', address: '192.168.1.1' },
  lan2: { gateway: 'gw2', address: '192.168.2.1' },
} as const;

/** Where the site's own DNS server answers once started; an address of the router. */
export const SITE_DNS = { ip4: '198.51.100.53', ip6: '2001:db8:53::53' } as const;

export type InternetHost = (typeof INTERNET_HOSTS)[number];
export type Device = keyof typeof DEVICES;
export type LanName = keyof typeof LANS;
export type HostName = InternetHost | Device | LanName | 'inet';

export interface Underlay {
  readonly ip4: string;
  readonly ip6: string;
  readonly router4: string;
  readonly router6: string;
}

/** A host's addresses: a /30 and a /64 of its own, so that every packet between two hosts is routed. */
export function underlay(host: InternetHost): Underlay {
  const index = INTERNET_HOSTS.indexOf(host) + 1;
  return {
    ip4: `203.0.113.${4 * index + 2}`,
    ip6: `2001:db8:${index}::2`,
    router4: `203.0.113.${4 * index + 1}`,
    router6: `2001:db8:${index}::1`,
  };
}

/** Every namespace of a lab. */
export function hostNames(): HostName[] {
  return ['inet', ...INTERNET_HOSTS, ...(Object.keys(LANS) as LanName[]), ...(Object.keys(DEVICES) as Device[])];
}
