// Routes, route look-ups and policy rules, over rtnetlink(7).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "address.h"

namespace thicket {

struct Route {
  Prefix destination;
  // RTN_UNICAST, RTN_BLACKHOLE, …
  uint8_t type = 0;
  uint32_t table = 0;
  // Who made it (RTPROT_…).
  uint8_t protocol = 0;
  uint32_t metric = 0;
  // Empty where the route has none.
  std::string interface;
  std::optional<Address> gateway;
  // The source address that packets take which have none yet.
  std::optional<Address> source;
};

struct Choice {
  Address source;
  std::string interface;
  std::optional<Address> gateway;
};

struct Rule {
  uint8_t family = 0;
  uint32_t priority = 0;
  std::optional<Prefix> from;
  std::optional<Prefix> to;
  std::string input;
  std::string output;
  std::optional<uint32_t> mark;
  // FR_ACT_TO_TBL, FR_ACT_BLACKHOLE, …
  uint8_t action = 0;
  uint32_t table = 0;
  uint8_t protocol = 0;
};

// All routes; with `within`, those that have an address in common with one of these.
std::vector<Route> ListRoutes(const std::vector<Prefix>& within);
// Fails with EEXIST when there is a route with this destination and metric.
void AddRoute(const Route& route);
void DeleteRoute(const Route& route);
// Which way a packet from this host to `destination` would go now.
Choice LookUpRoute(const Address& destination);

std::vector<Rule> ListRules();
void AddRule(const Rule& rule);
void DeleteRule(const Rule& rule);

}  // namespace thicket
