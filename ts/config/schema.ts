/** The shape of thicket.yaml. Meaning (keys, addresses, names) is checked in `config.ts`; here only what is a text, a number or a list. */
import * as z from '../zod.js';

const Text = z.string().check(z.minLength(1));
const Texts = z._default(z.array(Text), []);
const whole = (least: number, most: number) => z.int().check(z.minimum(least), z.maximum(most));

const ServiceShape = z.strictObject({
  port: Text,
  proto: z.optional(z.nullable(z.enum(['rtsp']))),
  target: Text,
  allow: Texts,
  force: z._default(z.boolean(), false),
});

const EndpointShape = z.strictObject({
  name: Text,
  groups: Texts,
  services: z._default(z.array(ServiceShape), []),
});

export const ConfigShape = z.strictObject({
  listen: Texts,
  parents: z._default(z.array(Text).check(z.maxLength(4)), []),
  relay: z.prefault(
    z.strictObject({
      for: z._default(z.union([z.enum(['any', 'none']), z.array(Text)], 'names nobody: use any, none, or a list of networks'), 'none'),
      children: z._default(whole(1, 1_000_000), 10_000),
      descendants: z._default(whole(1, 10_000_000), 1_000_000),
      endpoints: z._default(whole(0, 65_536), 256),
    }),
    {},
  ),
  allow_unrelayed: z._default(z.boolean(), false),
  interface: z.prefault(
    z.strictObject({
      name: z._default(Text, 'thicket0'),
      mode: z._default(z.enum(['auto', 'tun', 'userspace']), 'auto'),
      ipv4: z._default(Text, '198.18.0.0/15'),
      ipv6: z._default(Text, 'auto'),
      offload: z._default(z.enum(['auto', 'off']), 'auto'),
      aead: z._default(z.enum(['auto', 'ring']), 'auto'),
      threads: z._default(z.union([z.literal('auto'), whole(1, 32)]), 'auto'),
    }),
    {},
  ),
  dns: z.prefault(
    z.strictObject({
      domain: z._default(Text, 'thicket'),
      port: z.optional(whole(1, 65_535)),
      ttl: z._default(Text, '60s'),
    }),
    {},
  ),
  networks: z._default(z.record(Text, Text), {}),
  trust: z._default(
    z.array(
      z.union([z.strictObject({ network: Text }), z.strictObject({ node: Text })], 'names nobody: use { network: KEY } or { node: KEY }'),
    ),
    [],
  ),
  session: z.prefault(z.strictObject({ rekey: z._default(Text, '120s') }), {}),
  endpoints: z._default(z.array(EndpointShape), []),
  forwards: z._default(z.array(z.strictObject({ listen: Text, to: Text })), []),
  proxies: z._default(z.array(z.strictObject({ listen: Text, open: z._default(z.boolean(), false) })), []),
  outlets: z._default(
    z.array(z.strictObject({ listen: Text, to: Text, as: Text, from: z.strictObject({ ip: Text, mac: z.optional(Text) }) })),
    [],
  ),
  control: z.prefault(z.strictObject({ socket: z.optional(Text) }), {}),
  log: z.prefault(z.strictObject({ level: z._default(z.enum(['debug', 'info', 'warn', 'error']), 'info') }), {}),
});

export type ConfigText = z.infer<typeof ConfigShape>;
