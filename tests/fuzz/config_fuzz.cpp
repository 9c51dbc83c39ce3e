#include "base/config.hpp"
#include "tests/fuzz/fuzz.hpp"

// Any TOML under a schema that uses every getter.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace cloister;
  auto config = base::Config::parse(base::text(View(data, size)), "fuzz.toml");
  if (!config) return 0;
  base::Section root = config->root();
  root.string("owner");
  root.one_of("role", {"model", "data"});
  root.integer("count", 0, 10);
  root.number("epsilon");
  root.boolean("debug");
  root.strings("columns");
  root.numbers("bounds");
  root.duration("renew");
  root.size("memory");
  root.time("until");
  root.key("key");
  root.digest("digest");
  for (base::Section s : root.elements("measurement")) s.maybe_string("value");
  for (base::Section s : root.sections("party")) s.maybe_string("owner");
  if (auto s = root.maybe_section("study")) s->keys();
  if (auto done = config->finish(); !done && done.error().what.empty()) std::abort();  // a refusal says why
  return 0;
}

std::vector<cloister::Bytes> cloister::fuzz::seeds() {
  const std::string toml = R"(owner = "charite"
role = "data"
count = 3
epsilon = 4.0
debug = false
columns = ["age", "sex"]
bounds = [1, 2.5]
renew = "1h"
memory = "2 GiB"
until = 2027-12-01
key = "ed25519:d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
measurement = ["ab", { name = "x", signed_by = "y" }]
[[party]]
owner = "usz"
[study]
rounds = { at_most = 5 }
)";
  return {base::copy(base::view(toml)),
          base::copy(base::view("a = 1979-05-27T07:32:00-08:00\n[a.b]\nc = [[1], [\"x\"]]\n")),
          base::copy(base::view("a = 3958-05-27T0\xc9\xb3 4\n"))};  // once undefined behaviour inside toml++
}
