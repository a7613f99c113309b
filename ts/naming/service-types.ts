/** Service types of DNS-SD (IANA's service names) for the ports that devices use. A port that has none here is reached by its number only. */

export interface PublishedService {
  readonly protocol: 'tcp' | 'udp';
  readonly port: number;
  /** It speaks RTSP, whatever its port. */
  readonly rtsp: boolean;
}

const TYPES: Readonly<Record<string, string>> = {
  'tcp/22': '_ssh._tcp',
  'tcp/80': '_http._tcp',
  'tcp/443': '_https._tcp',
  'tcp/502': '_mbap._tcp',
  'tcp/554': '_rtsp._tcp',
  'tcp/631': '_ipp._tcp',
  'tcp/1883': '_mqtt._tcp',
  'tcp/8080': '_http._tcp',
  'tcp/8443': '_https._tcp',
  'tcp/8883': '_secure-mqtt._tcp',
  'udp/123': '_ntp._udp',
  'udp/161': '_snmp._udp',
  'udp/5683': '_coap._udp',
  'udp/5684': '_coaps._udp',
};

/** The types among these services, with their ports, the lowest first. */
export function serviceTypes(services: readonly PublishedService[]): { readonly type: string; readonly ports: readonly number[] }[] {
  const byType = new Map<string, number[]>();
  for (const { protocol, port, rtsp } of services.toSorted((a, b) => a.port - b.port)) {
    const type = rtsp ? `_rtsp._${protocol}` : TYPES[`${protocol}/${port}`];
    if (type !== undefined) byType.set(type, [...(byType.get(type) ?? []), port]);
  }
  return [...byType].map(([type, ports]) => ({ type, ports }));
}
