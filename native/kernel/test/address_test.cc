#include "address.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <cerrno>
#include <string>

#include "error.h"

namespace thicket {
namespace {

int ErrorOf(const std::string& prefix) {
  try {
    ParsePrefix(prefix);
    return 0;
  } catch (const KernelError& error) {
    return error.number();
  }
}

TEST(Address, ReadsWhatItWrites) {
  for (const std::string text : {"198.18.0.1", "0.0.0.0", "fd00::1", "::", "2001:db8::ff"}) {
    EXPECT_EQ(ParseAddress(text).text(), text);
  }
  EXPECT_EQ(ParsePrefix("198.18.0.0/15").text(), "198.18.0.0/15");
  EXPECT_EQ(ParsePrefix("fd00::/64").text(), "fd00::/64");
}

TEST(Address, WithoutAPrefixLengthIsOneHost) {
  EXPECT_EQ(ParsePrefix("192.168.1.20").length, 32);
  EXPECT_EQ(ParsePrefix("fd00::1").length, 128);
}

TEST(Address, RefusesWhatIsNone) {
  for (const std::string text : {"", "1.2.3", "1.2.3.4.5", "256.1.1.1", "fd00::1::2", "host", "1.2.3.4/33",
                                 "fd00::/129", "1.2.3.4/", "1.2.3.4/-1", "1.2.3.4/8x", "1.2.3.4/300", "/24"}) {
    EXPECT_EQ(ErrorOf(text), EINVAL) << text;
  }
}

TEST(Address, OfTooFewBytesIsAllZeroes) {
  const uint8_t bytes[] = {192, 168, 1};
  EXPECT_EQ(FromBytes(AF_INET, bytes, sizeof bytes).text(), "0.0.0.0");
  EXPECT_EQ(FromBytes(AF_INET6, nullptr, 0).text(), "::");
}

}  // namespace
}  // namespace thicket
