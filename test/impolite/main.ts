/**
 * The impolite client: `node build/programs/test/impolite/main.js STATE PARENT [LISTEN]`. A node with a valid certificate (STATE: made by `thicket node init`
 * and `thicket join`; PARENT: `udp://host:port#key`) that connects and sets sessions up as any other, and then does what it is told to. Orders come
 * in and replies go out as lines of JSON: see protocol.ts. Ends with its standard input. With LISTEN, `udp://host:port`, it is a relay instead that does
 * its work as it should, and remembers what it hears.
 */
import { createInterface } from 'node:readline';
import { parseListen, parseParent } from '../../ts/config/values.js';
import { describe } from '../../ts/errors.js';
import { waitFor } from '../lab/wait.js';
import { carryOut } from './orders.js';
import type { Reply, Request } from './protocol.js';
import { RawNode } from './raw-node.js';

async function main([state, parent, listen]: readonly string[]): Promise<void> {
  if (state === undefined || parent === undefined) throw new Error('usage: main.js STATE udp://host:port#key [udp://host:port]');
  const relay =
    listen === undefined ? {} : { listen: [parseListen(listen)], polite: true, rights: { relay: true, gateway: true, cap: 1_000 } };
  const node = await RawNode.fromState(state, { parents: [parseParent(parent)], ...relay });
  await waitFor(() => node.parentLink(), { what: 'the link to the parent', timeoutMs: 30_000 });
  console.log(`ready ${node.key}`);
  for await (const line of createInterface({ input: process.stdin })) {
    const { id, order } = JSON.parse(line) as Request;
    const reply = await carryOut(node, order).then(
      (result): Reply => ({ id, ok: true, result }),
      (error: unknown): Reply => ({ id, ok: false, error: describe(error) }),
    );
    console.log(JSON.stringify(reply, (_, value) => (value instanceof Uint8Array ? Buffer.from(value).toString('hex') : value)));
    if (order.do === 'stop') break;
  }
}

main(process.argv.slice(2)).then(
  () => process.exit(0),
  (error: unknown) => {
    console.error(describe(error));
    process.exit(1);
  },
);
