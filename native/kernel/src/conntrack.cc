#include "conntrack.h"

#include <arpa/inet.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <functional>

#include "error.h"
#include "netlink.h"

namespace thicket {

namespace {

constexpr uint16_t Type(uint16_t message) { return static_cast<uint16_t>(NFNL_SUBSYS_CTNETLINK << 8 | message); }

nfgenmsg Header(uint8_t family) {
  nfgenmsg header{};
  header.nfgen_family = family;
  header.version = NFNETLINK_V0;
  return header;
}

Tuple ReadTuple(const Attribute& nest) {
  const Attributes tuple(nest);
  const Attributes ip(tuple.Find(CTA_TUPLE_IP));
  const Attributes protocol(tuple.Find(CTA_TUPLE_PROTO));
  const auto address = [&ip](uint16_t type4, uint16_t type6) {
    if (const Attribute v4 = ip.Find(type4)) return FromBytes(AF_INET, v4.data, v4.size);
    const Attribute v6 = ip.Find(type6);
    return FromBytes(AF_INET6, v6.data, v6.size);
  };
  return {
      .source = address(CTA_IP_V4_SRC, CTA_IP_V6_SRC),
      .destination = address(CTA_IP_V4_DST, CTA_IP_V6_DST),
      .protocol = protocol.Find(CTA_PROTO_NUM).Read<uint8_t>(),
      .source_port = ntohs(protocol.Find(CTA_PROTO_SRC_PORT).Read<uint16_t>()),
      .destination_port = ntohs(protocol.Find(CTA_PROTO_DST_PORT).Read<uint16_t>()),
  };
}

bool Matches(const FlowFilter& filter, const Tuple& tuple) {
  return (!filter.source || *filter.source == tuple.source) &&
         (!filter.destination || *filter.destination == tuple.destination) &&
         (!filter.protocol || *filter.protocol == tuple.protocol) &&
         (!filter.destination_port || *filter.destination_port == tuple.destination_port);
}

using OnFlow = std::function<void(uint8_t family, const Attributes& attributes, const Tuple& original)>;

// May tell of a flow twice.
void EachFlow(Socket& socket, const std::vector<FlowFilter>& filters, const OnFlow& on_flow) {
  for (const uint8_t family : {uint8_t{AF_INET}, uint8_t{AF_INET6}}) {
    const auto could_match = [family](const FlowFilter& filter) {
      return (!filter.source || filter.source->family == family) &&
             (!filter.destination || filter.destination->family == family);
    };
    if (std::none_of(filters.begin(), filters.end(), could_match)) continue;
    Message message(Type(IPCTNL_MSG_CT_GET), NLM_F_DUMP);
    message.Put(Header(family));
    socket.Dump(message, "list tracked connections", [&](const nlmsghdr& answer) {
      if (answer.nlmsg_type != Type(IPCTNL_MSG_CT_NEW)) return;
      const Attributes attributes(answer, sizeof(nfgenmsg));
      const Tuple original = ReadTuple(attributes.Find(CTA_TUPLE_ORIG));
      const auto matches = [&original](const FlowFilter& filter) { return Matches(filter, original); };
      if (std::any_of(filters.begin(), filters.end(), matches)) on_flow(family, attributes, original);
    });
  }
}

// The kernel's own bytes of one flow, by which it is named for deletion.
struct Name {
  uint8_t family;
  std::vector<uint8_t> tuple;
  std::vector<uint8_t> zone;
};

std::vector<uint8_t> Copy(const Attribute& attribute) {
  return attribute ? std::vector<uint8_t>(attribute.data, attribute.data + attribute.size) : std::vector<uint8_t>();
}

}  // namespace

std::vector<Flow> ListFlows(const std::vector<FlowFilter>& filters) {
  Socket socket(NETLINK_NETFILTER);
  std::vector<Flow> flows;
  EachFlow(socket, filters, [&flows](uint8_t, const Attributes& attributes, const Tuple& original) {
    const uint32_t status = ntohl(attributes.Find(CTA_STATUS).Read<uint32_t>());
    flows.push_back({original, ReadTuple(attributes.Find(CTA_TUPLE_REPLY)), status});
  });
  return flows;
}

uint32_t DeleteFlows(const std::vector<FlowFilter>& filters) {
  Socket socket(NETLINK_NETFILTER);
  std::vector<Name> names;
  EachFlow(socket, filters, [&names](uint8_t family, const Attributes& attributes, const Tuple&) {
    names.push_back({family, Copy(attributes.Find(CTA_TUPLE_ORIG)), Copy(attributes.Find(CTA_ZONE))});
  });
  uint32_t deleted = 0;
  for (const Name& name : names) {
    Message message(Type(IPCTNL_MSG_CT_DELETE), NLM_F_ACK);
    message.Put(Header(name.family));
    // Not by its id: one that took the tuple meanwhile goes, too.
    message.Attribute(CTA_TUPLE_ORIG | NLA_F_NESTED, name.tuple.data(), name.tuple.size());
    if (!name.zone.empty()) message.Attribute(CTA_ZONE, name.zone.data(), name.zone.size());
    try {
      socket.Ask(message, "forget a tracked connection");
      ++deleted;
    } catch (const KernelError& error) {
      // It ended by itself.
      if (error.number() != ENOENT) throw;
    }
  }
  return deleted;
}

}  // namespace thicket
