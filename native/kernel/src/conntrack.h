// The kernel's connection tracking table, over ctnetlink (linux/netfilter/nfnetlink_conntrack.h).
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "address.h"

namespace thicket {

struct Tuple {
  Address source;
  Address destination;
  // IPPROTO_…
  uint8_t protocol = 0;
  // 0 for protocols without ports.
  uint16_t source_port = 0;
  uint16_t destination_port = 0;
};

struct Flow {
  Tuple original;
  Tuple reply;
  // IPS_… of linux/netfilter/nf_conntrack_common.h
  uint32_t status = 0;
};

// By a flow's original direction. What is absent matches all.
struct FlowFilter {
  std::optional<Address> source;
  std::optional<Address> destination;
  std::optional<uint8_t> protocol;
  std::optional<uint16_t> destination_port;
};

// Flows that match one of `filters`, none when there are none.
std::vector<Flow> ListFlows(const std::vector<FlowFilter>& filters);
// Forgets these flows; returns how many there were once the kernel has acknowledged each.
uint32_t DeleteFlows(const std::vector<FlowFilter>& filters);

}  // namespace thicket
