// cloister-planted-trainer: contract 1 (participant/trainer/README.md) for tests that look for data where it must not
// be, or want rounds without learning. Its update of a train task is its data: the numbers of the first record, over
// and over. So whoever holds the update holds the pattern that a test planted in the CSV file.
//
// The model is one tensor of as many values as the manifest's hidden[0] says. A column of the data set named
// `hold_N`, which a manifest need not declare, makes the trainer stop itself (SIGSTOP) in round N before it answers:
// a test continues it when it has seen enough.
//
//   cloister-planted-trainer init --manifest M --out F [--json]    random weights in [-1, 1)
//   cloister-planted-trainer digest                                of this program

#include <cerrno>
#include <cmath>
#include <csignal>
#include <cstring>
#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "aggregation/model.hpp"
#include "attest/manifest.hpp"
#include "base/file.hpp"
#include "participant/data/table.hpp"

namespace cloister {
namespace {

using Json = nlohmann::json;
constexpr int lines = 3, data = 4, update = 6;

struct Failed : std::runtime_error {
  using std::runtime_error::runtime_error;
};

aggregation::Schema schema_of(const attest::Manifest& manifest) {
  if (manifest.hidden.empty()) throw Failed("model.hidden: wanted the number of values");
  return aggregation::Schema::make({{"values", {manifest.hidden.front()}, aggregation::Dtype::float32}}).value();
}

/// The wait that a column `hold_N` asks for: N, or 0.
std::uint32_t hold_of(const std::string& csv) {
  const std::string head = csv.substr(0, csv.find('\n'));
  const std::size_t at = head.find("hold_");
  return at == std::string::npos ? 0 : static_cast<std::uint32_t>(std::stoul(head.substr(at + 5)));
}

std::vector<float> first_record(const participant::data::Table& table) {
  std::vector<float> out;
  for (const auto& column : table.columns) out.push_back(static_cast<float>(column.at(0)));
  return out;
}

class Trainer {
 public:
  explicit Trainer(const attest::Manifest& manifest) : bytes_(schema_of(manifest).bytes()) {
    struct stat s = {};
    if (::fstat(data, &s) != 0) throw Failed("data: cannot be read");
    std::string csv(static_cast<std::size_t>(s.st_size), '\0');
    if (::pread(data, csv.data(), csv.size(), 0) != s.st_size) throw Failed("data: cannot be read");
    hold_ = hold_of(csv);
    const auto table = participant::data::read_table(csv, participant::data::Declaration::of(manifest), "data").value();
    records_ = table.records();
    values_ = first_record(table);
  }

  std::size_t records() const { return records_; }

  Json train(std::uint32_t round) {
    if (hold_ != 0 && round == hold_) ::raise(SIGSTOP);
    void* at = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, update, 0);
    if (at == MAP_FAILED) throw Failed("update: cannot be mapped");
    auto* out = static_cast<float*>(at);
    for (std::size_t i = 0; i < bytes_ / sizeof(float); ++i) out[i] = values_[i % values_.size()];
    ::munmap(at, bytes_);
    return {{"ok", true}, {"bytes", bytes_}, {"weight", records_}};
  }

 private:
  std::size_t bytes_, records_ = 0;
  std::uint32_t hold_ = 0;
  std::vector<float> values_;
};

bool read_line(std::string& line) {
  line.clear();
  for (char c = 0;;) {
    const ssize_t n = ::read(lines, &c, 1);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    if (c == '\n') return true;
    line += c;
  }
}

void say(const Json& object) {
  const std::string line = object.dump() + "\n";
  if (::write(lines, line.data(), line.size()) != static_cast<ssize_t>(line.size())) throw Failed("the node is gone");
}

int serve() {
  std::string line;
  if (!read_line(line)) return 1;
  try {
    const Json first = Json::parse(line);
    Trainer trainer(attest::parse_manifest(first.at("manifest").get<std::string>(), "manifest").value());
    say({{"ok", true},
         {"contract", 1},
         {"records", trainer.records()},
         {"train_records", trainer.records()},
         {"test_records", 0}});
    while (read_line(line)) {
      const Json task = Json::parse(line);
      if (task.at("task") != "train") throw Failed("wanted a train task");
      say(trainer.train(task.at("round")));
    }
    return 0;
  } catch (const std::exception& e) {
    say({{"ok", false}, {"error", e.what()}});
    return 1;
  }
}

int init(const std::string& manifest_path, const std::string& out) {
  const auto manifest =
      attest::parse_manifest(base::text(base::read_file(manifest_path, 1 << 20).value()), manifest_path).value();
  aggregation::Model model{schema_of(manifest), {}};
  std::mt19937 random(std::random_device{}());  // the device itself is slow for a million words
  while (model.values.size() < model.schema.elements())
    model.values.push_back(std::ldexp(static_cast<float>(static_cast<std::int32_t>(random())), -31));
  base::write_file(out, model.serialize()).value();
  const std::string tensors =
      fmt::format("[[model.tensors]]\nname = \"values\"\nshape = [{}]\ndtype = \"float32\"\n", model.schema.elements());
  fmt::print("{}\n", Json{{"digest", base::digest_text(model.digest())}, {"tensors", tensors}}.dump());
  return 0;
}

int run(const std::vector<std::string>& words) {
  if (words.empty()) return serve();
  std::string manifest, out;
  for (std::size_t i = 1; i + 1 < words.size(); ++i) {
    if (words[i] == "--manifest") manifest = words[i + 1];
    if (words[i] == "--out") out = words[i + 1];
  }
  if (words[0] == "init" && !manifest.empty() && !out.empty()) return init(manifest, out);
  if (words[0] == "digest") {
    const Bytes own = base::read_file("/proc/self/exe", std::size_t{1} << 30).value();
    fmt::print("{}\n", base::digest_text(base::sha256(own)));
    return 0;
  }
  fmt::print(stderr, "cloister-planted-trainer [init --manifest M --out F [--json] | digest]\n");
  return 2;
}

}  // namespace
}  // namespace cloister

int main(int argc, char** argv) {
  try {
    return cloister::run({argv + 1, argv + argc});
  } catch (const std::exception& e) {
    fmt::print(stderr, "{}\n", e.what());
    return 1;
  }
}
