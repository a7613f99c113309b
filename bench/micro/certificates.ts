/** Checks of certificate chains, on one core: a node's, and an endpoint's with the grant of its short name. */
import { BUILD_TIME, encodeCertificate, encodeEndpointCertificate, encodeGrant, KeyPair, verifyChain } from '../../ts/trust/index.js';
import { rate } from './measure.js';
import type { RateRow } from './results.js';

const YEAR = 31_536_000;

export function certificateRows(seconds: number): RateRow[] {
  const [network, gateway, camera] = [KeyPair.generate(), KeyPair.generate(), KeyPair.generate()];
  const dates = { serial: 1, issuedAt: BUILD_TIME, notAfter: BUILD_TIME + YEAR };
  const node = encodeCertificate(
    { network: network.publicKey, key: gateway.publicKey, name: 'gw', groups: ['family'], rights: ['gateway'], delegable: [], ...dates },
    network,
  );
  const endpoint = encodeEndpointCertificate(
    { gateway: gateway.publicKey, key: camera.publicKey, name: 'camera', groups: [], ...dates },
    gateway,
  );
  const grant = encodeGrant(
    { network: network.publicKey, gateway: gateway.publicKey, name: 'camera', generation: 1, serial: 2, issuedAt: BUILD_TIME },
    network,
  );
  const check = { kind: 'session', floor: BUILD_TIME, now: BUILD_TIME } as const;
  return [
    { what: "a node's certificate", ...rate(() => void verifyChain([node], undefined, gateway.publicKey, check), seconds) },
    { what: "an endpoint's chain and grant", ...rate(() => void verifyChain([node, endpoint], grant, camera.publicKey, check), seconds) },
  ];
}
