#pragma once
// The node's side of the trainer contract, version 1 (participant/trainer/README.md): one child per run, in the
// sandbox, with the data read-only, the model in memory that it cannot write, its update in memory of fixed size, and a
// line of JSON per task. Failures throw Exception{unavailable} that say what the child did wrong and how it ended; they
// never quote data.

#include <boost/asio/awaitable.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <memory>
#include <optional>
#include <string>

#include "attest/manifest.hpp"
#include "base/log.hpp"
#include "participant/sandbox.hpp"
#include "participant/shared_memory.hpp"

namespace cloister::participant {

inline constexpr std::size_t trainer_line_cap = 64 << 10;  ///< bytes of an answer

struct TrainerOptions {
  SandboxOptions sandbox;  ///< program, digest, limits, isolation; descriptors are added here
  std::string data_file;
  std::string owner;
  std::string manifest;             ///< TOML
  attest::Settings settings;        ///< complete
  std::size_t model_capacity = 0;   ///< bytes of a model file
  std::size_t update_capacity = 0;  ///< bytes of the largest update
};

struct TaskRequest {
  std::string task;
  std::uint32_t round = 0;
  View model;       ///< the model file; empty for statistics
  View statistics;  ///< in force; empty before they exist
};

struct TaskAnswer {
  Bytes update;
  std::uint64_t weight = 1;
};

/// What the child says of its data. Stays in this process but for the weight of a train task.
struct TrainerRecords {
  std::uint64_t all = 0, train = 0, test = 0;
};

/// Not thread-safe; lives on one executor. Destroying it ends the child, also during run(), which then throws.
class Trainer {
 public:
  using Deadline = std::chrono::steady_clock::time_point;

  /// Starts the child and waits for its first answer. Throws denied when isolation is required and not to be had.
  static boost::asio::awaitable<std::shared_ptr<Trainer>> start(TrainerOptions options, Deadline deadline,
                                                                std::shared_ptr<base::Log> log);

  const TrainerRecords& records() const { return records_; }
  /// One task at a time. Afterwards the child waits for the next; after a failure it is gone.
  boost::asio::awaitable<TaskAnswer> run(TaskRequest request, Deadline deadline);
  /// Ends the child now: a run() under way throws.
  void stop() noexcept;

 private:
  using Socket = boost::asio::local::stream_protocol::socket;
  Trainer(Socket socket, SandboxedChild child, SharedMemory model, SharedMemory update);
  boost::asio::awaitable<std::string> ask(std::string line, Deadline deadline, std::string what);
  boost::asio::awaitable<std::string> exchange(std::string line);

  Socket socket_;
  SandboxedChild child_;
  SharedMemory model_, update_;
  TrainerRecords records_;
  std::string unread_;
};

}  // namespace cloister::participant
