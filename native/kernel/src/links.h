// Network interfaces and their addresses, over rtnetlink(7).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "address.h"

namespace thicket {

struct Link {
  uint32_t index = 0;
  std::string name;
  uint32_t mtu = 0;
  bool up = false;
};

struct LinkChange {
  std::optional<bool> up;
  std::optional<uint32_t> mtu;
  // Segments of a super-packet at most.
  std::optional<uint32_t> gso_max_segments;
  // Packets that may wait for whoever reads the interface.
  std::optional<uint32_t> transmit_queue;
  // False: the interface gets no IPv6 address that nobody gave it.
  std::optional<bool> generate_addresses;
};

struct InterfaceAddress {
  std::string interface;
  Prefix prefix;
};

std::vector<Link> ListLinks();
void SetLink(const std::string& interface, const LinkChange& change);
std::vector<InterfaceAddress> ListAddresses();
// The address serves at once (no duplicate address detection) and brings no route of its own prefix.
void AddAddress(const std::string& interface, const Prefix& prefix);
void DeleteAddress(const std::string& interface, const Prefix& prefix);

// Throws KernelError(ENODEV).
uint32_t InterfaceIndex(const std::string& interface);
// Empty when there is none.
std::string InterfaceName(uint32_t index);

}  // namespace thicket
