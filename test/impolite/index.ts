/** A client with a valid certificate that keeps no rule but the wire's. */
export { ImpoliteClient, type ImpoliteOptions } from './client.js';
export { echoBody, errorBody, errorClass, inner, kind, partBody, tcpBody, tcpFlag, udpBody } from './inner.js';
export type { Heard, Order, Results, Sent, SessionReport, StatusReport } from './protocol.js';
