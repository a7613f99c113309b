#include "netlink.h"

#include <sys/socket.h>
#include <sys/time.h>

#include <algorithm>
#include <cerrno>
#include <string>

#include "error.h"

namespace thicket {

namespace {

// The kernel fills dump buffers up to 32 KiB (NLMSG_GOODSIZE and what recvmsg lends).
constexpr size_t kBuffer = 64 * 1024;
// The kernel answers at once; a call must not hang a worker of libuv's pool for ever.
constexpr timeval kTimeout{.tv_sec = 5, .tv_usec = 0};
constexpr int kDumpTries = 4;

std::string ExtendedAck(const nlmsghdr& header, const nlmsgerr& error) {
  if ((header.nlmsg_flags & NLM_F_ACK_TLVS) == 0) return {};
  size_t fixed = sizeof error;
  if ((header.nlmsg_flags & NLM_F_CAPPED) == 0) fixed += error.msg.nlmsg_len - sizeof(nlmsghdr);
  return Attributes(header, fixed).Find(NLMSGERR_ATTR_MSG).Text();
}

}  // namespace

Message::Message(uint16_t type, uint16_t flags) {
  nlmsghdr header{};
  header.nlmsg_type = type;
  header.nlmsg_flags = static_cast<uint16_t>(NLM_F_REQUEST | flags);
  Append(&header, sizeof header);
}

void Message::Attribute(uint16_t type, const void* data, size_t size) {
  const nlattr header{.nla_len = static_cast<uint16_t>(NLA_HDRLEN + size), .nla_type = type};
  Append(&header, sizeof header);
  Append(data, size);
}

size_t Message::Begin(uint16_t type) {
  const size_t nest = bytes_.size();
  Attribute(static_cast<uint16_t>(type | NLA_F_NESTED), nullptr, 0);
  return nest;
}

void Message::End(size_t nest) {
  const auto length = static_cast<uint16_t>(bytes_.size() - nest);
  std::memcpy(bytes_.data() + nest + offsetof(nlattr, nla_len), &length, sizeof length);
}

const std::vector<uint8_t>& Message::Finish(uint32_t sequence) {
  auto* header = reinterpret_cast<nlmsghdr*>(bytes_.data());
  header->nlmsg_len = static_cast<uint32_t>(bytes_.size());
  header->nlmsg_seq = sequence;
  return bytes_;
}

void Message::Append(const void* data, size_t size) {
  const size_t at = bytes_.size();
  bytes_.resize(at + NLMSG_ALIGN(size));
  if (size > 0) std::memcpy(bytes_.data() + at, data, size);
}

Attributes::Attributes(const nlmsghdr& message, size_t fixed) : data_(nullptr), size_(0) {
  const size_t before = NLMSG_HDRLEN + NLMSG_ALIGN(fixed);
  if (message.nlmsg_len < before) return;
  data_ = reinterpret_cast<const uint8_t*>(&message) + before;
  size_ = message.nlmsg_len - before;
}

Attribute Attributes::Find(uint16_t type) const {
  size_t at = 0;
  while (at + sizeof(nlattr) <= size_) {
    nlattr header;
    std::memcpy(&header, data_ + at, sizeof header);
    if (header.nla_len < sizeof header || at + header.nla_len > size_) break;
    if ((header.nla_type & NLA_TYPE_MASK) == type) {
      return {type, data_ + at + NLA_HDRLEN, static_cast<size_t>(header.nla_len) - NLA_HDRLEN};
    }
    at += NLA_ALIGN(header.nla_len);
  }
  return {};
}

Socket::Socket(int protocol) : fd_(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol)), buffer_(kBuffer) {
  if (!fd_.valid()) throw KernelError(errno, "open a netlink socket");
  // Words from the kernel on refusals; older kernels have none.
  const int on = 1;
  setsockopt(fd_.get(), SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof on);
  setsockopt(fd_.get(), SOL_NETLINK, NETLINK_GET_STRICT_CHK, &on, sizeof on);
  setsockopt(fd_.get(), SOL_SOCKET, SO_RCVTIMEO, &kTimeout, sizeof kTimeout);
}

void Socket::Ask(Message& message, std::string_view what, const OnMessage& on_message) {
  Exchange(message, what, on_message);
}

void Socket::Dump(Message& message, std::string_view what, const OnMessage& on_message) {
  for (int i = 0; i < kDumpTries; ++i) {
    if (!Exchange(message, what, on_message)) return;
  }
}

bool Socket::Exchange(Message& message, std::string_view what, const OnMessage& on_message) {
  const uint32_t sequence = ++sequence_;
  const std::vector<uint8_t>& bytes = message.Finish(sequence);
  const bool dump = (reinterpret_cast<const nlmsghdr*>(bytes.data())->nlmsg_flags & NLM_F_DUMP) == NLM_F_DUMP;
  sockaddr_nl kernel{};
  kernel.nl_family = AF_NETLINK;
  if (sendto(fd_.get(), bytes.data(), bytes.size(), 0, reinterpret_cast<sockaddr*>(&kernel), sizeof kernel) < 0) {
    throw KernelError(errno, std::string(what));
  }
  bool interrupted = false;
  for (;;) {
    sockaddr_nl from{};
    socklen_t from_size = sizeof from;
    const ssize_t received =
        recvfrom(fd_.get(), buffer_.data(), buffer_.size(), MSG_TRUNC, reinterpret_cast<sockaddr*>(&from), &from_size);
    if (received < 0) {
      if (errno == EINTR) continue;
      throw KernelError(errno == EAGAIN ? ETIMEDOUT : errno, std::string(what));
    }
    // Other processes can send to a netlink socket, too.
    if (from.nl_pid != 0) continue;
    if (static_cast<size_t>(received) > buffer_.size()) throw KernelError(EMSGSIZE, std::string(what));
    auto left = static_cast<unsigned int>(received);
    for (auto* header = reinterpret_cast<nlmsghdr*>(buffer_.data()); NLMSG_OK(header, left);
         header = NLMSG_NEXT(header, left)) {
      if (header->nlmsg_seq != sequence) continue;
      if ((header->nlmsg_flags & NLM_F_DUMP_INTR) != 0) interrupted = true;
      if (header->nlmsg_type == NLMSG_DONE) {
        int result = 0;
        if (header->nlmsg_len >= NLMSG_LENGTH(sizeof result)) std::memcpy(&result, NLMSG_DATA(header), sizeof result);
        if (result < 0) throw KernelError(-result, std::string(what));
        return interrupted;
      }
      if (header->nlmsg_type == NLMSG_ERROR) {
        nlmsgerr error{};
        if (header->nlmsg_len >= NLMSG_LENGTH(sizeof error)) std::memcpy(&error, NLMSG_DATA(header), sizeof error);
        if (error.error == 0) return false;
        const std::string words = ExtendedAck(*header, error);
        throw KernelError(-error.error, words.empty() ? std::string(what) : std::string(what) + " (" + words + ")");
      }
      if (on_message) on_message(*header);
      // A request without NLM_F_ACK has one answer.
      if (!dump && (reinterpret_cast<const nlmsghdr*>(bytes.data())->nlmsg_flags & NLM_F_ACK) == 0) return false;
    }
  }
}

}  // namespace thicket
