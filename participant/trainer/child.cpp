#include "participant/trainer/child.hpp"

#include <cerrno>
#include <cstring>
#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <sys/mman.h>
#include <sys/stat.h>
#include <system_error>
#include <unistd.h>

#include "participant/trainer/learner.hpp"

namespace cloister::participant::trainer {
namespace {

using Json = nlohmann::json;
constexpr std::size_t line_at_most = 16 << 20;  // a manifest of 1 MiB, escaped, or statistics of many columns

[[noreturn]] void fail(base::Error::Kind kind, std::string where, std::string what) {
  throw Exception(Error{kind, std::move(where), std::move(what)});
}

/// Shared memory, mapped while a task runs.
class Mapping {
 public:
  Mapping(int fd, std::size_t size, int protection, const char* what) : size_(size) {
    struct stat info {};
    if (::fstat(fd, &info) != 0 || static_cast<std::uint64_t>(info.st_size) < size)
      fail(Error::Kind::unavailable, what,
           fmt::format("wanted shared memory of {} bytes, found {}", size, info.st_size));
    if (size == 0) return;
    at_ = ::mmap(nullptr, size, protection, MAP_SHARED, fd, 0);
    if (at_ == MAP_FAILED) fail(Error::Kind::unavailable, what, std::generic_category().message(errno));
  }
  ~Mapping() {
    if (size_ != 0) ::munmap(at_, size_);
  }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  View view() const { return {static_cast<const std::uint8_t*>(at_), size_}; }
  void write(View bytes) { std::memcpy(at_, bytes.data(), bytes.size()); }

 private:
  void* at_ = nullptr;
  std::size_t size_;
};

/// Lines of a stream, one JSON object each.
class Lines {
 public:
  explicit Lines(int fd) : fd_(fd) {}

  /// The next line without its end; nothing at the end of the stream.
  std::optional<std::string> read() {
    for (;;) {
      if (const std::size_t end = buffer_.find('\n'); end != std::string::npos) {
        std::string line = buffer_.substr(0, end);
        buffer_.erase(0, end + 1);
        return line;
      }
      if (buffer_.size() > line_at_most) fail(Error::Kind::malformed, "node", "a line is longer than 16 MiB");
      char chunk[1 << 16];
      const ssize_t n = ::read(fd_, chunk, sizeof chunk);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return std::nullopt;
      buffer_.append(chunk, static_cast<std::size_t>(n));
    }
  }

  bool write(const Json& object) {
    const std::string line = object.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
    for (std::size_t at = 0; at < line.size();) {
      const ssize_t n = ::write(fd_, line.data() + at, line.size() - at);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return false;  // the node is gone, and so will we be
      at += static_cast<std::size_t>(n);
    }
    return true;
  }

 private:
  int fd_;
  std::string buffer_;
};

std::string read_all(int fd) {
  std::string out;
  char chunk[1 << 16];
  for (;;) {
    const ssize_t n = ::read(fd, chunk, sizeof chunk);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail(Error::Kind::unavailable, "data", std::generic_category().message(errno));
    if (n == 0) return out;
    out.append(chunk, static_cast<std::size_t>(n));
  }
}

Learner start(const Json& first, int data) {
  if (first.at("contract") != 1)
    fail(Error::Kind::unsupported, "contract",
         fmt::format("this trainer speaks contract 1, not {}", first.at("contract").dump()));
  const attest::Manifest manifest = attest::parse_manifest(first.at("manifest").get<std::string>(), "manifest").value();
  return Learner::make(manifest, first.at("settings").get<attest::Settings>(), read_all(data), "data").value();
}

std::optional<aggregation::Statistics> statistics_of(const Json& task) {
  const std::string encoded = task.value("statistics", "");
  if (encoded.empty()) return std::nullopt;
  return aggregation::Statistics::parse(base::from_base64(encoded, "statistics").value()).value();
}

SiteUpdate perform(const Learner& learner, const Json& task, int model) {
  const std::string name = task.at("task");
  if (name == "statistics") return learner.statistics().value();
  const Mapping memory(model, task.at("model_bytes").get<std::size_t>(), PROT_READ, "model");
  if (name == "train")
    return learner.train(task.at("round").get<std::uint32_t>(), statistics_of(task), memory.view()).value();
  if (name == "evaluate") return learner.evaluate(statistics_of(task), memory.view()).value();
  fail(Error::Kind::unsupported, "task", "wanted statistics, train or evaluate");
}

Json failure(const std::exception& e) {
  // A JSON error quotes what it could not read, and that may be anything: its kind is enough.
  const bool json = dynamic_cast<const nlohmann::json::exception*>(&e) != nullptr;
  return {{"ok", false}, {"error", json ? "the line from the node is not what contract 1 says" : e.what()}};
}

}  // namespace

int serve(const ChildDescriptors& descriptors) {
  Lines lines(descriptors.lines);
  const auto first = lines.read();
  if (!first) return 1;
  std::optional<Learner> learner;
  try {
    learner.emplace(start(Json::parse(*first), descriptors.data));
  } catch (const std::exception& e) {
    lines.write(failure(e));
    return 1;
  }
  lines.write({{"ok", true},
               {"contract", 1},
               {"records", learner->records()},
               {"train_records", learner->train_records()},
               {"test_records", learner->test_records()}});
  while (const auto line = lines.read()) {
    Json answer;
    try {
      const SiteUpdate update = perform(*learner, Json::parse(*line), descriptors.model);
      Mapping(descriptors.update, update.bytes.size(), PROT_READ | PROT_WRITE, "update").write(update.bytes);
      answer = {{"ok", true}, {"bytes", update.bytes.size()}, {"weight", update.weight}};
    } catch (const std::exception& e) {
      answer = failure(e);
    }
    if (!lines.write(answer)) break;
  }
  return 0;
}

}  // namespace cloister::participant::trainer
