#include <fmt/format.h>

#include "attest/charter.hpp"
#include "base/encoding.hpp"

namespace cloister::attest {

using base::malformed;
using base::untrusted;

namespace {

constexpr std::string_view context = "cloister reference value 1";

Bytes message(const Reference& r) {
  return base::Writer().field(r.name).field(r.measurement).bytes();
}

}  // namespace

std::string Reference::toml() const {
  return fmt::format("name = {}\nmeasurement = \"{}\"\nsigner = \"{}\"\nsignature = \"{}\"\n", base::json_escape(name),
                     base::hex(measurement), signer.text(), base::hex(signature));
}

Reference sign_reference(std::string name, Bytes measurement, const base::PrivateKey& signer) {
  Reference out{std::move(name), std::move(measurement), signer.public_key(), {}};
  out.signature = signer.sign(context, message(out));
  return out;
}

Result<Reference> parse_reference(std::string_view toml, std::string file) {
  auto config = base::Config::parse(toml, file);
  if (!config) return config.error();
  base::Section root = config->root();
  Reference out;
  out.name = root.string("name");
  const auto bytes = [&](const char* key, std::size_t size) {
    auto b = base::from_hex(root.string(key), "");
    if (b && b->size() == size) return *b;
    if (root.has(key)) root.fail(key, fmt::format("wanted {} hex digits", 2 * size));
    return Bytes(size);
  };
  out.measurement = bytes("measurement", 48);
  out.signer = root.key("signer");
  out.signature = base::array<64>(bytes("signature", 64));
  if (auto done = config->finish(); !done) return done.error();
  if (auto ok = verify(out); !ok) return untrusted(file, ok.error().what);
  return out;
}

Result<void> verify(const Reference& r) {
  if (r.measurement.size() != 48) return malformed("reference " + r.name, "wanted a measurement of 48 bytes");
  if (r.signer.verifies(context, message(r), r.signature)) return {};
  return untrusted("reference " + r.name, fmt::format("its signature is not by {}", r.signer.text()));
}

}  // namespace cloister::attest
