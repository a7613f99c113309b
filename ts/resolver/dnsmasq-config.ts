/** What dnsmasq's options say (dnsmasq(8)), and the file that tells it about Thicket. */
import { type ResolverTarget, serverAddress, targetZones } from './target.js';

/** One option, by its long name. */
export interface DnsmasqOption {
  readonly name: string;
  readonly value: string;
}

/** Options that matter here and take a value, by their short names. */
const VALUED: Readonly<Record<string, string>> = {
  C: 'conf-file',
  7: 'conf-dir',
  i: 'interface',
  I: 'except-interface',
  a: 'listen-address',
};
/** All short options that take a value: what follows one is no option. */
const TAKES_VALUE = 'aABcCFgGHiIjJlmMOpPQrsStTuUVWxXY024678';

/** Reads a command line, without the program's name. */
export function parseArguments(argv: readonly string[]): DnsmasqOption[] {
  const found: DnsmasqOption[] = [];
  const words = [...argv];
  for (let word = words.shift(); word !== undefined; word = words.shift()) {
    const [, long, value] = /^--([A-Za-z0-9-]+)(?:=(.*))?$/s.exec(word) ?? [];
    if (long !== undefined) {
      const apart = value === undefined && Object.values(VALUED).includes(long);
      found.push({ name: long, value: value ?? (apart ? words.shift() : undefined) ?? '' });
    } else if (/^-[^-]/.test(word)) {
      // Several letters in one word; the first that takes a value takes the rest of it, or the next word.
      const at = [...word].findIndex((letter) => TAKES_VALUE.includes(letter));
      if (word.slice(1, at < 0 ? undefined : at).includes('z')) found.push({ name: 'bind-interfaces', value: '' });
      if (at < 0) continue;
      const argument = word.slice(at + 1) || (words.shift() ?? '');
      const name = VALUED[word[at] ?? ''];
      if (name !== undefined) found.push({ name, value: argument });
    }
  }
  return found;
}

/** Reads a configuration file. */
export function parseFile(text: string): DnsmasqOption[] {
  return text.split('\n').flatMap((line) => {
    const match = /^\s*([a-z0-9-]+)\s*(?:=\s*(.*?)\s*)?(?:\s#.*)?$/.exec(line);
    return match === null ? [] : [{ name: match[1] ?? '', value: match[2] ?? '' }];
  });
}

/** The folder whose `.conf` files are read; the first that `conf-dir` names. */
export function confFolder(options: readonly DnsmasqOption[]): string | undefined {
  return options.find(({ name }) => name === 'conf-dir')?.value.split(',', 1)[0];
}

/** Whether hosts other than this one may ask it. */
export function servesOthers(options: readonly DnsmasqOption[]): boolean {
  const values = (name: string): string[] => options.filter((option) => option.name === name).flatMap(({ value }) => value.split(','));
  if (options.some(({ name, value }) => name === 'local-service' && value === 'host')) return false;
  const [interfaces, addresses] = [values('interface'), values('listen-address')];
  if (interfaces.length + addresses.length === 0) return true;
  return interfaces.some((name) => name !== 'lo') || addresses.some((address) => !/^127\.|^::1$/.test(address));
}

/** `options`: those in force without this file. */
export function thicketConf(target: ResolverTarget, options: readonly DnsmasqOption[]): string {
  const server = `${serverAddress(target)}${target.port === 53 ? '' : `#${target.port}`}`;
  const binds = options.some(({ name }) => name === 'bind-interfaces' || name === 'bind-dynamic');
  return [
    '# Written by "thicket dns install"; "thicket dns remove" takes it away.',
    ...[target.domain, ...targetZones(target)].map((zone) => `server=/${zone}/${server}`),
    '# Local addresses of the overlay are private ones, on purpose.',
    `rebind-domain-ok=/${target.domain}/`,
    "# Port 53 on the overlay's interface is the node's own: leave it free.",
    `except-interface=${target.interfaceName}`,
    ...(binds ? [] : ['bind-dynamic']),
    '',
  ].join('\n');
}
