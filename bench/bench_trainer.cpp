// cloister-bench-trainer: contract 1 (participant/trainer/README.md) without libtorch and without training. For
// benchmarks and end-to-end tests that are about everything but learning.
//
// Its answers are constants that a reader of the results can check. The update of a train task has, for data owner
// number i of the manifest (from 0) and value number j of the model (from 0),
//
//     (i + 1) / 1024 + (j mod 1021) / 65536
//
// so that a value that is missing, doubled or in the wrong place shows in the model. The model that it is given goes
// in nowhere. A statistics task counts 100 records with mean 0 in every column, an evaluate task one record of each
// class per bin. The weight of a train task is 100 for everybody.
//
//   cloister-bench-trainer init --manifest M --out F [--json]    a model of zeros for the manifest's architecture
//   cloister-bench-trainer digest                                of this program

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <sys/mman.h>
#include <unistd.h>

#include "aggregation/evaluate.hpp"
#include "aggregation/model.hpp"
#include "aggregation/statistics.hpp"
#include "base/file.hpp"
#include "participant/data/table.hpp"
#include "participant/trainer/architecture.hpp"

namespace cloister {
namespace {

using Json = nlohmann::json;
constexpr std::size_t period = 1021;
constexpr std::uint64_t train_records = 100, test_records = 50;

struct Failed : std::runtime_error {
  using std::runtime_error::runtime_error;
};

void check(bool ok, const char* what) {
  if (!ok) throw Failed(fmt::format("{}: {}", what, std::strerror(errno)));
}

std::size_t owner_index(const attest::Manifest& manifest, const std::string& owner) {
  const auto owners = manifest.data_owners();
  for (std::size_t i = 0; i < owners.size(); ++i)
    if (owners[i]->owner == owner) return i;
  throw Failed(owner + " is no data owner of the manifest");
}

/// Shared memory, mapped for writing while a task runs.
class Output {
 public:
  Output(int fd, std::size_t size) : size_(size) {
    at_ = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    check(at_ != MAP_FAILED, "update");
  }
  ~Output() { ::munmap(at_, size_); }
  Output(const Output&) = delete;
  Output& operator=(const Output&) = delete;
  std::uint8_t* data() { return static_cast<std::uint8_t*>(at_); }

 private:
  void* at_;
  std::size_t size_;
};

class Trainer {
 public:
  Trainer(const attest::Manifest& manifest, const std::string& owner, int update)
      : manifest_(manifest),
        schema_(aggregation::Schema::make(participant::trainer::Architecture::of(manifest).value().tensors()).value()),
        update_(update) {
    const auto index = static_cast<float>(owner_index(manifest, owner) + 1) / 1024;
    for (std::size_t j = 0; j < tile_.size(); ++j) tile_[j] = index + static_cast<float>(j % period) / 65536;
  }

  Json perform(const Json& task) {
    const std::string name = task.at("task");
    if (name == "train") return train();
    if (name == "statistics") return put(statistics(), 1);
    if (name == "evaluate") return put(evaluation(), 1);
    throw Failed("wanted statistics, train or evaluate");
  }

 private:
  Json train() {
    const std::size_t bytes = schema_.bytes(), tile = tile_.size() * sizeof(float);
    Output out(update_, bytes);
    for (std::size_t at = 0; at < bytes; at += tile)
      std::memcpy(out.data() + at, tile_.data(), std::min(tile, bytes - at));
    return {{"ok", true}, {"bytes", bytes}, {"weight", train_records}};
  }
  Json put(const Bytes& update, std::uint64_t weight) {
    Output out(update_, update.size());
    std::memcpy(out.data(), update.data(), update.size());
    return {{"ok", true}, {"bytes", update.size()}, {"weight", weight}};
  }
  Bytes statistics() const {
    const auto columns = participant::data::Declaration::of(manifest_).statistic_columns();
    std::vector<aggregation::SiteColumn> counted;
    for (const auto& c : columns)
      counted.push_back({.count = train_records,
                         .sum = 0,
                         .square_sum = static_cast<double>(train_records),
                         .counts = std::vector<std::uint64_t>(c.categories.size(), train_records)});
    const auto plan = aggregation::StatisticsPlan::make(columns, manifest_.statistics_kinds).value();
    return aggregation::statistics_update(plan, counted, manifest_.statistics_minimum_count);
  }
  Bytes evaluation() const {
    const auto format = aggregation::evaluate_format(manifest_.evaluate_bins).value();
    Bytes out(format.schema.bytes(), 0);
    for (std::size_t at = 0; at < out.size(); at += 8) out[at] = 1;  // int64, little endian
    return out;
  }

  attest::Manifest manifest_;
  aggregation::Schema schema_;
  int update_;
  std::vector<float> tile_ = std::vector<float>(period * 64);
};

// --- The child -------------------------------------------------------------------------------------------------------

bool read_line(int fd, std::string& buffer, std::string& line) {
  for (;;) {
    if (const std::size_t end = buffer.find('\n'); end != std::string::npos) {
      line = buffer.substr(0, end);
      buffer.erase(0, end + 1);
      return true;
    }
    char chunk[1 << 16];
    const ssize_t n = ::read(fd, chunk, sizeof chunk);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    buffer.append(chunk, static_cast<std::size_t>(n));
  }
}

bool write_line(int fd, const Json& object) {
  const std::string line = object.dump() + "\n";
  for (std::size_t at = 0; at < line.size();) {
    const ssize_t n = ::write(fd, line.data() + at, line.size() - at);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    at += static_cast<std::size_t>(n);
  }
  return true;
}

int serve() {
  constexpr int lines = 3, update = 6;
  std::string buffer, line;
  if (!read_line(lines, buffer, line)) return 1;
  try {
    const Json first = Json::parse(line);
    if (first.at("contract") != 1) throw Failed("this trainer speaks contract 1");
    const auto manifest = attest::parse_manifest(first.at("manifest").get<std::string>(), "manifest").value();
    Trainer trainer(manifest, first.at("owner"), update);
    write_line(lines, {{"ok", true},
                       {"contract", 1},
                       {"records", train_records + test_records},
                       {"train_records", train_records},
                       {"test_records", test_records}});
    while (read_line(lines, buffer, line))
      if (!write_line(lines, trainer.perform(Json::parse(line)))) break;
    return 0;
  } catch (const std::exception& e) {
    write_line(lines, {{"ok", false}, {"error", e.what()}});
    return 1;
  }
}

// --- By hand ---------------------------------------------------------------------------------------------------------

/// Header and zeros, written in pieces: a model may be larger than memory.
base::Sha256 write_zeros(const std::string& path, const aggregation::Schema& schema) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  check(fd >= 0, path.c_str());
  base::Hasher hasher;
  const auto put = [&](View bytes) {
    hasher.add(bytes);
    check(::write(fd, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()), path.c_str());
  };
  put(aggregation::model_header(schema));
  const Bytes zeros(std::size_t{1} << 20, 0);
  for (std::uint64_t left = schema.bytes(); left > 0; left -= std::min<std::uint64_t>(left, zeros.size()))
    put(View(zeros).first(std::min<std::uint64_t>(left, zeros.size())));
  ::close(fd);
  return std::move(hasher).finish();
}

int init(const std::string& manifest_path, const std::string& out) {
  const Bytes text = base::read_file(manifest_path, 1 << 20).value();
  const auto manifest = attest::parse_manifest(base::text(text), manifest_path).value();
  const auto architecture = participant::trainer::Architecture::of(manifest).value();
  const auto schema = aggregation::Schema::make(architecture.tensors()).value();
  const std::string digest = base::digest_text(write_zeros(out, schema));
  const Json facts{{"digest", digest},
                   {"tensors", participant::trainer::tensors_toml(schema)},
                   {"features", architecture.features},
                   {"values", schema.elements()}};
  fmt::print("{}\n", facts.dump());
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
  fmt::print(stderr, "cloister-bench-trainer [init --manifest M --out F [--json] | digest]\n");
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
