/** The demo as somebody runs it who may do nothing on his machine. */
import { join } from 'node:path';
import { Process, repository } from '../lab/index.js';

test('without any privilege the same scenario holds in user-space mode on loopback, and says so', async () => {
  const unprivileged = ['setpriv', '--bounding-set=-all', '--inh-caps=-all', '--no-new-privs'];
  const demo = await Process.start([...unprivileged, process.execPath, join(repository, 'build', 'programs', 'demo', 'main.js')]);
  expect(await demo.exit).toEqual({ code: 0, signal: null });
  expect(demo.stderr[0]).toMatch(/CAP_NET_ADMIN.*: the scenario runs in user-space mode on loopback/);
  expect(demo.stdout.filter((line) => line.startsWith('✘'))).toEqual([]);
  expect(demo.stdout.join('\n')).toMatch(/^11 of 11 claims held/m);
}, 180_000);
