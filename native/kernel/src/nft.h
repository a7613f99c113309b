// nftables, through libnftables. The library is GPL: it is opened at run time, never linked or shipped.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

namespace thicket {

// Runs transactions one after another on a thread of its own, with one kept context: a fresh one costs 14 ms.
class Nft {
 public:
  struct Result {
    std::string output;
    // 0, or an errno with the library's own words.
    int number = 0;
    std::string error;
    bool library_missing = false;
  };
  using Done = std::function<void(Result)>;

  Nft() = default;
  Nft(const Nft&) = delete;
  Nft& operator=(const Nft&) = delete;
  // Waits for the transaction that runs; those that wait are dropped without an answer.
  ~Nft();

  // Queues one transaction: all of `commands` or nothing. `done` is called on the thread.
  void Run(std::string commands, Done done);

 private:
  struct Job {
    std::string commands;
    Done done;
  };

  void Work();

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Job> jobs_;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace thicket
