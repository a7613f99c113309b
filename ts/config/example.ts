/** `thicket config example`: every key with what it means, its default, and whether `thicket reload` applies a change of it. */

export const exampleConfig = `# thicket.yaml. Unknown keys are errors. "reload" behind a key: thicket reload (or SIGHUP) applies a change; else a restart does.

# Where this node waits for children: relays and roots only; leaves leave it out. (restart)
# listen: ["udp://0.0.0.0:7117"]

# Whom this node reaches everybody through; the key is shown by the parent's thicket status (this one is nobody's, an example like its address). A
# host name is resolved again when the link is lost. The first one that answers is used. (reload)
parents: ["udp://203.0.113.5:7117#2awhwlq7kn33nz6cbzlikqsxxwuf6lnlapattmee44jlbfskkj4q"]

# For whom this node relays: any, none, or a list of networks; the rest are how many children, descendants of all children together, and endpoints
# of one child there may be. (reload)
# relay: { for: none, children: 10000, descendants: 1000000, endpoints: 256 }

# A node that listens shows its address to the world, so it hosts no endpoints and has no interface of its own unless this is true. (restart)
# allow_unrelayed: false

# With mode: tun the node makes a kernel interface, which every program on this host can use; it needs root (or CAP_NET_ADMIN), /dev/net/tun and
# nftables. With userspace it needs none of these: programs come in by forwards, and devices behind a gateway are reached from ordinary sockets. With
# auto it takes tun where it can, and says in thicket status why where it can't. name is the kernel interface's. ipv4 and ipv6 are the pools of local
# addresses; ipv6 is auto (a random fd00::/8 network, kept), off, or a /64. offload: off takes and gives plain packets, should a driver mishandle large
# ones. aead: ring seals without the processor's vector lanes (AVX-512, AVX2). threads: so many move packets; auto is one for each processor. (restart)
# interface: { name: thicket0, mode: auto, ipv4: 198.18.0.0/15, ipv6: auto, offload: auto, aead: auto, threads: auto }

# The DNS server listens on the pool's first address and port 53; in user-space mode on 127.0.0.1 and a port of the system's choice, which thicket status
# shows. ttl: how long answers may be kept. (restart)
# dns: { domain: thicket, port: 53, ttl: 60s }

# Nicknames: <name>.home.thicket is what this network certified as <name>. For another network than our own, its naming secret behind a dot
# (its owner has it from thicket network create) is needed to look names up; without it only keys resolve. A file that holds a naming
# secret must be readable by its owner alone. (reload)
# networks: { home: <network key>, friend: <network key>.<naming secret> }

# Whom sessions are allowed with besides our own network. Being admitted opens nothing: allow does. (reload)
# trust: [ { network: <key> }, { node: <key> } ]

# How often sessions change keys. (reload)
# session: { rekey: 120s }

# Devices behind this gateway. allow: who may reach the service: node:KEY, name:NAME, group:G, network:KEY (…@NETWORK for another network) or
# anyone-trusted; nobody without it. proto: rtsp (the default on tcp/554) lets RTSP use UDP for its media. A target in loopback,
# link-local, the pool, or on this gateway itself needs force: true. (reload)
# endpoints:
#   - name: camera
#     groups: []
#     services:
#       - { port: tcp/554, proto: rtsp, target: 192.168.1.20:554, allow: ["group:family"] }

# Ports on this host that lead to remote services, for programs that can't use names. (reload)
# forwards: [ { listen: 127.0.0.1:8554, to: "camera.home.thicket:554" } ]

# SOCKS5 proxies for .thicket names and their addresses, for programs that can use one; nothing else is reached through them. open: true lets
# other hosts use one, though it asks for no password. (reload)
# proxies: [ { listen: 127.0.0.1:1080, open: false } ]

# Ports on the LAN's side of this gateway by which one device may call one remote service, with the key of the endpoint that stands for the device:
# whoever allows it there knows which device calls. from: the device's address, and its MAC address where that is to be checked, too. (reload)
# outlets: [ { listen: 192.168.1.1:9000, to: "csms.operator.thicket:9000", as: camera, from: { ip: 192.168.1.20, mac: "02:00:5e:10:00:01" } } ]

# Where thicket status and its like reach this node; the default is control.sock in the state directory. (restart)
# control: { socket: /var/lib/thicket/control.sock }

# debug, info, warn or error. (reload)
# log: { level: info }
`;
