#include "attest/simulated/tee/answer.hpp"

#include <fmt/format.h>

#include "base/encoding.hpp"

namespace cloister::attest::simulated::tee {
namespace {

constexpr std::size_t wanted_cap = 64;

Bytes ok(View value) {
  return base::Writer().field("ok").field(value).bytes();
}
Bytes error(std::string_view why) {
  return base::Writer().field("error").field(why).bytes();
}

}  // namespace

Bytes answer(const Platform& platform, const Started& started, View request, Time at) {
  base::Reader r("request", request);
  const std::string name = r.string("name", 32);
  if (name == "document 1") {
    if (auto whole = r.finish(); !whole) return error(whole.error().text());
    return ok(started.document);
  }
  if (name == "evidence 1") {
    const auto report_data = r.array<64>("report_data");
    r.field("wanted_measurement", wanted_cap);  // read and set aside: a guest does not say what it is
    if (auto whole = r.finish(); !whole) return error(whole.error().text());
    return ok(platform.attest(started.measurement, started.host_data, report_data, at));
  }
  if (!r.ok()) return error(r.finish().error().text());
  return error(fmt::format("request.name: wanted \"document 1\" or \"evidence 1\", found \"{}\"", name));
}

}  // namespace cloister::attest::simulated::tee
