// Calls that may wait, off the event loop: a promise now, its value later. C++ exceptions end here.
#pragma once

#include <napi.h>

#include <cstring>
#include <functional>
#include <string>
#include <utility>

#include "error.h"

namespace thicket {

// A JavaScript Error: `message` says what was asked, `errno` and `reason` why it was refused; `libraryMissing` where a
// library is.
inline Napi::Error MakeError(Napi::Env env, const std::string& what, int number, bool library_missing) {
  Napi::Error error = Napi::Error::New(env, what);
  error.Set("errno", Napi::Number::New(env, number));
  error.Set("reason", Napi::String::New(env, std::strerror(number)));
  error.Set("libraryMissing", Napi::Boolean::New(env, library_missing));
  return error;
}

// Settles a promise. That fails only while the environment is being torn down, and then nobody waits for it.
template <typename F>
void Settle(const F& settle) {
  try {
    settle();
  } catch (const Napi::Error&) {
  }
}

// Runs `work` on libuv's pool and resolves with what `convert` makes of its result.
template <typename T>
class Task : public Napi::AsyncWorker {
 public:
  using Work = std::function<T()>;
  using Convert = std::function<Napi::Value(Napi::Env, const T&)>;

  static Napi::Value Start(Napi::Env env, Work work, Convert convert) {
    // Deletes itself when it is done.
    auto* task = new Task(env, std::move(work), std::move(convert));
    const Napi::Promise promise = task->deferred_.Promise();
    task->Queue();
    return promise;
  }

 protected:
  void Execute() override {
    try {
      result_ = work_();
    } catch (const LibraryMissing& error) {
      number_ = error.number();
      library_missing_ = true;
      SetError(error.what());
    } catch (const KernelError& error) {
      number_ = error.number();
      SetError(error.what());
    } catch (const std::exception& error) {
      number_ = ENOMEM;
      SetError(error.what());
    }
  }
  void OnOK() override {
    Settle([this] { deferred_.Resolve(convert_(Env(), result_)); });
  }
  void OnError(const Napi::Error& error) override {
    Settle([&] { deferred_.Reject(MakeError(Env(), error.Message(), number_, library_missing_).Value()); });
  }

 private:
  Task(Napi::Env env, Work work, Convert convert)
      : Napi::AsyncWorker(env), deferred_(env), work_(std::move(work)), convert_(std::move(convert)) {}

  Napi::Promise::Deferred deferred_;
  Work work_;
  Convert convert_;
  T result_{};
  int number_ = 0;
  bool library_missing_ = false;
};

}  // namespace thicket
