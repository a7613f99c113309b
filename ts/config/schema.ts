/** The shape of thicket.yaml. Meaning (keys, addresses, names) is checked in `config.ts`; here only what is a text, a number or a list. */
import * as z from 'zod';

const Text = z.string().min(1);

const ServiceShape = z.strictObject({
  port: Text,
  proto: z.enum(['rtsp']).nullable().optional(),
  target: Text,
  allow: z.array(Text).default([]),
  force: z.boolean().default(false),
});

const EndpointShape = z.strictObject({
  name: Text,
  groups: z.array(Text).default([]),
  services: z.array(ServiceShape).default([]),
});

export const ConfigShape = z.strictObject({
  listen: z.array(Text).default([]),
  parents: z.array(Text).max(4).default([]),
  relay: z
    .strictObject({
      for: z.union([z.enum(['any', 'none']), z.array(Text)], 'names nobody: use any, none, or a list of networks').default('none'),
      children: z.int().min(1).max(1_000_000).default(10_000),
      descendants: z.int().min(1).max(10_000_000).default(1_000_000),
      endpoints: z.int().min(0).max(65_536).default(256),
    })
    .prefault({}),
  allow_unrelayed: z.boolean().default(false),
  interface: z
    .strictObject({
      name: Text.default('thicket0'),
      mode: z.enum(['tun', 'userspace']).default('tun'),
      ipv4: Text.default('198.18.0.0/15'),
      ipv6: Text.default('auto'),
      offload: z.enum(['auto', 'off']).default('auto'),
      aead: z.enum(['auto', 'ring']).default('auto'),
      threads: z.union([z.literal('auto'), z.int().min(1).max(32)]).default('auto'),
    })
    .prefault({}),
  dns: z
    .strictObject({
      domain: Text.default('thicket'),
      port: z.int().min(1).max(65_535).default(53),
      ttl: Text.default('60s'),
    })
    .prefault({}),
  networks: z.record(Text, Text).default({}),
  trust: z
    .array(
      z.union([z.strictObject({ network: Text }), z.strictObject({ node: Text })], 'names nobody: use { network: KEY } or { node: KEY }'),
    )
    .default([]),
  session: z.strictObject({ rekey: Text.default('120s') }).prefault({}),
  endpoints: z.array(EndpointShape).default([]),
  forwards: z.array(z.strictObject({ listen: Text, to: Text })).default([]),
  control: z.strictObject({ socket: Text.optional() }).prefault({}),
  log: z.strictObject({ level: z.enum(['debug', 'info', 'warn', 'error']).default('info') }).prefault({}),
});

export type ConfigText = z.infer<typeof ConfigShape>;
