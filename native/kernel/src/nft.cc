#include "nft.h"

#include <dlfcn.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <exception>
#include <memory>
#include <utility>

#include "error.h"

namespace thicket {

namespace {

constexpr char kLibrary[] = "libnftables.so.1";

// What we use of libnftables(3). Its header isn't needed to build.
struct Library {
  using Context = void;
  Context* (*create)(uint32_t flags) = nullptr;
  void (*destroy)(Context*) = nullptr;
  int (*buffer_output)(Context*) = nullptr;
  int (*buffer_error)(Context*) = nullptr;
  const char* (*output)(Context*) = nullptr;
  const char* (*error)(Context*) = nullptr;
  int (*run)(Context*, const char* commands) = nullptr;
};

template <typename F>
void Resolve(void* handle, const char* name, F*& function) {
  function = reinterpret_cast<F*>(dlsym(handle, name));
  if (function == nullptr) throw LibraryMissing(ENOSYS, std::string(kLibrary) + " has no " + name);
}

// Never closed again: the library keeps state of its own.
Library Open() {
  void* handle = dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) throw LibraryMissing(ENOENT, dlerror());
  Library library;
  Resolve(handle, "nft_ctx_new", library.create);
  Resolve(handle, "nft_ctx_free", library.destroy);
  Resolve(handle, "nft_ctx_buffer_output", library.buffer_output);
  Resolve(handle, "nft_ctx_buffer_error", library.buffer_error);
  Resolve(handle, "nft_ctx_get_output_buffer", library.output);
  Resolve(handle, "nft_ctx_get_error_buffer", library.error);
  Resolve(handle, "nft_run_cmd_from_buffer", library.run);
  return library;
}

std::string Text(const char* text) {
  std::string copy = text == nullptr ? "" : text;
  while (!copy.empty() && copy.back() == '\n') copy.pop_back();
  return copy;
}

// The library tells errors as text only; those of the kernel end in its words for an errno.
int ErrorNumber(const std::string& text) {
  for (const int number : {EPERM, EACCES, ENOENT, EEXIST, EOPNOTSUPP, ENOMEM, EBUSY}) {
    if (text.find(strerror(number)) != std::string::npos) return number;
  }
  return EINVAL;
}

class Context {
 public:
  explicit Context(const Library& library) : library_(library), context_(library.create(0), library.destroy) {
    if (context_ == nullptr || library_.buffer_output(context_.get()) != 0 ||
        library_.buffer_error(context_.get()) != 0) {
      throw KernelError(ENOMEM, "open libnftables");
    }
  }

  std::string Run(const std::string& commands) {
    const int failed = library_.run(context_.get(), commands.c_str());
    // Both buffers are emptied by being read.
    std::string output = Text(library_.output(context_.get()));
    const std::string error = Text(library_.error(context_.get()));
    if (failed != 0) throw KernelError(ErrorNumber(error), error);
    return output;
  }

 private:
  Library library_;
  std::unique_ptr<Library::Context, void (*)(Library::Context*)> context_;
};

}  // namespace

Nft::~Nft() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_one();
  if (thread_.joinable()) thread_.join();
}

std::string Nft::Run(std::string commands) {
  std::future<std::string> output;
  {
    const std::lock_guard lock(mutex_);
    Job& job = jobs_.emplace_back(Job{std::move(commands), {}});
    output = job.output.get_future();
    if (!thread_.joinable()) thread_ = std::thread([this] { Work(); });
  }
  wake_.notify_one();
  return output.get();
}

void Nft::Work() {
  std::unique_ptr<Context> context;
  std::unique_lock lock(mutex_);
  for (;;) {
    wake_.wait(lock, [this] { return stop_ || !jobs_.empty(); });
    if (jobs_.empty()) return;
    Job job = std::move(jobs_.front());
    jobs_.pop_front();
    lock.unlock();
    try {
      if (context == nullptr) context = std::make_unique<Context>(Open());
      job.output.set_value(context->Run(job.commands));
    } catch (...) {
      // What the context remembers of the kernel's tables is in doubt now.
      context.reset();
      job.output.set_exception(std::current_exception());
    }
    lock.lock();
  }
}

}  // namespace thicket
