import { afterEach, describe, expect, test } from '@jest/globals';
import type { DataPlane, DataPlaneEvent, DataPlaneOptions } from '../../ts/dataplane/data-plane.js';
import { openDataPlane } from '../../ts/dataplane/loader.js';
import { waitFor } from '../lab/index.js';

describe('the native data plane', () => {
  let plane: DataPlane | undefined;
  afterEach(() => plane?.close());

  const log = async (options: Partial<DataPlaneOptions>): Promise<readonly DataPlaneEvent[]> => {
    const events: DataPlaneEvent[] = [];
    const listen = [{ host: '127.0.0.1', port: 0 }];
    plane = await openDataPlane({ nodeKey: new Uint8Array(32), listen, ...options }, (batch) => void events.push(...batch));
    await waitFor(() => events.length > 0, { what: 'a line' });
    return events;
  };
  const sealedWith = (what: RegExp): DataPlaneEvent => ({
    type: 'log',
    level: 'debug',
    message: expect.stringMatching(new RegExp(`^trains of packets are sealed with ${what.source}$`)) as unknown as string,
  });

  test('says in the log what seals trains of packets', async () => {
    expect(await log({})).toContainEqual(sealedWith(/(AVX-512|AVX2|ring)/));
  });

  test('seals with ring alone when it is told to', async () => {
    expect(await log({ aead: 'ring' })).toContainEqual(sealedWith(/ring/));
  });

  test.each([
    [1, '1 thread'],
    [3, '3 threads'],
    // As many processors as it may use, which a control group may limit.
    ['auto', '[1-9][0-9]? threads?'],
  ] as const)('has as many threads as it is told: %s', async (threads, said) => {
    const message = expect.stringMatching(new RegExp(`^${said} for packets, `)) as unknown as string;
    expect(await log({ threads })).toContainEqual({ type: 'log', level: 'debug', message });
  });
});
