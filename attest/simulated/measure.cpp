#include "attest/simulated/measure.hpp"

#include "base/encoding.hpp"
#include "base/file.hpp"

namespace cloister::attest::simulated {

Measurement measure(View program, const std::vector<std::string>& arguments) {
  base::Writer w;
  w.field("cloister simulated measurement 1")
      .raw(base::sha384(program))
      .u32(static_cast<std::uint32_t>(arguments.size()));
  for (const std::string& a : arguments) w.field(a);
  return base::sha384(w.bytes());
}

Result<Measurement> measure_file(const std::string& path, const std::vector<std::string>& arguments) {
  auto program = base::read_file(path, guest_cap);
  if (!program) return program.error();
  return measure(*program, arguments);
}

}  // namespace cloister::attest::simulated
