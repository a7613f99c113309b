/** Carries out the impolite client's orders on a raw node. */
import { randomBytes, randomInt } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { isIPv4 } from 'node:net';
import type { LinkId, SessionId, SocketAddress } from '../../ts/dataplane/data-plane.js';
import { type Announced, encodeFrame } from '../../ts/routing/frames.js';
import { signEdge, signEndpointEdge, signNameRecord, signParentSet } from '../../ts/routing/statements.js';
import { KeyPair, keyBytes, type PublicKey } from '../../ts/trust/index.js';
import { LabError } from '../lab/errors.js';
import { echoBody, inner, kind, tcpBody, tcpFlag, udpBody } from './inner.js';
import type { Order, Results, Sent, StatusReport } from './protocol.js';
import type { RawNode } from './raw-node.js';

const SOURCE_PORT = 40_000;

export async function carryOut(node: RawNode, order: Order): Promise<Results[Order['do']]> {
  switch (order.do) {
    case 'status':
      return status(node);
    case 'heard':
      return node.heard.map((heard) => ({ ...heard, bytes: hex(heard.bytes) }));
    case 'dial':
      return { session: (await node.dial(order.peer)).id };
    case 'stop':
      await node.stop();
      return {};
    case 'replay':
      return { sent: await replay(node, order.what, order.from) };
    case 'datagrams': {
      const datagrams = order.datagrams.map(bytes);
      await sendAll(node, order.to, datagrams, order.from);
      return { sent: datagrams.map(hex) };
    }
    case 'labels': {
      const random = Array.from({ length: order.random ?? 0 }, () => randomInt(256, 2 ** 32));
      const labels = [...(order.labels ?? []), ...random];
      const packet = inner(kind.udp, udpBody({ from: SOURCE_PORT, to: 554 }, randomBytes(32)));
      return { labels, ...recorded(node, () => labels.forEach((label) => void node.plane.sendOnLabel(parentOf(node), label, packet))) };
    }
    default:
      return recorded(node, () => send(node, order));
  }
}

type Sending = Exclude<Order, { readonly do: 'status' | 'heard' | 'dial' | 'stop' | 'replay' | 'datagrams' | 'labels' }>;

function send(node: RawNode, order: Sending): void {
  const { plane } = node;
  switch (order.do) {
    case 'knock':
      for (const to of order.ports) for (const packet of knocks(order, to)) plane.sendInner(order.session as SessionId, packet);
      return;
    case 'echo':
      plane.sendInner(order.session as SessionId, inner(kind.echo, echoBody('request', 1, 1, randomBytes(32))));
      return;
    case 'inner':
      for (let i = 0; i < (order.times ?? 1); i += 1) plane.sendInner(order.session as SessionId, bytes(order.bytes));
      return;
    case 'spoil': {
      const packet = inner(kind.udp, udpBody({ from: SOURCE_PORT, to: order.port }));
      const spoiled = {
        key: { sendKey: randomBytes(32) },
        slot: { slot: 3 },
        hopTag: { hopTag: randomBytes(8) },
        counter: { counter: 0n },
      };
      plane.sendInner(order.session as SessionId, packet, spoiled[order.what]);
      return;
    }
    case 'frames':
      for (const frame of order.frames) {
        if (order.numbered) node.slipIn(bytes(frame));
        else node.links.send(parentOf(node), bytes(frame));
      }
      return;
    case 'impersonate':
      return impersonate(node, order.key);
    case 'withdraw':
      node.slipIn(encodeFrame({ kind: 'withdraw', keys: order.keys }));
  }
}

function knocks({ protocol, from = SOURCE_PORT, payload }: Order & { readonly do: 'knock' }, to: number): Uint8Array[] {
  const data = new TextEncoder().encode(payload ?? '');
  if (protocol === 'udp') return [inner(kind.udp, udpBody({ from, to }, data))];
  const syn = inner(kind.tcp, tcpBody({ from, to }, tcpFlag.syn));
  if (payload === undefined) return [syn];
  return [syn, inner(kind.tcp, tcpBody({ from, to }, tcpFlag.ack | tcpFlag.psh, data, { seq: 2, ack: 1 }))];
}

/** Everything that would put `key` below us, signed by whom we can sign for: ourselves and keys made up for it. */
function impersonate(node: RawNode, key: PublicKey): void {
  const forger = KeyPair.generate();
  const stamp = { epoch: 1n << 40n, seq: 1n };
  const edge = { child: key, parent: node.key, nonce: randomBytes(16), ...stamp };
  const half = signEdge(edge, forger);
  const items: Announced[] = [
    { type: 'edge', bytes: half },
    { type: 'endpointEdge', bytes: signEndpointEdge(edge, forger, forger) },
    { type: 'parentSet', bytes: signParentSet({ child: key, parents: [node.key], ...stamp }, forger) },
    { type: 'name', bytes: replaced(signNameRecord(stamp, KeyPair.generate(), forger), forger.publicKey, key) },
  ];
  node.slipIn(encodeFrame({ kind: 'announce', items }));
  node.slipIn(encodeFrame({ kind: 'edgeHalf', statement: half }));
}

/** A statement with another key in it, under the signatures that it had. */
function replaced(statement: Uint8Array, from: PublicKey, to: PublicKey): Uint8Array {
  const out = Buffer.from(statement);
  out.set(keyBytes(to), out.indexOf(keyBytes(from)));
  return new Uint8Array(out);
}

async function replay(node: RawNode, what: 'sent' | 'received', from: 'same' | 'other'): Promise<string[]> {
  const log = what === 'sent' ? node.plane.sent : node.plane.received;
  const datagrams = [...log];
  const parent = node.links.get(parentOf(node))?.remote;
  for (const { remote, bytes: datagram } of datagrams) {
    await sendAll(node, what === 'sent' ? remote : (parent ?? remote), [datagram], from);
  }
  return datagrams.map(({ bytes: datagram }) => hex(datagram));
}

async function sendAll(node: RawNode, to: SocketAddress, datagrams: readonly Uint8Array[], from: 'same' | 'other'): Promise<void> {
  if (from === 'same') {
    for (const datagram of datagrams) node.plane.sendDatagram(0, to, datagram);
    return;
  }
  const socket = createSocket(isIPv4(to.host) ? 'udp4' : 'udp6');
  try {
    for (const datagram of datagrams) {
      await new Promise<void>((resolve, reject) => {
        socket.send(datagram, to.port, to.host, (error) => (error === null ? resolve() : reject(error)));
      });
    }
  } finally {
    socket.close();
  }
}

/** What `act` made the node send. */
function recorded(node: RawNode, act: () => void): Sent {
  const before = new Set(node.plane.sent);
  act();
  return { sent: node.plane.sent.filter((datagram) => !before.has(datagram)).map((datagram) => hex(datagram.bytes)) };
}

function parentOf(node: RawNode): LinkId {
  const link = node.parentLink();
  if (link === undefined) throw new LabError('no parent is connected');
  return link.id;
}

function status(node: RawNode): StatusReport {
  const { drops } = node.plane.stats();
  return {
    key: node.key,
    links: node.links.all().map(({ key, role, remote }) => ({ key, role, remote })),
    sessions: node.sessions.all().map((s) => ({
      id: s.id,
      peer: s.peer,
      state: s.state,
      ingress: s.ingress?.label,
      egress: s.egress?.label,
      offered: s.offered.map(({ protocol, port }) => ({ protocol, port })),
    })),
    drops: Object.fromEntries(Object.entries(drops).map(([reason, count]) => [reason, count.toString()])),
    delivered: node.plane.delivered.map(hex),
    events: node.events,
  };
}

const bytes = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, 'hex'));
const hex = (value: Uint8Array): string => Buffer.from(value).toString('hex');
