#include "netlink.h"

#include <gtest/gtest.h>
#include <linux/rtnetlink.h>

#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

namespace thicket {
namespace {

// A copy that ends where the message ends, so that the sanitizer sees every byte read beyond.
std::unique_ptr<uint8_t[]> Exact(const std::vector<uint8_t>& bytes, size_t size) {
  auto copy = std::make_unique<uint8_t[]>(size);
  std::copy_n(bytes.begin(), size, copy.get());
  return copy;
}

std::vector<uint8_t> Example() {
  Message message(RTM_NEWADDR, NLM_F_ACK);
  message.Put(ifaddrmsg{.ifa_family = 2, .ifa_prefixlen = 32, .ifa_flags = 0, .ifa_scope = 0, .ifa_index = 7});
  message.Attribute(IFA_LABEL, "lan0", 5);
  message.Attribute(IFA_FLAGS, uint32_t{0x200});
  message.Attribute(IFA_LOCAL, "\xc0\xa8\x01\x01", 4);
  return message.Finish(42);
}

TEST(Netlink, FindsEachAttributeThatAMessageWasGiven) {
  const std::vector<uint8_t> bytes = Example();
  const auto* header = reinterpret_cast<const nlmsghdr*>(bytes.data());
  EXPECT_EQ(header->nlmsg_len, bytes.size());
  EXPECT_EQ(header->nlmsg_seq, 42u);
  EXPECT_EQ(Fixed<ifaddrmsg>(*header).ifa_index, 7u);
  const Attributes attributes(*header, sizeof(ifaddrmsg));
  EXPECT_EQ(attributes.Find(IFA_LABEL).Text(), "lan0");
  EXPECT_EQ(attributes.Find(IFA_FLAGS).Read<uint32_t>(), 0x200u);
  EXPECT_EQ(attributes.Find(IFA_LOCAL).size, 4u);
  EXPECT_FALSE(attributes.Find(IFA_BROADCAST));
}

TEST(Netlink, ReadsNothingBeyondAMessageCutAtAnyLength) {
  const std::vector<uint8_t> bytes = Example();
  for (size_t size = NLMSG_HDRLEN; size < bytes.size(); ++size) {
    const auto copy = Exact(bytes, size);
    auto* header = reinterpret_cast<nlmsghdr*>(copy.get());
    header->nlmsg_len = static_cast<uint32_t>(size);
    const Attributes attributes(*header, sizeof(ifaddrmsg));
    for (uint16_t type = 0; type < 16; ++type) {
      const Attribute found = attributes.Find(type);
      if (found) {
        EXPECT_LE(found.data + found.size, copy.get() + size);
      }
    }
    Fixed<ifaddrmsg>(*header);
  }
}

TEST(Netlink, ReadsNothingBeyondRandomAttributes) {
  std::mt19937 random(7);
  for (int round = 0; round < 20'000; ++round) {
    const size_t size = random() % 64;
    std::vector<uint8_t> bytes(size);
    // Small values, so that lengths and types are often plausible.
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random() % 3 == 0 ? random() % 24 : 0);
    const auto copy = Exact(bytes, size);
    const Attributes attributes(copy.get(), size);
    for (uint16_t type = 0; type < 4; ++type) {
      const Attribute found = attributes.Find(type);
      if (found) {
        EXPECT_LE(found.data + found.size, copy.get() + size);
      }
      const Attributes nested(found);
      nested.Find(type);
      found.Text();
      found.Read<uint64_t>();
    }
  }
}

TEST(Netlink, AnAbsentAttributeReadsAsNothing) {
  const Attribute none;
  EXPECT_EQ(none.Read<uint32_t>(), 0u);
  EXPECT_EQ(none.Text(), "");
  EXPECT_FALSE(Attributes(none).Find(1));
}

}  // namespace
}  // namespace thicket
