/** Talking to the running node. */
// Not by the folder's index, which loads the server with it.
import { ControlClient } from '../control/client.js';
import { controlSocket, type NodeOption } from './options.js';

/** Runs `use` with a client of the node that `options` name. */
export async function withNode<T>(options: NodeOption, use: (client: ControlClient) => Promise<T>): Promise<T> {
  const client = new ControlClient(controlSocket(options));
  try {
    return await use(client);
  } finally {
    await client.close();
  }
}
