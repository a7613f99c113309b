#include "routes.h"

#include <linux/fib_rules.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <tuple>

#include "error.h"
#include "links.h"
#include "netlink.h"

namespace thicket {

namespace {

constexpr uint8_t kFamilies[] = {AF_INET, AF_INET6};

// A dump of one family; nothing where the kernel doesn't have that family.
void DumpFamily(Message& message, uint8_t family, std::string_view what, const Socket::OnMessage& on_message) {
  try {
    Socket(NETLINK_ROUTE).Dump(message, what, on_message);
  } catch (const KernelError& error) {
    if (family == AF_INET || (error.number() != EOPNOTSUPP && error.number() != EAFNOSUPPORT)) throw;
  }
}

std::optional<Address> AddressIn(uint8_t family, const Attribute& attribute) {
  if (!attribute) return std::nullopt;
  return FromBytes(family, attribute.data, attribute.size);
}

// The first of several next hops stands for all.
uint32_t OutputIndex(const Attributes& attributes) {
  if (const Attribute output = attributes.Find(RTA_OIF)) return output.Read<uint32_t>();
  return static_cast<uint32_t>(attributes.Find(RTA_MULTIPATH).Read<rtnexthop>().rtnh_ifindex);
}

void PutRoute(Message& message, const Route& route) {
  rtmsg fixed{};
  fixed.rtm_family = route.destination.address.family;
  fixed.rtm_dst_len = route.destination.length;
  fixed.rtm_table = RT_TABLE_UNSPEC;
  fixed.rtm_protocol = route.protocol;
  fixed.rtm_type = route.type;
  fixed.rtm_scope = route.type == RTN_UNICAST && fixed.rtm_family == AF_INET && !route.gateway.has_value()
                        ? RT_SCOPE_LINK
                        : RT_SCOPE_UNIVERSE;
  message.Put(fixed);
  message.Attribute(RTA_DST, route.destination.address.bytes.data(), route.destination.address.size());
  message.Attribute(RTA_TABLE, route.table == 0 ? static_cast<uint32_t>(RT_TABLE_MAIN) : route.table);
  if (route.metric != 0) message.Attribute(RTA_PRIORITY, route.metric);
  if (!route.interface.empty()) message.Attribute(RTA_OIF, InterfaceIndex(route.interface));
  if (route.gateway.has_value()) message.Attribute(RTA_GATEWAY, route.gateway->bytes.data(), route.gateway->size());
  if (route.source.has_value()) message.Attribute(RTA_PREFSRC, route.source->bytes.data(), route.source->size());
}

std::string RouteText(const Route& route) {
  std::string text = route.type == RTN_BLACKHOLE ? "blackhole " : "";
  text += route.destination.text();
  if (!route.interface.empty()) text += " through " + route.interface;
  return text;
}

void PutRule(Message& message, const Rule& rule) {
  fib_rule_hdr fixed{};
  fixed.family = rule.family;
  fixed.dst_len = rule.to.has_value() ? rule.to->length : uint8_t{0};
  fixed.src_len = rule.from.has_value() ? rule.from->length : uint8_t{0};
  fixed.table = RT_TABLE_UNSPEC;
  fixed.action = rule.action;
  message.Put(fixed);
  if (rule.to.has_value()) message.Attribute(FRA_DST, rule.to->address.bytes.data(), rule.to->address.size());
  if (rule.from.has_value()) message.Attribute(FRA_SRC, rule.from->address.bytes.data(), rule.from->address.size());
  message.Attribute(FRA_PRIORITY, rule.priority);
  if (rule.table != 0) message.Attribute(FRA_TABLE, rule.table);
  if (rule.mark.has_value()) message.Attribute(FRA_FWMARK, *rule.mark);
  if (!rule.input.empty()) message.Attribute(FRA_IIFNAME, rule.input.c_str(), rule.input.size() + 1);
  if (!rule.output.empty()) message.Attribute(FRA_OIFNAME, rule.output.c_str(), rule.output.size() + 1);
  if (rule.protocol != 0) message.Attribute(FRA_PROTOCOL, &rule.protocol, sizeof rule.protocol);
}

}  // namespace

std::vector<Route> ListRoutes(const std::vector<Prefix>& within) {
  std::map<uint32_t, std::string> names;
  for (const Link& link : ListLinks()) names[link.index] = link.name;
  std::vector<Route> routes;
  for (const uint8_t family : kFamilies) {
    Message message(RTM_GETROUTE, NLM_F_DUMP);
    rtmsg request{};
    request.rtm_family = family;
    message.Put(request);
    DumpFamily(message, family, "list routes", [&](const nlmsghdr& answer) {
      const auto fixed = Fixed<rtmsg>(answer);
      if (answer.nlmsg_type != RTM_NEWROUTE || fixed.rtm_family != family || (fixed.rtm_flags & RTM_F_CLONED) != 0)
        return;
      const Attributes attributes(answer, sizeof fixed);
      Route route;
      route.destination.address.family = family;
      if (const auto destination = AddressIn(family, attributes.Find(RTA_DST)))
        route.destination.address = *destination;
      route.destination.length = fixed.rtm_dst_len;
      const auto overlaps = [&](const Prefix& prefix) { return Overlap(prefix, route.destination); };
      if (!within.empty() && std::none_of(within.begin(), within.end(), overlaps)) return;
      route.type = fixed.rtm_type;
      const Attribute table = attributes.Find(RTA_TABLE);
      route.table = table ? table.Read<uint32_t>() : fixed.rtm_table;
      route.protocol = fixed.rtm_protocol;
      route.metric = attributes.Find(RTA_PRIORITY).Read<uint32_t>();
      if (const uint32_t index = OutputIndex(attributes); index != 0) route.interface = names[index];
      route.gateway = AddressIn(family, attributes.Find(RTA_GATEWAY));
      route.source = AddressIn(family, attributes.Find(RTA_PREFSRC));
      routes.push_back(std::move(route));
    });
  }
  // An interrupted dump is asked for again, so a route may be here twice.
  const auto key = [](const Route& route) {
    return std::tuple(route.destination.text(), route.table, route.metric, route.type, route.interface,
                      route.gateway.has_value() ? route.gateway->text() : std::string());
  };
  std::sort(routes.begin(), routes.end(), [&](const Route& a, const Route& b) { return key(a) < key(b); });
  const auto end =
      std::unique(routes.begin(), routes.end(), [&](const Route& a, const Route& b) { return key(a) == key(b); });
  routes.erase(end, routes.end());
  return routes;
}

void AddRoute(const Route& route) {
  Message message(RTM_NEWROUTE, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL);
  PutRoute(message, route);
  Socket(NETLINK_ROUTE).Ask(message, "add the route " + RouteText(route));
}

void DeleteRoute(const Route& route) {
  Message message(RTM_DELROUTE, NLM_F_ACK);
  PutRoute(message, route);
  Socket(NETLINK_ROUTE).Ask(message, "delete the route " + RouteText(route));
}

Choice LookUpRoute(const Address& destination) {
  Message message(RTM_GETROUTE, 0);
  rtmsg request{};
  request.rtm_family = destination.family;
  request.rtm_dst_len = destination.bits();
  message.Put(request);
  message.Attribute(RTA_DST, destination.bytes.data(), destination.size());
  const std::string what = "find a route to " + destination.text();
  Choice choice;
  Socket(NETLINK_ROUTE).Ask(message, what, [&](const nlmsghdr& answer) {
    const auto fixed = Fixed<rtmsg>(answer);
    const Attributes attributes(answer, sizeof fixed);
    // Null routes are refused for IPv4, but found for IPv6.
    if (fixed.rtm_type != RTN_UNICAST && fixed.rtm_type != RTN_LOCAL) throw KernelError(ENETUNREACH, what);
    const auto source = AddressIn(destination.family, attributes.Find(RTA_PREFSRC));
    choice.source = source.has_value() ? *source : destination;
    choice.interface = InterfaceName(OutputIndex(attributes));
    choice.gateway = AddressIn(destination.family, attributes.Find(RTA_GATEWAY));
  });
  return choice;
}

std::vector<Rule> ListRules() {
  std::vector<Rule> rules;
  for (const uint8_t family : kFamilies) {
    Message message(RTM_GETRULE, NLM_F_DUMP);
    fib_rule_hdr request{};
    request.family = family;
    message.Put(request);
    std::vector<Rule> found;
    DumpFamily(message, family, "list rules", [&](const nlmsghdr& answer) {
      const auto fixed = Fixed<fib_rule_hdr>(answer);
      if (answer.nlmsg_type != RTM_NEWRULE || fixed.family != family) return;
      const Attributes attributes(answer, sizeof fixed);
      Rule rule;
      rule.family = family;
      rule.priority = attributes.Find(FRA_PRIORITY).Read<uint32_t>();
      if (const auto to = AddressIn(family, attributes.Find(FRA_DST))) rule.to = Prefix{*to, fixed.dst_len};
      if (const auto from = AddressIn(family, attributes.Find(FRA_SRC))) rule.from = Prefix{*from, fixed.src_len};
      rule.input = attributes.Find(FRA_IIFNAME).Text();
      rule.output = attributes.Find(FRA_OIFNAME).Text();
      if (const Attribute mark = attributes.Find(FRA_FWMARK)) rule.mark = mark.Read<uint32_t>();
      rule.action = fixed.action;
      const Attribute table = attributes.Find(FRA_TABLE);
      rule.table = table ? table.Read<uint32_t>() : fixed.table;
      rule.protocol = attributes.Find(FRA_PROTOCOL).Read<uint8_t>();
      found.push_back(std::move(rule));
    });
    rules.insert(rules.end(), std::make_move_iterator(found.begin()), std::make_move_iterator(found.end()));
  }
  return rules;
}

void AddRule(const Rule& rule) {
  Message message(RTM_NEWRULE, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL);
  PutRule(message, rule);
  Socket(NETLINK_ROUTE).Ask(message, "add the rule " + std::to_string(rule.priority));
}

void DeleteRule(const Rule& rule) {
  Message message(RTM_DELRULE, NLM_F_ACK);
  PutRule(message, rule);
  Socket(NETLINK_ROUTE).Ask(message, "delete the rule " + std::to_string(rule.priority));
}

}  // namespace thicket
