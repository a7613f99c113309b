// nftables, through libnftables. The library is GPL: it is opened at run time, never linked or shipped.
#pragma once

#include <condition_variable>
#include <deque>
#include <future>
#include <mutex>
#include <string>
#include <thread>

namespace thicket {

// Runs transactions one after another on a thread of its own, with one kept context: a fresh one costs 14 ms.
class Nft {
 public:
  Nft() = default;
  Nft(const Nft&) = delete;
  Nft& operator=(const Nft&) = delete;
  // No call of Run may be under way.
  ~Nft();

  // Runs one transaction, all of `commands` or nothing, and returns what they print. Waits for its turn, so not for
  // JavaScript's thread. Throws KernelError with the library's words, LibraryMissing.
  std::string Run(std::string commands);

 private:
  struct Job {
    std::string commands;
    std::promise<std::string> output;
  };

  void Work();

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Job> jobs_;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace thicket
