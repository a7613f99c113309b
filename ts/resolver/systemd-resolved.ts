/**
 * systemd-resolved takes a domain's servers per interface, and forgets them with the interface. So a unit bound to the TUN tells it each time
 * the TUN appears. A drop-in under resolved.conf.d would survive by itself, but makes Thicket's a server for every name: resolved asks one
 * of its global servers at a time, and stays with the one that answered last.
 */
import { type ResolverTarget, serverAddress, targetZones } from './target.js';

export const UNIT = 'thicket-dns.service';
export const UNIT_FILE = `/etc/systemd/system/${UNIT}`;

/** Reverse zones beyond this many are left out: resolved goes through them for every question. */
const ZONES_MOST = 32;

export function unitText(target: ResolverTarget): string {
  const { interfaceName, domain, port } = target;
  const device = `${escapePath(`sys/subsystem/net/devices/${interfaceName}`)}.device`;
  const zones = targetZones(target);
  const domains = [domain, ...(zones.length > ZONES_MOST ? [] : zones)].map((zone) => `~${zone}`);
  const server = `${serverAddress(target)}${port === 53 ? '' : `:${port}`}`;
  const settings = [
    `dns ${interfaceName} ${server}`,
    `domain ${interfaceName} ${domains.join(' ')}`,
    `default-route ${interfaceName} no`,
    `llmnr ${interfaceName} no`,
    `mdns ${interfaceName} no`,
    `dnssec ${interfaceName} no`,
    `dnsovertls ${interfaceName} no`,
  ];
  return `# Written by "thicket dns install"; "thicket dns remove" takes it away.
[Unit]
Description=Names under .${domain} are asked of Thicket
BindsTo=${device}
After=${device} systemd-resolved.service

[Service]
Type=oneshot
RemainAfterExit=yes
${settings.map((setting) => `ExecStart=resolvectl ${setting}`).join('\n')}
ExecStop=-resolvectl revert ${interfaceName}

[Install]
WantedBy=${device}
`;
}

/** As `systemd-escape --path` does it, without the first slash. */
function escapePath(path: string): string {
  return path
    .replace(/[^A-Za-z0-9:_./]/g, (character) => `\\x${character.charCodeAt(0).toString(16).padStart(2, '0')}`)
    .replaceAll('/', '-');
}
