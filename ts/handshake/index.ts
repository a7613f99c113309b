export {
  type Answer,
  answerRekey,
  Call,
  Callee,
  type ExchangeKind,
  type Keys,
  type Own,
  RENEWS,
  RekeyCall,
  type Rekeyed,
  SIZES,
} from './exchange.js';
export { readCookie, writeMacs } from './macs.js';
export { type DhPair, Initiator, Responder, type Transport } from './noise.js';
export { chainHash, type IdentityPayload } from './payload.js';
