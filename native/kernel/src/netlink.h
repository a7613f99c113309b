// A netlink socket, messages to put into it, and attributes to read from what it answers (RFC 3549, netlink(7)).
#pragma once

#include <linux/netlink.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "fd.h"

namespace thicket {

// A message under construction: a netlink header, a fixed part, attributes.
class Message {
 public:
  Message(uint16_t type, uint16_t flags);

  template <typename T>
  void Put(const T& fixed) {
    Append(&fixed, sizeof fixed);
  }
  void Attribute(uint16_t type, const void* data, size_t size);
  void Attribute(uint16_t type, uint32_t value) { Attribute(type, &value, sizeof value); }
  // Attributes put between Begin and End lie within one of `type`. Begin returns what End wants.
  size_t Begin(uint16_t type);
  void End(size_t nest);

  // The whole message with its final length, numbered `sequence`.
  const std::vector<uint8_t>& Finish(uint32_t sequence);

 private:
  void Append(const void* data, size_t size);

  std::vector<uint8_t> bytes_;
};

// One attribute of an answer; points into the receive buffer.
struct Attribute {
  uint16_t type = 0;
  const uint8_t* data = nullptr;
  size_t size = 0;

  explicit operator bool() const { return data != nullptr; }
  // The first sizeof(T) bytes, in the attribute's own byte order; 0 when there are fewer.
  template <typename T>
  T Read() const {
    T value{};
    if (size >= sizeof value) std::memcpy(&value, data, sizeof value);
    return value;
  }
  // A string, with or without its final zero.
  std::string Text() const {
    const auto* text = reinterpret_cast<const char*>(data);
    return data == nullptr ? std::string() : std::string(text, strnlen(text, size));
  }
};

// Attributes in a run of bytes. Stops at the first that doesn't fit.
class Attributes {
 public:
  Attributes(const void* data, size_t size) : data_(static_cast<const uint8_t*>(data)), size_(size) {}
  explicit Attributes(const struct Attribute& nest) : Attributes(nest.data, nest.size) {}
  // Those that follow the fixed part of a message.
  Attributes(const nlmsghdr& message, size_t fixed);

  // The attribute of this type (nested and byte order flags aside); false when there is none.
  struct Attribute Find(uint16_t type) const;

 private:
  const uint8_t* data_;
  size_t size_;
};

// The fixed part of a message; all zeroes when the message is too short for one.
template <typename T>
T Fixed(const nlmsghdr& message) {
  T fixed{};
  if (message.nlmsg_len >= NLMSG_LENGTH(sizeof fixed)) {
    std::memcpy(&fixed, reinterpret_cast<const uint8_t*>(&message) + NLMSG_HDRLEN, sizeof fixed);
  }
  return fixed;
}

class Socket {
 public:
  // Throws KernelError.
  explicit Socket(int protocol);

  using OnMessage = std::function<void(const nlmsghdr&)>;

  // Sends a request and calls `on_message` for each answer. Throws KernelError when the kernel refuses, with `what` as
  // its subject.
  void Ask(Message& message, std::string_view what, const OnMessage& on_message = {});
  // The same for a dump; asks again when the kernel's table changed meanwhile, so `on_message` may see an object twice.
  void Dump(Message& message, std::string_view what, const OnMessage& on_message);

 private:
  // Returns whether a dump was interrupted by a change.
  bool Exchange(Message& message, std::string_view what, const OnMessage& on_message);

  UniqueFd fd_;
  uint32_t sequence_ = 0;
  std::vector<uint8_t> buffer_;
};

}  // namespace thicket
