/** What a program answers for, as far as no overlay is needed to see it. */
import { Duplex } from 'node:stream';
import { expect, test } from '@jest/globals';
import type { Config } from '../../ts/config/index.js';
import type { SessionId } from '../../ts/dataplane/data-plane.js';
import type { HostedEndpoint } from '../../ts/gateway/endpoints.js';
import { Answers } from '../../ts/node/answers.js';
import type { Session } from '../../ts/node/session.js';

const endpoint = { name: 'door', services: [{ protocol: 'tcp', port: 7_000, account: 3 }] } as unknown as HostedEndpoint;
const session = { id: 1 as SessionId } as Session;

const incoming = (account: number, stream: Duplex) =>
  ({ type: 'incoming', session: session.id, account, peer: '198.18.0.9', peerPort: 1_234, stream }) as const;
const answerAt = (port: number) => ({ endpoint: 'door', port, allow: [], onStream: () => {} });
const failing = (): Duplex => {
  const stream = new Duplex({ read: () => {} });
  // As a caller who has hung up by the time that he is told of.
  stream.destroy(new Error('reset'));
  return stream;
};
/** Errors are emitted a moment after their stream is destroyed; one that nobody listens to ends the program. */
const moment = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test('a caller who has hung up already ends nothing but his stream, whether somebody answers or nobody', async () => {
  const answers = new Answers({ refresh: () => Promise.resolve(), endpoints: () => [endpoint], session: () => session });
  const errors: string[] = [];
  await answers.open({
    endpoint: 'door',
    port: 7_000,
    allow: [],
    onStream: (stream) => stream.on('error', ({ message }) => errors.push(message)),
  });
  const [one, other] = [failing(), failing()];
  answers.take(incoming(3, one));
  answers.take(incoming(4, other));
  await moment();
  expect(errors).toEqual(['reset']);
  expect(other.destroyed).toBe(true);
});

test('a service that is off is not listened to, and the reason is told', async () => {
  const services = [{ protocol: 'tcp', port: 7_000, account: 3, off: 'this program answers in user-space mode only' }];
  let refreshed = 0;
  const answers = new Answers({
    refresh: async () => {
      refreshed += 1;
    },
    endpoints: () => [{ name: 'door', services } as unknown as HostedEndpoint],
    session: () => session,
  });
  await expect(answers.open(answerAt(7_000))).rejects.toMatchObject({
    code: 'REFUSED',
    message: "door:7000 can't be answered: this program answers in user-space mode only",
  });
  // And taken back.
  expect(refreshed).toBe(2);
  expect(answers.join({ endpoints: [] } as unknown as Config).endpoints).toEqual([]);
});
