// What one more participant costs the aggregator: a real aggregator under the simulated TEE, a charter of N data
// owners, and N participants over N attested connections, multiplexed in a few processes.
//
//   cloister-bench-scale N [--rounds R] [--values V] [--processes P] [--quorum Q] [--cuts PER_SECOND] [--seed S]
//                        [--series FILE] [--every SECONDS]
//
// One JSON object on standard output. The bench itself is launcher and coordinator. With --cuts, connections are cut
// and participants restarted at that rate, by a seeded schedule. --series: memory and descriptors of every process, one
// JSON line every half second, or as --every says.

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cstdio>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <poll.h>
#include <signal.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "attest/judge.hpp"
#include "base/file.hpp"
#include "bench/scale_clients.hpp"
#include "protocols/channel/channel.hpp"
#include "protocols/launch/checks.hpp"
#include "protocols/round/round.hpp"

namespace cloister::bench {
namespace {

namespace asio = boost::asio;
namespace channel = protocols::channel;
namespace messages = protocols::messages;
using channel::awaitable;
using Clock = std::chrono::steady_clock;

struct Options {
  std::size_t participants = 0, values = 1000, processes = 4, rounds = 5, quorum = 0;
  Chaos chaos;
  std::string series;
  double every = 0.5;  ///< seconds between samples
};

double since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// --- What /proc says -------------------------------------------------------------------------------------------------

std::uint64_t status_kib(pid_t pid, const std::string& key) {
  std::ifstream in(fmt::format("/proc/{}/status", pid));
  for (std::string line; std::getline(in, line);)
    if (line.starts_with(key + ":")) return std::stoull(line.substr(key.size() + 1));
  return 0;
}

/// Seconds of processor time of all threads, to the nanosecond.
double cpu_seconds(pid_t pid) {
  double sum = 0;
  for (const auto& task : std::filesystem::directory_iterator(fmt::format("/proc/{}/task", pid))) {
    std::uint64_t ns = 0;
    std::ifstream(task.path() / "schedstat") >> ns;
    sum += static_cast<double>(ns) * 1e-9;
  }
  return sum;
}

std::size_t descriptors(pid_t pid) {
  std::error_code gone;
  std::size_t n = 0;
  for (auto it = std::filesystem::directory_iterator(fmt::format("/proc/{}/fd", pid), gone);
       !gone && it != std::filesystem::directory_iterator(); it.increment(gone))
    ++n;
  return n;
}

pid_t child_of(pid_t pid) {
  pid_t child = 0;
  std::ifstream(fmt::format("/proc/{0}/task/{0}/children", pid)) >> child;
  return child;
}

// --- Processes -------------------------------------------------------------------------------------------------------

/// The simulated TEE with the aggregator in it; its log is a file in `folder`.
class Enclave {
 public:
  Enclave(const ScaleStudy& study, const std::string& bin, const std::string& folder)
      : folder_(folder), log_(folder + "/aggregator.log") {
    const attest::Manifest& m = study.charter->manifest;
    document = protocols::launch::LaunchDocument{.charter = study.charter_file,
                                                 .nonce = base::random_array<32>(),
                                                 .memory = m.launch_memory,
                                                 .connections = m.launch_connections,
                                                 .duration = m.launch_duration,
                                                 .measurement = m.aggregator_measurement,
                                                 .host = "127.0.0.1",
                                                 .port = 0}
                   .serialize();
    host_data = attest::host_data_for(study.charter->digest, document);
    base::write_file(folder + "/platform.key", base::view(study.platform_pem), 0600).value();
    base::write_file(folder + "/platform.toml", base::view(study.platform.facts().toml())).value();
    base::write_file(folder + "/document", document).value();
    const std::vector<std::string> words = {bin + "/cloister-simulated-tee",
                                            "--platform",
                                            folder,
                                            "--guest",
                                            bin + "/cloister-aggregator",
                                            "--host-data",
                                            base::hex(host_data),
                                            "--document",
                                            folder + "/document",
                                            "--memory",
                                            std::to_string(m.launch_memory)};
    std::vector<char*> arguments;
    for (const std::string& w : words) arguments.push_back(const_cast<char*>(w.c_str()));
    arguments.push_back(nullptr);
    base::write_file(log_, {}).value();
    watch_ = ::inotify_init1(IN_CLOEXEC);
    ::inotify_add_watch(watch_, log_.c_str(), IN_MODIFY);
    tee = ::fork();
    if (tee == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (std::freopen(log_.c_str(), "a", stdout) == nullptr) ::_exit(127);
      ::execv(arguments[0], arguments.data());
      ::_exit(127);
    }
    const std::string line = wait_for("\"listening\"");
    port = static_cast<std::uint16_t>(std::stoi(line.substr(line.find("\"port\":") + 7)));
    aggregator = child_of(tee);
  }
  ~Enclave() {
    ::kill(aggregator, SIGKILL);
    ::kill(tee, SIGKILL);
    ::waitpid(tee, nullptr, 0);
    ::close(watch_);
  }
  Enclave(const Enclave&) = delete;

  std::string wait_for(const std::string& text) const {
    const auto deadline = Clock::now() + std::chrono::minutes(5);
    for (;;) {
      std::ifstream in(log_);
      for (std::string line; std::getline(in, line);)
        if (line.find(text) != std::string::npos) return line;
      if (Clock::now() > deadline || ::waitpid(tee, nullptr, WNOHANG) == tee)
        throw std::runtime_error("the aggregator never logged " + text + "; see " + log_);
      pollfd written{.fd = watch_, .events = POLLIN, .revents = 0};
      char events[4096];
      if (::poll(&written, 1, 1'000) > 0 && ::read(watch_, events, sizeof events) < 0)
        throw std::runtime_error("cannot watch " + log_);
    }
  }

  Bytes document;
  Array<32> host_data{};
  pid_t tee = 0, aggregator = 0;
  std::uint16_t port = 0;

 private:
  std::string folder_, log_;
  int watch_ = -1;
};

struct Client {
  pid_t pid = 0;
  int ready = -1;
};

/// A process with every `step`-th participant from `first` on. It shares the study with this one, copy on write.
Client start_client(const ScaleStudy& study, std::uint16_t port, std::size_t first, const Options& o, int figures) {
  int pipe[2];
  if (::pipe(pipe) != 0) throw std::runtime_error("pipe");
  const pid_t pid = ::fork();
  if (pid == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    try {
      Chaos chaos = o.chaos;
      chaos.seed += first, chaos.per_second /= static_cast<double>(o.processes);
      serve_participants(study, port, first, o.processes, pipe[1], figures, chaos);
    } catch (const std::exception& e) {
      fmt::print(stderr, "participants from {}: {}\n", first, e.what());
    }
    ::_exit(1);
  }
  ::close(pipe[1]);
  return {pid, pipe[0]};
}

// --- Launcher and coordinator ----------------------------------------------------------------------------------------

struct RunFigures {
  std::vector<double> rounds;  ///< seconds, each from the receipt before (or the order) to its own
  std::string outcome, reason;
};

class Owners {
 public:
  Owners(const ScaleStudy& study, Enclave& enclave) : study_(study), enclave_(enclave) {}

  awaitable<void> grant() {
    const auto deadline = Clock::now() + std::chrono::minutes(1);
    launcher_ = co_await channel::connect_pinned(to(), study_.compute.tls, std::nullopt, deadline);
    const auto frame = co_await launcher_->receive();
    const Bytes record = base::copy(base::view(channel::parse<messages::Instance>(frame).record()));
    protocols::launch::Grant g{.record = base::sha256(record),
                               .platform = study_.platform.identity(),
                               .host_data = enclave_.host_data,
                               .not_before = base::now() - std::chrono::seconds(60),
                               .not_after = base::now() + std::chrono::hours(4),
                               .signature = {}};
    const Bytes bytes = protocols::launch::sign_grant(g, study_.compute.extra).serialize();
    messages::Grant message;
    message.set_grant(bytes.data(), bytes.size());
    co_await launcher_->send(messages::GRANT, message);
    const auto report = co_await launcher_->receive();
    if (channel::parse<messages::InstanceReport>(report).state() != "idle")
      throw std::runtime_error("no idle instance");
  }

  awaitable<void> run(std::uint32_t rounds, std::size_t quorum, RunFigures& out) {
    auto link = co_await channel::connect_enclave(to(), study_.model.tls, expectation(), std::nullopt,
                                                  Clock::now() + std::chrono::minutes(1), nullptr);
    attest::RunOrder order = study_.order(rounds, quorum);
    messages::RunOrder message;
    message.set_order(base::text(order.serialize()));
    message.set_model_length(study_.initial_file.size());
    messages::Transfer header;
    header.set_what("model");
    header.set_digest(base::text(base::sha256(study_.initial_file)));
    header.set_length(study_.initial_file.size());
    co_await link->send(messages::RUN_ORDER, message);
    co_await link->send(messages::TRANSFER, header);
    co_await link->send_data(study_.initial_file);
    auto before = Clock::now();
    while (out.outcome.empty()) {
      const auto frame = co_await link->receive();
      if (frame.type == messages::RECEIPT_RECORD) {
        out.rounds.push_back(since(before));
        before = Clock::now();
      } else if (frame.type == messages::RUN_END) {
        const auto end = channel::parse<messages::RunEnd>(frame);
        out.outcome = end.outcome(), out.reason = end.reason();
      }
    }
  }

 private:
  channel::Endpoint to() const { return {"127.0.0.1", enclave_.port, {}}; }
  channel::EnclaveExpectation expectation() {
    channel::EnclaveExpectation out;
    out.charter = study_.charter->digest;
    out.check_grant = [this](View grant, View record) -> Result<Bytes> {
      const auto g = protocols::launch::verify_grant(*study_.charter, grant, record, base::now());
      if (!g) return g.error();
      return base::copy(base::view(g->platform));
    };
    out.tls_key = protocols::launch::tls_key;
    out.judge = [this](const attest::Claims& claims) {
      attest::Study s{.charter = *study_.charter, .at = base::now()};
      s.host_data = enclave_.host_data;
      return attest::judge(&claims, s, *study_.charter->policy(study_.model.name));
    };
    return out;
  }

  const ScaleStudy& study_;
  Enclave& enclave_;
  channel::ConnectionPtr launcher_;
};

// --- The measurement -------------------------------------------------------------------------------------------------

awaitable<void> sample(asio::io_context& io, std::FILE* to, pid_t aggregator, const std::vector<Client>& clients,
                       const RunFigures& run, std::chrono::milliseconds every) {
  asio::steady_timer timer(io);
  const auto start = Clock::now();
  while (run.outcome.empty()) {
    std::uint64_t rss = 0;
    std::size_t open = 0;
    for (const Client& c : clients) rss += status_kib(c.pid, "VmRSS"), open += descriptors(c.pid);
    fmt::print(to,
               "{{\"seconds\":{:.2f},\"round\":{},\"aggregator_rss_kib\":{},\"aggregator_fds\":{},"
               "\"participants_rss_kib\":{},\"participants_fds\":{},\"bench_rss_kib\":{}}}\n",
               since(start), run.rounds.size(), status_kib(aggregator, "VmRSS"), descriptors(aggregator), rss, open,
               status_kib(::getpid(), "VmRSS"));
    std::fflush(to);
    timer.expires_after(every);
    co_await timer.async_wait(asio::use_awaitable);
  }
}

/// A process of participants that fails before the run has ended ends the measurement.
awaitable<void> watch(asio::signal_set& ends, const std::vector<Client>& clients, const RunFigures& run) {
  while (run.outcome.empty()) {
    boost::system::error_code cancelled;
    co_await ends.async_wait(asio::redirect_error(asio::use_awaitable, cancelled));
    if (cancelled) co_return;
    for (const Client& c : clients) {
      siginfo_t how{};
      ::waitid(P_PID, static_cast<id_t>(c.pid), &how, WEXITED | WNOHANG | WNOWAIT);
      if (how.si_pid != c.pid || how.si_status == 0) continue;
      fmt::print(stderr, "cloister-bench-scale: a process of participants failed: {} {}\n",
                 how.si_code == CLD_EXITED ? "exit code" : "signal", how.si_status);
      std::_Exit(1);
    }
  }
}

void finish(asio::io_context& io, awaitable<void> work) {
  bool done = false;
  asio::co_spawn(io, std::move(work), [&](std::exception_ptr error) {
    done = true;
    if (error) std::rethrow_exception(error);
  });
  io.restart();
  while (!done) io.run_one();
}

int measure(const Options& o, const std::string& bin) {
  const ScaleStudy study(o.participants, o.values, bin + "/cloister-aggregator");
  std::string folder = (std::filesystem::temp_directory_path() / "cloister-scale-XXXXXX").string();
  if (::mkdtemp(folder.data()) == nullptr) throw std::runtime_error("no temporary folder");
  const auto started = Clock::now();
  Enclave enclave(study, bin, folder);
  const double start_seconds = since(started);
  asio::io_context io(1);
  Owners owners(study, enclave);
  finish(io, owners.grant());

  const std::uint64_t rss_alone = status_kib(enclave.aggregator, "VmRSS");
  const double cpu_alone = cpu_seconds(enclave.aggregator);
  int figures[2];
  if (::pipe(figures) != 0) throw std::runtime_error("pipe");
  const auto dialled = Clock::now();
  std::vector<Client> clients;
  for (std::size_t i = 0; i < o.processes && i < o.participants; ++i)
    clients.push_back(start_client(study, enclave.port, i, o, figures[1]));
  char byte = 0;
  for (const Client& c : clients)
    if (::read(c.ready, &byte, 1) != 1) throw std::runtime_error("participants did not get connected");
  const double connect_seconds = since(dialled), cpu_connected = cpu_seconds(enclave.aggregator);
  const std::uint64_t rss_connected = status_kib(enclave.aggregator, "VmRSS");

  RunFigures run;
  asio::signal_set ends(io, SIGCHLD);
  asio::co_spawn(io, watch(ends, clients, run), asio::detached);
  std::FILE* series = o.series.empty() ? nullptr : std::fopen(o.series.c_str(), "w");
  if (series != nullptr)
    asio::co_spawn(io,
                   sample(io, series, enclave.aggregator, clients, run,
                          std::chrono::milliseconds(static_cast<int>(o.every * 1e3))),
                   asio::detached);
  const auto ordered = Clock::now();
  finish(io, owners.run(static_cast<std::uint32_t>(o.rounds), o.quorum, run));
  const double run_seconds = since(ordered), cpu_run = cpu_seconds(enclave.aggregator) - cpu_connected;
  const std::uint64_t peak = status_kib(enclave.aggregator, "VmHWM");
  ClientFigures all;
  for (const Client& c : clients) {
    ClientFigures one;
    int status = 0;
    while (::waitpid(c.pid, &status, 0) != c.pid)
      if (errno != EINTR) throw std::runtime_error("a process of participants is gone");
    if (status != 0 || ::read(figures[0], &one, sizeof one) != static_cast<ssize_t>(sizeof one))
      throw std::runtime_error("a process of participants failed");
    all.bytes_in += one.bytes_in, all.bytes_out += one.bytes_out, all.ended_done += one.ended_done;
    all.cuts += one.cuts, all.restarts += one.restarts, all.late += one.late;
  }
  if (series != nullptr) std::fclose(series);
  if (run.outcome != "done" || run.rounds.size() != o.rounds || all.ended_done != o.participants)
    throw std::runtime_error(fmt::format("the run ended as {} ({}) after {} rounds, {} of {} participants done",
                                         run.outcome, run.reason, run.rounds.size(), all.ended_done, o.participants));
  std::filesystem::remove_all(folder);
  std::vector<double> rounds = run.rounds;
  std::sort(rounds.begin(), rounds.end());
  const double n = static_cast<double>(o.participants), updates = n * static_cast<double>(o.rounds);
  const double model = static_cast<double>(study.initial_file.size() + o.values * sizeof(float));
  fmt::print(
      R"({{"participants":{},"rounds":{},"values":{},"charter_bytes":{},"founding_seconds":{:.3f},"loading_seconds":{:.3f},)"
      R"("aggregator_start_seconds":{:.3f},"connect_seconds":{:.3f},"connection_cpu_us":{:.1f},"run_seconds":{:.3f},)"
      R"("round_seconds":{:.6f},"update_cpu_us":{:.1f},"update_wall_us":{:.1f},"bytes_down":{:.0f},"bytes_up":{:.0f},)"
      R"("bytes_beside_the_numbers":{:.0f},"idle_rss_bytes":{:.0f},"rss_alone_bytes":{},"rss_connected_bytes":{},)"
      R"("peak_rss_bytes":{},"cuts":{},"restarts":{},"late":{}}})"
      "\n",
      o.participants, o.rounds, o.values, study.charter_file.size(), study.founding_seconds, study.loading_seconds,
      start_seconds, connect_seconds, (cpu_connected - cpu_alone) * 1e6 / n, run_seconds, rounds[rounds.size() / 2],
      cpu_run * 1e6 / updates, run_seconds * 1e6 / updates, static_cast<double>(all.bytes_in) / updates,
      static_cast<double>(all.bytes_out) / updates, static_cast<double>(all.bytes_in + all.bytes_out) / updates - model,
      (static_cast<double>(rss_connected) - static_cast<double>(rss_alone)) * 1024 / n, rss_alone * 1024,
      rss_connected * 1024, peak * 1024, all.cuts, all.restarts, all.late);
  return 0;
}

}  // namespace
}  // namespace cloister::bench

int main(int argc, char** argv) {
  using namespace cloister::bench;
  Options o;
  try {
    if (argc < 2) throw std::invalid_argument("no number of participants");
    o.participants = std::stoul(argv[1]);
    for (int i = 2; i + 1 < argc; i += 2) {
      const std::string name = argv[i], value = argv[i + 1];
      if (name == "--rounds")
        o.rounds = std::stoul(value);
      else if (name == "--values")
        o.values = std::stoul(value);
      else if (name == "--processes")
        o.processes = std::stoul(value);
      else if (name == "--quorum")
        o.quorum = std::stoul(value);
      else if (name == "--cuts")
        o.chaos.per_second = std::stod(value);
      else if (name == "--seed")
        o.chaos.seed = std::stoull(value);
      else if (name == "--series")
        o.series = value;
      else if (name == "--every")
        o.every = std::stod(value);
      else
        throw std::invalid_argument("no such option: " + name);
    }
    if (o.participants < 7 || o.values < 2 || o.processes < 1 || o.rounds < 1 || argc % 2 != 0)
      throw std::invalid_argument("wanted at least 7 participants, 2 values, a process, a round");
  } catch (const std::exception& e) {
    fmt::print(stderr,
               "cloister-bench-scale N [--rounds R] [--values V] [--processes P] [--quorum Q] [--cuts RATE] "
               "[--seed S] [--series FILE]\n{}\n",
               e.what());
    return 2;
  }
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &files);
  }
  try {
    return measure(o, std::filesystem::canonical("/proc/self/exe").parent_path().string());
  } catch (const std::exception& e) {
    fmt::print(stderr, "cloister-bench-scale: {}\n", e.what());
    return 1;
  }
}
