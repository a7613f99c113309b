/** /etc/resolv.conf with Thicket's server before the site's: who finds it refusing a name goes on to the next. glibc does. */
import { type ResolverTarget, serverAddress } from './target.js';

/** glibc reads no more (resolv.conf(5), MAXNS). */
const SERVERS = 3;
const MARK = '# Thicket answers for its own domain only and comes first; "thicket dns remove" puts back what was here before.';

export interface ResolvConf {
  readonly content: string;
  readonly warnings: readonly string[];
}

export function nameservers(text: string): string[] {
  return text.split('\n').flatMap((line) => {
    const server = /^nameserver\s+(\S+)/.exec(line)?.[1];
    return server === undefined ? [] : [server];
  });
}

/** The file with our server before the first, and what was taken out of it on the way. */
export function withThicket(before: string, target: ResolverTarget): ResolvConf {
  const ours = serverAddress(target);
  const isServer = (line: string): boolean => /^nameserver\s/.test(line);
  const lines = before.split('\n').filter((line) => line !== MARK && nameservers(line)[0] !== ours);
  const warnings: string[] = [];
  const site = lines.filter(isServer).length;
  if (site === 0) warnings.push('no other DNS server stands in /etc/resolv.conf: names outside the overlay will not resolve');
  for (const dropped of lines.filter(isServer).slice(SERVERS - 1)) {
    warnings.push(`${dropped} is left out: the C library reads ${SERVERS} servers at most, and Thicket's is one of them`);
  }
  if (lines.some((line) => options(line).includes('rotate'))) {
    warnings.push('"options rotate" is left out: with it the C library would ask the servers in turn');
  }
  let seen = 0;
  const kept = lines
    .filter((line) => !isServer(line) || (seen += 1) < SERVERS)
    .map((line) =>
      options(line).includes('rotate') ? ['options', ...options(line).filter((option) => option !== 'rotate')].join(' ') : line,
    )
    .filter((line) => line !== 'options');
  const first = kept.findIndex(isServer);
  const at = first >= 0 ? first : kept.at(-1) === '' ? kept.length - 1 : kept.length;
  kept.splice(at, 0, MARK, `nameserver ${ours}`);
  if (kept.at(-1) !== '') kept.push('');
  return { content: kept.join('\n'), warnings };
}

/** Whether `text` still leads to our server. */
export function namesThicket(text: string, target: ResolverTarget): boolean {
  return nameservers(text).includes(serverAddress(target));
}

/** The program that writes this resolv.conf by itself, when it says so. */
export function writerOf(text: string): string | undefined {
  const comments = text
    .split('\n')
    .filter((line) => /^[#;]/.test(line) && line !== MARK)
    .join('\n');
  return /NetworkManager|resolvconf|systemd-resolved|dhclient|dhcpcd|connman|netconfig|Tailscale/i.exec(comments)?.[0];
}

function options(line: string): string[] {
  const [keyword, ...words] = line.trim().split(/\s+/);
  return keyword === 'options' ? words : [];
}
