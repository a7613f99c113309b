// JavaScript values from and to this addon's own. Reading throws KernelError(EINVAL) for what has not the right type.
#pragma once

#include <napi.h>

#include <optional>
#include <string>
#include <vector>

#include "address.h"
#include "conntrack.h"
#include "links.h"
#include "routes.h"

namespace thicket {

std::string ReadString(const Napi::Value& value, const char* what);
uint32_t ReadNumber(const Napi::Value& value, const char* what, uint32_t highest = UINT32_MAX);
std::vector<Prefix> ReadPrefixes(const Napi::Value& value);
LinkChange ReadLinkChange(const Napi::Value& value);
Route ReadRoute(const Napi::Value& value);
Rule ReadRule(const Napi::Value& value);
std::vector<FlowFilter> ReadFlowFilters(const Napi::Value& value);

Napi::Value ToValue(Napi::Env env, const Link& link);
Napi::Value ToValue(Napi::Env env, const InterfaceAddress& address);
Napi::Value ToValue(Napi::Env env, const Route& route);
Napi::Value ToValue(Napi::Env env, const Choice& choice);
Napi::Value ToValue(Napi::Env env, const Rule& rule);
Napi::Value ToValue(Napi::Env env, const Flow& flow);

template <typename T>
Napi::Value ToValue(Napi::Env env, const std::vector<T>& list) {
  Napi::Array array = Napi::Array::New(env, list.size());
  for (size_t i = 0; i < list.size(); ++i) array.Set(static_cast<uint32_t>(i), ToValue(env, list[i]));
  return array;
}

}  // namespace thicket
