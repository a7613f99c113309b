#include "values.h"

#include <linux/fib_rules.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <cmath>

#include "error.h"

namespace thicket {

namespace {

[[noreturn]] void Refuse(const std::string& what) { throw KernelError(EINVAL, "read the argument " + what); }

Napi::Object ReadObject(const Napi::Value& value, const char* what) {
  if (!value.IsObject()) Refuse(what);
  return value.As<Napi::Object>();
}

// A property; nothing when it is absent or undefined.
std::optional<Napi::Value> Property(const Napi::Object& object, const char* name) {
  Napi::Value value = object.Get(name);
  if (value.IsUndefined() || value.IsNull()) return std::nullopt;
  return value;
}

std::optional<std::string> StringProperty(const Napi::Object& object, const char* name) {
  const auto value = Property(object, name);
  if (!value.has_value()) return std::nullopt;
  return ReadString(*value, name);
}

std::optional<uint32_t> NumberProperty(const Napi::Object& object, const char* name, uint32_t highest = UINT32_MAX) {
  const auto value = Property(object, name);
  if (!value.has_value()) return std::nullopt;
  return ReadNumber(*value, name, highest);
}

std::optional<bool> BooleanProperty(const Napi::Object& object, const char* name) {
  const auto value = Property(object, name);
  if (!value.has_value()) return std::nullopt;
  if (!value->IsBoolean()) Refuse(name);
  return value->As<Napi::Boolean>().Value();
}

std::optional<Address> AddressProperty(const Napi::Object& object, const char* name) {
  const auto text = StringProperty(object, name);
  if (!text.has_value()) return std::nullopt;
  return ParseAddress(*text);
}

std::optional<Prefix> PrefixProperty(const Napi::Object& object, const char* name) {
  const auto text = StringProperty(object, name);
  if (!text.has_value()) return std::nullopt;
  return ParsePrefix(*text);
}

constexpr uint32_t kOctet = 255;
constexpr uint32_t kPort = 65535;

struct Word {
  uint8_t number;
  const char* text;
};

constexpr Word kRouteTypes[] = {
    {RTN_UNICAST, "unicast"},         {RTN_LOCAL, "local"},         {RTN_BROADCAST, "broadcast"},
    {RTN_ANYCAST, "anycast"},         {RTN_MULTICAST, "multicast"}, {RTN_BLACKHOLE, "blackhole"},
    {RTN_UNREACHABLE, "unreachable"}, {RTN_PROHIBIT, "prohibit"},   {RTN_THROW, "throw"},
};

constexpr Word kRuleActions[] = {
    {FR_ACT_TO_TBL, "lookup"},
    {FR_ACT_GOTO, "goto"},
    {FR_ACT_NOP, "nop"},
    {FR_ACT_BLACKHOLE, "blackhole"},
    {FR_ACT_UNREACHABLE, "unreachable"},
    {FR_ACT_PROHIBIT, "prohibit"},
};

template <size_t N>
std::string TextOf(const Word (&words)[N], uint8_t number) {
  for (const Word& word : words) {
    if (word.number == number) return word.text;
  }
  return "other";
}

template <size_t N>
uint8_t NumberOf(const Word (&words)[N], const std::string& text, const char* what) {
  for (const Word& word : words) {
    if (word.text == text) return word.number;
  }
  Refuse(what);
}

Napi::Value ToValue(Napi::Env env, const Tuple& tuple) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("source", tuple.source.text());
  object.Set("destination", tuple.destination.text());
  object.Set("protocol", Napi::Number::New(env, tuple.protocol));
  object.Set("sourcePort", Napi::Number::New(env, tuple.source_port));
  object.Set("destinationPort", Napi::Number::New(env, tuple.destination_port));
  return object;
}

}  // namespace

std::string ReadString(const Napi::Value& value, const char* what) {
  if (!value.IsString()) Refuse(what);
  return value.As<Napi::String>().Utf8Value();
}

uint32_t ReadNumber(const Napi::Value& value, const char* what, uint32_t highest) {
  if (!value.IsNumber()) Refuse(what);
  const double number = value.As<Napi::Number>().DoubleValue();
  if (!(number >= 0 && number <= highest) || std::floor(number) != number) Refuse(what);
  return static_cast<uint32_t>(number);
}

std::vector<Prefix> ReadPrefixes(const Napi::Value& value) {
  if (value.IsUndefined()) return {};
  if (!value.IsArray()) Refuse("prefixes");
  const auto array = value.As<Napi::Array>();
  std::vector<Prefix> prefixes;
  for (uint32_t i = 0; i < array.Length(); ++i) prefixes.push_back(ParsePrefix(ReadString(array.Get(i), "prefixes")));
  return prefixes;
}

LinkChange ReadLinkChange(const Napi::Value& value) {
  const Napi::Object object = ReadObject(value, "change");
  return {
      .up = BooleanProperty(object, "up"),
      .mtu = NumberProperty(object, "mtu"),
      .gso_max_segments = NumberProperty(object, "gsoMaxSegments"),
      .transmit_queue = NumberProperty(object, "transmitQueue"),
      .generate_addresses = BooleanProperty(object, "generateAddresses"),
  };
}

Route ReadRoute(const Napi::Value& value) {
  const Napi::Object object = ReadObject(value, "route");
  const auto destination = PrefixProperty(object, "destination");
  if (!destination.has_value()) Refuse("destination");
  return {
      .destination = *destination,
      .type = NumberOf(kRouteTypes, StringProperty(object, "type").value_or("unicast"), "type"),
      .table = NumberProperty(object, "table").value_or(0),
      .protocol = static_cast<uint8_t>(NumberProperty(object, "protocol", kOctet).value_or(0)),
      .metric = NumberProperty(object, "metric").value_or(0),
      .interface = StringProperty(object, "interface").value_or(""),
      .gateway = AddressProperty(object, "gateway"),
      .source = AddressProperty(object, "source"),
  };
}

Rule ReadRule(const Napi::Value& value) {
  const Napi::Object object = ReadObject(value, "rule");
  Rule rule;
  rule.family = ReadNumber(object.Get("family"), "family", 6) == 6 ? AF_INET6 : AF_INET;
  rule.priority = ReadNumber(object.Get("priority"), "priority");
  rule.from = PrefixProperty(object, "from");
  rule.to = PrefixProperty(object, "to");
  rule.input = StringProperty(object, "input").value_or("");
  rule.output = StringProperty(object, "output").value_or("");
  rule.mark = NumberProperty(object, "mark");
  rule.action = NumberOf(kRuleActions, StringProperty(object, "action").value_or("lookup"), "action");
  rule.table = NumberProperty(object, "table").value_or(0);
  rule.protocol = static_cast<uint8_t>(NumberProperty(object, "protocol", kOctet).value_or(0));
  return rule;
}

std::vector<FlowFilter> ReadFlowFilters(const Napi::Value& value) {
  if (!value.IsArray()) Refuse("filters");
  const auto array = value.As<Napi::Array>();
  std::vector<FlowFilter> filters;
  for (uint32_t i = 0; i < array.Length(); ++i) {
    const Napi::Object object = ReadObject(array.Get(i), "filters");
    FlowFilter filter;
    filter.source = AddressProperty(object, "source");
    filter.destination = AddressProperty(object, "destination");
    if (const auto protocol = NumberProperty(object, "protocol", kOctet))
      filter.protocol = static_cast<uint8_t>(*protocol);
    if (const auto port = NumberProperty(object, "destinationPort", kPort)) {
      filter.destination_port = static_cast<uint16_t>(*port);
    }
    filters.push_back(filter);
  }
  return filters;
}

Napi::Value ToValue(Napi::Env env, const Link& link) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("index", Napi::Number::New(env, link.index));
  object.Set("name", link.name);
  object.Set("mtu", Napi::Number::New(env, link.mtu));
  object.Set("up", Napi::Boolean::New(env, link.up));
  return object;
}

Napi::Value ToValue(Napi::Env env, const InterfaceAddress& address) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("interface", address.interface);
  object.Set("address", address.prefix.address.text());
  object.Set("prefix", Napi::Number::New(env, address.prefix.length));
  return object;
}

Napi::Value ToValue(Napi::Env env, const Route& route) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("destination", route.destination.text());
  object.Set("type", TextOf(kRouteTypes, route.type));
  object.Set("table", Napi::Number::New(env, route.table));
  object.Set("protocol", Napi::Number::New(env, route.protocol));
  object.Set("metric", Napi::Number::New(env, route.metric));
  if (!route.interface.empty()) object.Set("interface", route.interface);
  if (route.gateway.has_value()) object.Set("gateway", route.gateway->text());
  if (route.source.has_value()) object.Set("source", route.source->text());
  return object;
}

Napi::Value ToValue(Napi::Env env, const Choice& choice) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("source", choice.source.text());
  object.Set("interface", choice.interface);
  if (choice.gateway.has_value()) object.Set("gateway", choice.gateway->text());
  return object;
}

Napi::Value ToValue(Napi::Env env, const Rule& rule) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("family", Napi::Number::New(env, rule.family == AF_INET6 ? 6 : 4));
  object.Set("priority", Napi::Number::New(env, rule.priority));
  if (rule.from.has_value()) object.Set("from", rule.from->text());
  if (rule.to.has_value()) object.Set("to", rule.to->text());
  if (!rule.input.empty()) object.Set("input", rule.input);
  if (!rule.output.empty()) object.Set("output", rule.output);
  if (rule.mark.has_value()) object.Set("mark", Napi::Number::New(env, *rule.mark));
  object.Set("action", TextOf(kRuleActions, rule.action));
  object.Set("table", Napi::Number::New(env, rule.table));
  object.Set("protocol", Napi::Number::New(env, rule.protocol));
  return object;
}

Napi::Value ToValue(Napi::Env env, const Flow& flow) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("original", ToValue(env, flow.original));
  object.Set("reply", ToValue(env, flow.reply));
  object.Set("status", Napi::Number::New(env, flow.status));
  return object;
}

}  // namespace thicket
