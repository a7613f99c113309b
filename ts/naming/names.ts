/** Names under the domain: `<key>.thicket` is a key, `<name>.<network>.thicket` a name that a network certified. */
import { checkLabel, type PublicKey, parseKey } from '../trust/index.js';

/** A name that stands for somebody. */
export type ResolvableName =
  | { readonly kind: 'key'; readonly key: PublicKey }
  /** `name`: `camera`, or `camera.gw` for an endpoint under its gateway's name. `network`: a nickname or a network's key. */
  | { readonly kind: 'name'; readonly name: string; readonly network: string };

/** `apex`: the domain itself, or a network's part of it, when there is such a network. */
export type ParsedName = ResolvableName | { readonly kind: 'apex'; readonly network: string | undefined };

export interface ParseNameOptions {
  /** The domain may be left out, as on the command line. Default false. */
  readonly bare?: boolean;
}

/** Reads a name in any case, with or without the last dot; undefined for what can't be one. */
export function parseName(text: string, domain: string, options: ParseNameOptions = {}): ParsedName | undefined {
  const labels = text.toLowerCase().replace(/\.$/, '').split('.');
  if (labels.at(-1) === domain) return parseLabels(labels.slice(0, -1));
  if (options.bare !== true) return undefined;
  const parsed = parseLabels(labels);
  return parsed?.kind === 'apex' ? undefined : parsed;
}

/** Reads the labels before the domain, in lower case. */
export function parseLabels(labels: readonly string[]): ParsedName | undefined {
  if (!labels.every(isLabel)) return undefined;
  const [first, ...rest] = labels;
  if (first === undefined) return { kind: 'apex', network: undefined };
  const network = rest.at(-1);
  if (network === undefined) {
    const key = keyOf(first);
    return key === undefined ? { kind: 'apex', network: first } : { kind: 'key', key };
  }
  return rest.length > 2 ? undefined : { kind: 'name', name: [first, ...rest.slice(0, -1)].join('.'), network };
}

/** The whole name, without a last dot. */
export function formatName(name: ResolvableName, domain: string): string {
  return name.kind === 'key' ? `${name.key}.${domain}` : `${name.name}.${name.network}.${domain}`;
}

function isLabel(text: string): boolean {
  try {
    return checkLabel('name', text) === text;
  } catch {
    return false;
  }
}

function keyOf(label: string): PublicKey | undefined {
  if (label.length !== 52) return undefined;
  try {
    return parseKey(label);
  } catch {
    return undefined;
  }
}
