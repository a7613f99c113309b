/** Where in a configuration something stands, for messages. */
import { type Document, isMap, isNode, isScalar, type LineCounter } from 'yaml';
import { describe, isThicketError, ThicketError } from '../errors.js';

export type Path = readonly PropertyKey[];

export class Place {
  readonly #what: string;
  readonly #line: ((path: Path) => number) | undefined;

  /** `what`: the file, or what else it is; `line`: where in it, if it has lines. */
  constructor(what: string, line?: (path: Path) => number) {
    this.#what = what;
    this.#line = line;
  }

  error(path: Path, reason: string): ThicketError {
    const where = this.#line === undefined ? this.#what : `${this.#what}:${this.#line(path)}`;
    return new ThicketError('BAD_CONFIG', `${where}: ${reason}`);
  }

  /** Runs `read`; whatever it throws is said with the place of `path`. */
  at<T>(path: Path, read: () => T): T {
    try {
      return read();
    } catch (error) {
      if (isThicketError(error) && error.code === 'BAD_CONFIG' && error.message.startsWith(`${this.#what}:`)) throw error;
      throw this.error(path, `${path.map(String).join('.')}: ${describe(error)}`);
    }
  }
}

/** The line of the key, or of the nearest thing around it that stands in the file. */
export function lineOf(path: Path, document: Document, lines: LineCounter): number {
  for (let length = path.length; length > 0; length -= 1) {
    const parent = length === 1 ? document.contents : document.getIn(path.slice(0, length - 1), true);
    const last = path[length - 1];
    const pair = isMap(parent) ? parent.items.find(({ key }) => (isScalar(key) ? key.value : key) === last) : undefined;
    const node = pair?.key ?? document.getIn(path.slice(0, length), true);
    if (isNode(node) && node.range) return lines.linePos(node.range[0]).line;
  }
  return 1;
}
