// What a call of this addon can fail with. Caught in the worker, so that none crosses into JavaScript as a C++
// exception.
#pragma once

#include <stdexcept>
#include <string>

namespace thicket {

// The kernel said no. `number` is an errno; `what()` tells what was asked, and the kernel's own words where it gave
// any.
class KernelError : public std::runtime_error {
 public:
  KernelError(int number, const std::string& what) : std::runtime_error(what), number_(number) {}
  int number() const { return number_; }

 private:
  int number_;
};

// A library that this host doesn't have.
class LibraryMissing : public KernelError {
 public:
  using KernelError::KernelError;
};

}  // namespace thicket
