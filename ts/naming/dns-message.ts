/**
 * DNS messages as this server needs them (RFC 1035, RFC 6891): one question in, one response out. The question goes back byte for byte, so its
 * letter case survives (some resolvers check it) and no name has to be written again that wasn't understood.
 */
import * as dns from 'dns-packet';

export type Rcode = 'NOERROR' | 'FORMERR' | 'SERVFAIL' | 'NXDOMAIN' | 'NOTIMP' | 'REFUSED' | 'BADVERS';

const RCODES: Readonly<Record<Rcode, number>> = { NOERROR: 0, FORMERR: 1, SERVFAIL: 2, NXDOMAIN: 3, NOTIMP: 4, REFUSED: 5, BADVERS: 16 };

/** Record types by number (IANA), as far as there are answers for them. */
export const TYPE = { SOA: 6, PTR: 12, TXT: 16, AAAA: 28, A: 1, SRV: 33, AXFR: 252, IXFR: 251, ANY: 255 } as const;
export const CLASS = { IN: 1, ANY: 255 } as const;

const HEADER_BYTES = 12;
const QR = 0x8000;
const AA = 0x0400;
const TC = 0x0200;
/** Recursion desired and checking disabled go back as they came. */
const ECHOED = 0x0110;
/** Every path in a host carries this much unfragmented (RFC 9715). */
const UDP_MOST = 1_232;
const UDP_LEAST = 512;
/** More additional records than OPT and a signature no query has. */
const ADDITIONAL_MOST = 4;
const EXTENDED_ERROR = 15;

export interface Question {
  /** Labels in lower case, the topmost last. Bytes that are no ASCII come as they are (latin1). */
  readonly labels: readonly string[];
  readonly type: number;
  readonly class: number;
}

/** What every response needs of its query. */
export interface QueryHead {
  readonly id: number;
  readonly flags: number;
  /** The question section as it came; empty when there was none that could be read. */
  readonly rawQuestion: Uint8Array;
  readonly edns: { readonly udpSize: number } | undefined;
}

export type ParsedQuery =
  | { readonly kind: 'question'; readonly head: QueryHead; readonly question: Question }
  /** To be answered with this code and nothing else. */
  | { readonly kind: 'refusal'; readonly head: QueryHead; readonly rcode: Rcode }
  /** No query at all: not to be answered. */
  | { readonly kind: 'silence' };

export interface Answer {
  readonly rcode: Rcode;
  readonly answers?: readonly dns.Answer[];
  readonly authorities?: readonly dns.Answer[];
  readonly additionals?: readonly dns.Answer[];
  /** Extended DNS error (RFC 8914), shown by `dig`. */
  readonly extended?: { readonly code: number; readonly text: string };
}

/** Reads whatever came in a datagram or a TCP frame. Never throws. */
export function parseQuery(bytes: Buffer): ParsedQuery {
  if (bytes.length < HEADER_BYTES) return { kind: 'silence' };
  const flags = bytes.readUInt16BE(2);
  // Answering a response could make two servers talk forever.
  if ((flags & QR) !== 0) return { kind: 'silence' };
  const [questions, ...records] = [4, 6, 8].map((at) => bytes.readUInt16BE(at));
  const read = questions === 1 ? readQuestion(bytes) : undefined;
  const rawQuestion = bytes.subarray(HEADER_BYTES, read?.end ?? HEADER_BYTES);
  const head: QueryHead = { id: bytes.readUInt16BE(0), flags, rawQuestion, edns: undefined };
  if (opcode(flags) !== 0) return { kind: 'refusal', head, rcode: 'NOTIMP' };
  if (read === undefined || records.some((count) => count !== 0)) return { kind: 'refusal', head, rcode: 'FORMERR' };
  const opts = readOptions(bytes);
  if (opts === undefined) return { kind: 'refusal', head, rcode: 'FORMERR' };
  const [opt, ...more] = opts;
  if (opt === undefined) return { kind: 'question', head, question: read.question };
  const withEdns: QueryHead = { ...head, edns: { udpSize: opt.udpPayloadSize } };
  if (more.length > 0 || opt.name !== '.') return { kind: 'refusal', head: withEdns, rcode: 'FORMERR' };
  if (opt.ednsVersion !== 0) return { kind: 'refusal', head: withEdns, rcode: 'BADVERS' };
  return { kind: 'question', head: withEdns, question: read.question };
}

const opcode = (flags: number): number => (flags >> 11) & 0xf;

/** The only question, without name compression: there is nothing before it that it could point to. */
function readQuestion(bytes: Buffer): { readonly question: Question; readonly end: number } | undefined {
  const labels: string[] = [];
  let at = HEADER_BYTES;
  for (;;) {
    const length = bytes[at];
    if (length === undefined || length > 63 || at + 1 + length - HEADER_BYTES > 255) return undefined;
    at += 1;
    if (length === 0) break;
    if (at + length > bytes.length) return undefined;
    labels.push(bytes.toString('latin1', at, at + length).toLowerCase());
    at += length;
  }
  if (at + 4 > bytes.length) return undefined;
  return { question: { labels, type: bytes.readUInt16BE(at), class: bytes.readUInt16BE(at + 2) }, end: at + 4 };
}

/** The OPT records, read by the library together with the rest; undefined when the message isn't whole. */
function readOptions(bytes: Buffer): readonly dns.OptAnswer[] | undefined {
  if (bytes.readUInt16BE(10) > ADDITIONAL_MOST) return undefined;
  try {
    const { additionals = [] } = dns.decode(bytes);
    if (dns.decode.bytes !== bytes.length) return undefined;
    return additionals.filter((record) => record.type === 'OPT');
  } catch {
    return undefined;
  }
}

/** Writes the response. Over UDP, what is longer than the asker takes is cut down to "ask again over TCP". */
export function encodeResponse(head: QueryHead, answer: Answer, transport: 'udp' | 'tcp'): Buffer {
  const most = transport === 'tcp' ? 65_535 : Math.min(Math.max(head.edns?.udpSize ?? UDP_LEAST, UDP_LEAST), UDP_MOST);
  const whole = encode(head, answer, 0);
  return whole.length <= most ? whole : encode(head, { rcode: answer.rcode }, TC);
}

function encode(head: QueryHead, answer: Answer, extraFlags: number): Buffer {
  const rcode = RCODES[answer.rcode];
  const authoritative = answer.rcode === 'NOERROR' || answer.rcode === 'NXDOMAIN' ? AA : 0;
  const packet = dns.encode({
    type: 'response',
    id: head.id,
    flags: (head.flags & ECHOED) | (opcode(head.flags) << 11) | authoritative | extraFlags | (rcode & 0xf),
    answers: [...(answer.answers ?? [])],
    authorities: [...(answer.authorities ?? [])],
    additionals: [...(answer.additionals ?? []), ...(head.edns === undefined ? [] : [opt(rcode, answer.extended)])],
  });
  if (head.rawQuestion.length === 0) return packet;
  packet.writeUInt16BE(1, 4);
  return Buffer.concat([packet.subarray(0, HEADER_BYTES), head.rawQuestion, packet.subarray(HEADER_BYTES)]);
}

function opt(rcode: number, extended: Answer['extended']): dns.OptAnswer {
  return {
    type: 'OPT',
    name: '.',
    udpPayloadSize: UDP_MOST,
    extendedRcode: rcode >> 4,
    ednsVersion: 0,
    flags: 0,
    flag_do: false,
    options: extended === undefined ? [] : [extendedError(extended.code, extended.text)],
  };
}

/** The library knows no name for this option but writes any by number; its types don't say so. */
function extendedError(code: number, text: string): dns.PacketOpt {
  const data = Buffer.concat([Buffer.from([code >> 8, code & 0xff]), Buffer.from(text.slice(0, 200))]);
  return { code: EXTENDED_ERROR, data } as unknown as dns.PacketOpt;
}
