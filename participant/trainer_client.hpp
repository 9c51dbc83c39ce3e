#pragma once
// The node's side of the trainer contract, version 1 (participant/trainer/README.md): one child per run, in the
// sandbox, with data and model read-only, its update in memory of fixed size, and a line of JSON per task. Failures
// throw Exception{unavailable} that say what the child did wrong and how it ended; they never quote data.

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
  std::string model_file;           ///< the model of a task stands at its start (model_file.hpp)
  std::size_t update_capacity = 0;  ///< bytes of the largest update
};

struct TaskRequest {
  std::string task;
  std::uint32_t round = 0;
  std::uint64_t model_bytes = 0;  ///< of the model at the start of the model's file; 0 for statistics
  View statistics;                ///< in force; empty before they exist
};

struct TaskAnswer {
  View update;  ///< in memory that the child may still write: copy, then look. Until the trainer ends.
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
  /// The last failure was its death, which nothing that it was asked explains; a child that answered wrongly has not
  /// died.
  bool died() const { return died_; }
  /// Ends the child now: a run() under way throws.
  void stop() noexcept;

 private:
  using Socket = boost::asio::local::stream_protocol::socket;
  Trainer(Socket socket, SandboxedChild child, std::uint64_t model_capacity, SharedMemory update);
  boost::asio::awaitable<std::string> ask(std::string line, Deadline deadline, std::string what);
  boost::asio::awaitable<std::string> exchange(std::string line);

  Socket socket_;
  SandboxedChild child_;
  std::uint64_t model_capacity_;
  SharedMemory update_;
  TrainerRecords records_;
  std::string unread_;
  bool died_ = false;
};

}  // namespace cloister::participant
