export { formatWho, matches, type NetworkLookup, parseWho, type Trusted, TrustList, type Who } from './admission.js';
export { BUILD_TIME } from './build-time.js';
export { type Cbor, decodeCbor, encodeCbor, equalBytes, Fields } from './cbor.js';
export {
  CERTIFICATE_MAX,
  type Certificate,
  checkLabel,
  decodeCertificate,
  decodeEndpointCertificate,
  decodeGrant,
  type EndpointCertificate,
  encodeCertificate,
  encodeEndpointCertificate,
  encodeGrant,
  GRANT_MAX,
  type Grant,
  type Right,
} from './certificate.js';
export { ensurePrivateFolder, loadState, readPrivate, saveState, writeFileDurably } from './files.js';
export { type ChainCheck, type VerifiedIdentity, verifyChain } from './identity.js';
export {
  agreementKey,
  base32,
  KeyPair,
  keyBytes,
  keyFromBytes,
  nameKeyPair,
  type PublicKey,
  parseKey,
  type SignatureContext,
  verify,
} from './keys.js';
export {
  decodeBundle,
  decodeRequest,
  encodeBundle,
  encodeRequest,
  formatNetworkRef,
  NetworkFolder,
  type NetworkRef,
  parseNetworkRef,
  type SignedBundle,
  type SignOptions,
} from './network.js';
export { sodium } from './sodium.js';
export { stateFolder } from './state-folder.js';
export { type EndpointIdentity, type Membership, NodeStore } from './store.js';
