// IP addresses and prefixes between their text and the kernel's bytes.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

namespace thicket {

struct Address {
  uint8_t family = 0;  // AF_INET or AF_INET6
  std::array<uint8_t, 16> bytes{};

  size_t size() const;
  uint8_t bits() const { return static_cast<uint8_t>(size() * 8); }
  std::string text() const;
  bool operator==(const Address& other) const = default;
};

struct Prefix {
  Address address;
  uint8_t length = 0;

  std::string text() const;
};

// Whether the two have an address in common.
bool Overlap(const Prefix& a, const Prefix& b);

// Both throw KernelError(EINVAL) when the text is none.
Address ParseAddress(const std::string& text);
Prefix ParsePrefix(const std::string& text);

// An address of `family` from the bytes of a netlink attribute; all zeroes when there are too few.
Address FromBytes(uint8_t family, const void* bytes, size_t size);

}  // namespace thicket
