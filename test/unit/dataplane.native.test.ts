import { afterEach, describe, expect, test } from '@jest/globals';
import type { DataPlane, DataPlaneEvent } from '../../ts/dataplane/data-plane.js';
import { openDataPlane } from '../../ts/dataplane/loader.js';
import { waitFor } from '../lab/index.js';

describe('the native data plane', () => {
  let plane: DataPlane | undefined;
  afterEach(() => plane?.close());

  test('says in the log what its sockets got', async () => {
    const events: DataPlaneEvent[] = [];
    plane = await openDataPlane({ nodeKey: new Uint8Array(32), listen: [{ host: '127.0.0.1', port: 0 }] }, (batch) => {
      events.push(...batch);
    });
    await waitFor(() => events.length > 0, { what: 'a line' });
    expect(events).toContainEqual({
      type: 'log',
      level: 'debug',
      message: expect.stringMatching(/^UDP socket 0: buffers of \d+ KiB in and \d+ KiB out/),
    });
  });
});
