// The kernel's control plane for Thicket: what ts/kernel calls. Arguments are read on JavaScript's thread, all else
// happens elsewhere; each function but `version` returns a promise, rejected with an Error that has `errno` and
// `reason`.
#include <napi.h>

#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "conntrack.h"
#include "error.h"
#include "links.h"
#include "nft.h"
#include "routes.h"
#include "task.h"
#include "values.h"

namespace thicket {

namespace {

// One per JavaScript environment.
class Addon : public Napi::Addon<Addon> {
 public:
  Addon(Napi::Env, Napi::Object exports) {
    DefineAddon(exports, {
                             InstanceMethod("version", &Addon::Version),
                             InstanceMethod("links", &Addon::Links),
                             InstanceMethod("setLink", &Addon::SetLink),
                             InstanceMethod("addresses", &Addon::Addresses),
                             InstanceMethod("addAddress", &Addon::AddAddress),
                             InstanceMethod("deleteAddress", &Addon::DeleteAddress),
                             InstanceMethod("routes", &Addon::Routes),
                             InstanceMethod("addRoute", &Addon::AddRoute),
                             InstanceMethod("deleteRoute", &Addon::DeleteRoute),
                             InstanceMethod("routeTo", &Addon::RouteTo),
                             InstanceMethod("rules", &Addon::Rules),
                             InstanceMethod("addRule", &Addon::AddRule),
                             InstanceMethod("deleteRule", &Addon::DeleteRule),
                             InstanceMethod("flows", &Addon::Flows),
                             InstanceMethod("deleteFlows", &Addon::DeleteFlows),
                             InstanceMethod("nft", &Addon::RunNft),
                         });
  }

 private:
  Napi::Value Version(const Napi::CallbackInfo& info) { return Napi::String::New(info.Env(), THICKET_VERSION); }

  Napi::Value Links(const Napi::CallbackInfo& info) {
    return List<Link>(info, [] { return ListLinks(); });
  }

  Napi::Value SetLink(const Napi::CallbackInfo& info) {
    return Do(info, [&info] {
      const std::string interface = ReadString(info[0], "interface");
      const LinkChange change = ReadLinkChange(info[1]);
      return [interface, change] { thicket::SetLink(interface, change); };
    });
  }

  Napi::Value Addresses(const Napi::CallbackInfo& info) {
    return List<InterfaceAddress>(info, [] { return ListAddresses(); });
  }

  Napi::Value AddAddress(const Napi::CallbackInfo& info) {
    return Do(info, [&info] {
      const std::string interface = ReadString(info[0], "interface");
      const Prefix prefix = ParsePrefix(ReadString(info[1], "prefix"));
      return [interface, prefix] { thicket::AddAddress(interface, prefix); };
    });
  }

  Napi::Value DeleteAddress(const Napi::CallbackInfo& info) {
    return Do(info, [&info] {
      const std::string interface = ReadString(info[0], "interface");
      const Prefix prefix = ParsePrefix(ReadString(info[1], "prefix"));
      return [interface, prefix] { thicket::DeleteAddress(interface, prefix); };
    });
  }

  Napi::Value Routes(const Napi::CallbackInfo& info) {
    return Guard(
        info, [&info] { return List<Route>(info, [within = ReadPrefixes(info[0])] { return ListRoutes(within); }); });
  }

  Napi::Value AddRoute(const Napi::CallbackInfo& info) {
    return Do(info, [&info] { return [route = ReadRoute(info[0])] { thicket::AddRoute(route); }; });
  }

  Napi::Value DeleteRoute(const Napi::CallbackInfo& info) {
    return Do(info, [&info] { return [route = ReadRoute(info[0])] { thicket::DeleteRoute(route); }; });
  }

  Napi::Value RouteTo(const Napi::CallbackInfo& info) {
    return Guard(info, [&info] {
      const Address destination = ParseAddress(ReadString(info[0], "host"));
      return Task<Choice>::Start(
          info.Env(), [destination] { return LookUpRoute(destination); },
          [](Napi::Env env, const Choice& choice) { return ToValue(env, choice); });
    });
  }

  Napi::Value Rules(const Napi::CallbackInfo& info) {
    return List<Rule>(info, [] { return ListRules(); });
  }

  Napi::Value AddRule(const Napi::CallbackInfo& info) {
    return Do(info, [&info] { return [rule = ReadRule(info[0])] { thicket::AddRule(rule); }; });
  }

  Napi::Value DeleteRule(const Napi::CallbackInfo& info) {
    return Do(info, [&info] { return [rule = ReadRule(info[0])] { thicket::DeleteRule(rule); }; });
  }

  Napi::Value Flows(const Napi::CallbackInfo& info) {
    return Guard(info, [&info] {
      return List<Flow>(info, [filters = ReadFlowFilters(info[0])] { return ListFlows(filters); });
    });
  }

  Napi::Value DeleteFlows(const Napi::CallbackInfo& info) {
    return Guard(info, [&info] {
      return Task<uint32_t>::Start(
          info.Env(), [filters = ReadFlowFilters(info[0])] { return thicket::DeleteFlows(filters); },
          [](Napi::Env env, const uint32_t& count) -> Napi::Value { return Napi::Number::New(env, count); });
    });
  }

  Napi::Value RunNft(const Napi::CallbackInfo& info) {
    return Guard(info, [this, &info] {
      // The work owns the thread, too: it may outlive this object.
      return Task<std::string>::Start(
          info.Env(), [nft = nft_, commands = ReadString(info[0], "commands")] { return nft->Run(commands); },
          [](Napi::Env env, const std::string& output) -> Napi::Value { return Napi::String::New(env, output); });
    });
  }

  // A promise rejected for what `start` throws.
  static Napi::Value Guard(const Napi::CallbackInfo& info, const std::function<Napi::Value()>& start) {
    try {
      return start();
    } catch (const KernelError& error) {
      const Napi::Promise::Deferred deferred(info.Env());
      deferred.Reject(MakeError(info.Env(), error.what(), error.number(), false).Value());
      return deferred.Promise();
    }
  }

  // `read` takes the arguments and returns the work.
  template <typename Read>
  static Napi::Value Do(const Napi::CallbackInfo& info, const Read& read) {
    return Guard(info, [&] {
      return Task<bool>::Start(
          info.Env(),
          [work = read()] {
            work();
            return true;
          },
          [](Napi::Env env, const bool&) { return env.Undefined(); });
    });
  }

  template <typename T, typename Work>
  static Napi::Value List(const Napi::CallbackInfo& info, Work work) {
    return Task<std::vector<T>>::Start(info.Env(), std::move(work),
                                       [](Napi::Env env, const std::vector<T>& list) { return ToValue(env, list); });
  }

  const std::shared_ptr<Nft> nft_ = std::make_shared<Nft>();
};

}  // namespace

}  // namespace thicket

static Napi::Object Init(Napi::Env env, Napi::Object exports) { return thicket::Addon::Init(env, exports); }

NODE_API_MODULE(thicket_kernel, Init)
