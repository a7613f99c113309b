#include "links.h"

#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sys/socket.h>

#include <cerrno>
#include <map>

#include "error.h"
#include "netlink.h"

namespace thicket {

namespace {

void ChangeAddress(uint16_t type, uint16_t flags, const std::string& interface, const Prefix& prefix,
                   const std::string& what) {
  Message message(type, static_cast<uint16_t>(NLM_F_ACK | flags));
  ifaddrmsg fixed{};
  fixed.ifa_family = prefix.address.family;
  fixed.ifa_prefixlen = prefix.length;
  fixed.ifa_index = InterfaceIndex(interface);
  message.Put(fixed);
  message.Attribute(IFA_LOCAL, prefix.address.bytes.data(), prefix.address.size());
  message.Attribute(IFA_ADDRESS, prefix.address.bytes.data(), prefix.address.size());
  message.Attribute(IFA_FLAGS, static_cast<uint32_t>(IFA_F_NODAD | IFA_F_NOPREFIXROUTE));
  Socket(NETLINK_ROUTE).Ask(message, what);
}

}  // namespace

uint32_t InterfaceIndex(const std::string& interface) {
  const uint32_t index = if_nametoindex(interface.c_str());
  if (index == 0) throw KernelError(ENODEV, "find interface " + interface);
  return index;
}

std::string InterfaceName(uint32_t index) {
  char name[IF_NAMESIZE];
  return if_indextoname(index, name) == nullptr ? std::string() : std::string(name);
}

std::vector<Link> ListLinks() {
  Message message(RTM_GETLINK, NLM_F_DUMP);
  message.Put(ifinfomsg{});
  std::map<uint32_t, Link> links;
  Socket(NETLINK_ROUTE).Dump(message, "list interfaces", [&](const nlmsghdr& answer) {
    if (answer.nlmsg_type != RTM_NEWLINK) return;
    const auto fixed = Fixed<ifinfomsg>(answer);
    const Attributes attributes(answer, sizeof fixed);
    Link link;
    link.index = static_cast<uint32_t>(fixed.ifi_index);
    link.name = attributes.Find(IFLA_IFNAME).Text();
    link.mtu = attributes.Find(IFLA_MTU).Read<uint32_t>();
    link.up = (fixed.ifi_flags & IFF_UP) != 0;
    links[link.index] = std::move(link);
  });
  std::vector<Link> list;
  for (auto& [index, link] : links) list.push_back(std::move(link));
  return list;
}

void SetLink(const std::string& interface, const LinkChange& change) {
  Message message(RTM_NEWLINK, NLM_F_ACK);
  ifinfomsg fixed{};
  fixed.ifi_family = AF_UNSPEC;
  fixed.ifi_index = static_cast<int>(InterfaceIndex(interface));
  if (change.up.has_value()) {
    fixed.ifi_change = IFF_UP;
    fixed.ifi_flags = *change.up ? IFF_UP : 0;
  }
  message.Put(fixed);
  if (change.mtu.has_value()) message.Attribute(IFLA_MTU, *change.mtu);
  if (change.gso_max_segments.has_value()) message.Attribute(IFLA_GSO_MAX_SEGS, *change.gso_max_segments);
  if (change.transmit_queue.has_value()) message.Attribute(IFLA_TXQLEN, *change.transmit_queue);
  if (change.generate_addresses.has_value()) {
    const size_t families = message.Begin(IFLA_AF_SPEC);
    const size_t inet6 = message.Begin(AF_INET6);
    const uint8_t mode = *change.generate_addresses ? IN6_ADDR_GEN_MODE_EUI64 : IN6_ADDR_GEN_MODE_NONE;
    message.Attribute(IFLA_INET6_ADDR_GEN_MODE, &mode, sizeof mode);
    message.End(inet6);
    message.End(families);
  }
  Socket(NETLINK_ROUTE).Ask(message, "set up interface " + interface);
}

std::vector<InterfaceAddress> ListAddresses() {
  std::map<uint32_t, std::string> names;
  for (const Link& link : ListLinks()) names[link.index] = link.name;
  Message message(RTM_GETADDR, NLM_F_DUMP);
  message.Put(ifaddrmsg{});
  std::map<std::pair<uint32_t, std::string>, InterfaceAddress> addresses;
  Socket(NETLINK_ROUTE).Dump(message, "list addresses", [&](const nlmsghdr& answer) {
    if (answer.nlmsg_type != RTM_NEWADDR) return;
    const auto fixed = Fixed<ifaddrmsg>(answer);
    if (fixed.ifa_family != AF_INET && fixed.ifa_family != AF_INET6) return;
    const Attributes attributes(answer, sizeof fixed);
    // On a point-to-point interface IFA_ADDRESS is the peer's, and IFA_LOCAL ours.
    Attribute bytes = attributes.Find(IFA_LOCAL);
    if (!bytes) bytes = attributes.Find(IFA_ADDRESS);
    const auto name = names.find(fixed.ifa_index);
    if (!bytes || name == names.end()) return;
    const Prefix prefix{FromBytes(fixed.ifa_family, bytes.data, bytes.size), fixed.ifa_prefixlen};
    addresses[{fixed.ifa_index, prefix.text()}] = {name->second, prefix};
  });
  std::vector<InterfaceAddress> list;
  for (auto& [key, address] : addresses) list.push_back(std::move(address));
  return list;
}

void AddAddress(const std::string& interface, const Prefix& prefix) {
  const std::string what = "give " + interface + " the address " + prefix.text();
  ChangeAddress(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, interface, prefix, what);
}

void DeleteAddress(const std::string& interface, const Prefix& prefix) {
  ChangeAddress(RTM_DELADDR, 0, interface, prefix, "take the address " + prefix.text() + " from " + interface);
}

}  // namespace thicket
