/** What lies behind the tunnels: iperf3's server, and a web server whose file has no end. */
import type { Host } from '../../test/lab/index.js';
import { SERVED } from './route.js';

const ENDLESS = `
import { createServer } from 'node:http';
import { pipeline, Readable } from 'node:stream';
const chunk = Buffer.alloc(65_536, 'thicket');
function* forever() { for (;;) yield chunk; }
const [address, port] = process.argv.slice(1);
createServer((request, response) => {
  if (request.url === '/endless') pipeline(Readable.from(forever(), { objectMode: false }), response, () => {});
  else response.end('ready');
})
  .listen(Number(port), address, () => console.log('ready'));
`;

export async function serve(host: Host, address: string): Promise<void> {
  const iperf = await host.spawn(['iperf3', '-s', '-B', address, '-p', String(SERVED.iperf), '--forceflush']);
  await iperf.waitForLine(/Server listening/);
  const web = await host.spawn([process.execPath, '--input-type=module', '--eval', ENDLESS, address, String(SERVED.web)]);
  await web.waitForLine(/^ready$/);
}
