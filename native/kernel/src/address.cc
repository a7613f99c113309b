#include "address.h"

#include <arpa/inet.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <charconv>

#include "error.h"

namespace thicket {

size_t Address::size() const { return family == AF_INET ? 4 : 16; }

std::string Address::text() const {
  char buffer[INET6_ADDRSTRLEN];
  return inet_ntop(family, bytes.data(), buffer, sizeof buffer) == nullptr ? std::string() : std::string(buffer);
}

std::string Prefix::text() const { return address.text() + "/" + std::to_string(length); }

bool Overlap(const Prefix& a, const Prefix& b) {
  if (a.address.family != b.address.family) return false;
  const size_t common = std::min(a.length, b.length);
  const size_t whole = common / 8;
  if (!std::equal(a.address.bytes.begin(), a.address.bytes.begin() + whole, b.address.bytes.begin())) return false;
  const auto mask = static_cast<uint8_t>(0xff00 >> (common % 8));
  return mask == 0 || ((a.address.bytes[whole] ^ b.address.bytes[whole]) & mask) == 0;
}

Address ParseAddress(const std::string& text) {
  Address address;
  address.family = text.find(':') == std::string::npos ? AF_INET : AF_INET6;
  if (inet_pton(address.family, text.c_str(), address.bytes.data()) != 1) {
    throw KernelError(EINVAL, "'" + text + "' is not an IP address");
  }
  return address;
}

Prefix ParsePrefix(const std::string& text) {
  const size_t slash = text.find('/');
  Prefix prefix{ParseAddress(text.substr(0, slash)), 0};
  prefix.length = prefix.address.bits();
  if (slash != std::string::npos) {
    const char* end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data() + slash + 1, end, prefix.length);
    if (error != std::errc() || stop != end || prefix.length > prefix.address.bits()) {
      throw KernelError(EINVAL, "'" + text + "' is not a prefix");
    }
  }
  return prefix;
}

Address FromBytes(uint8_t family, const void* bytes, size_t size) {
  Address address;
  address.family = family;
  if (size >= address.size()) {
    const auto* from = static_cast<const uint8_t*>(bytes);
    std::copy(from, from + address.size(), address.bytes.begin());
  }
  return address;
}

}  // namespace thicket
