#include "tests/aggregation/enclave/world.hpp"

#include <boost/asio/redirect_error.hpp>
#include <filesystem>
#include <fmt/format.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "attest/judge.hpp"
#include "base/file.hpp"
#include "protocols/launch/checks.hpp"

namespace cloister::tests {
namespace asio = boost::asio;
namespace simulated = attest::simulated;

namespace {

const std::string aggregator_path = CLOISTER_BINARY_DIR "/bin/cloister-aggregator";

std::string text_of(std::exception_ptr error) {
  try {
    std::rethrow_exception(error);
  } catch (const std::exception& e) {
    return e.what();
  }
}

simulated::Platform a_platform(base::PrivateKey key = base::PrivateKey::generate()) {
  simulated::PlatformFacts facts;
  facts.tcb_date = base::now() - std::chrono::days(10);
  facts.advisories = {"INTEL-SA-00001"};
  return {std::move(key), facts};
}

// tests/support/study.cpp lists this for a hospital's own machine; the edit below puts the real platform in its place.
std::string default_platform(const std::string& owner) {
  return "simulated:" + base::hex(base::sha256(base::view(owner + "'s machine")));
}

}  // namespace

aggregation::Model zero_model(std::size_t width, std::size_t rows) {
  auto schema = aggregation::Schema::make(
      {{"weight", {rows, width}, aggregation::Dtype::float32}, {"bias", {1}, aggregation::Dtype::float32}});
  return {.schema = *schema, .values = std::vector<float>(rows * width + 1)};
}

awaitable<void> Event::wait() {
  boost::system::error_code woken;
  while (!done_) co_await timer_.async_wait(asio::redirect_error(asio::use_awaitable, woken));
}

FakeTee::FakeTee(simulated::Platform p, protocols::launch::LaunchDocument d, base::Sha256 charter)
    : platform(std::move(p)),
      document(d.serialize()),
      measurement(base::array<48>(d.measurement)),
      host_data(attest::host_data_for(charter, document)) {}

Result<Bytes> FakeTee::evidence(const Array<64>& report_data) {
  return platform.attest(measurement, host_data, report_data, base::now());
}

World::World(WorldOptions o)
    : initial_model(zero_model(o.width, o.rows).serialize()),
      platform(a_platform(platform_key)),
      patience(o.patience),
      log_fd_(::memfd_create("log", 0)) {
  StudyOptions options;
  options.edits = o.edits;
  options.edits.push_back({"manifest", "deadline = \"1m\"", "deadline = \"" + o.round_deadline + "\""});
  options.edits.push_back({"manifest", "deadline = \"10s\"", "deadline = \"" + o.channel_deadline + "\""});
  options.edits.push_back({"manifest", "bins = 1000", "bins = 10"});
  options.attested_participants = o.attested_participants;
  options.platform = platform.identity();
  if (o.processes) {
    const auto measured = simulated::measure_file(aggregator_path, {});
    if (!measured) throw Exception(measured.error());
    options.measurement = base::copy(*measured);
  }
  options.initial_model = base::sha256(initial_model);
  options.tensors = fmt::format(
      "[[model.tensors]]\nname = \"weight\"\nshape = [{}, {}]\ndtype = \"float32\"\n[[model.tensors]]\nname = "
      "\"bias\"\nshape = "
      "[1]\ndtype = \"float32\"\n",
      o.rows, o.width);
  if (o.attested_participants)
    for (const auto& owner : options.data_owners) {
      const auto& p = hospital_platforms.emplace(owner, a_platform()).first->second;
      options.edits.push_back({owner, default_platform(owner), p.identity()});
    }
  study = std::make_unique<Study>(options);
  const attest::Manifest& m = study->charter.manifest;
  tee = std::make_unique<FakeTee>(platform,
                                  protocols::launch::LaunchDocument{.charter = study->charter.serialize(),
                                                                    .nonce = base::random_array<32>(),
                                                                    .memory = m.launch_memory,
                                                                    .connections = o.connections,
                                                                    .duration = o.duration,
                                                                    .measurement = m.aggregator_measurement,
                                                                    .host = "127.0.0.1",
                                                                    .port = 0},
                                  study->charter.digest);
  if (o.processes)
    start_processes();
  else
    start_here(o);
}

void World::start_here(const WorldOptions& o) {
  log = base::Log::to_descriptor("aggregator", log_fd_);
  auto instance = enclave::make_instance(*tee, base::now());
  if (!instance) throw Exception(instance.error());
  auto made = enclave::Server::make(io, *tee, std::move(*instance), log,
                                    {.slots = o.slots, .now = [this] { return base::now() + clock_offset; }});
  if (!made) throw Exception(made.error());
  server = std::move(*made);
  port = server->port();
  asio::co_spawn(io, server->serve(), [this](std::exception_ptr error, std::string reason) {
    ended = error ? "exception: " + text_of(error) : reason;
  });
}

void World::start_processes() {
  folder_ = (std::filesystem::temp_directory_path() / "cloister-enclave-XXXXXX").string();
  if (::mkdtemp(folder_.data()) == nullptr) throw std::runtime_error("no temporary folder");
  const auto must = [](Result<void> r) {
    if (!r) throw Exception(r.error());
  };
  must(base::write_file(folder_ + "/platform.key", base::view(platform_key.pem()), 0600));
  must(base::write_file(folder_ + "/platform.toml", base::view(platform.facts().toml())));
  process = std::make_unique<TeeProcess>(folder_, aggregator_path, tee->host_data, tee->document, log_fd_);
  run(until_logged("\"listening\""));
  const std::string line = logged("\"listening\"").front();
  port = static_cast<std::uint16_t>(std::stoi(line.substr(line.find("\"port\":") + 7)));
}

World::~World() {
  if (server) server->end("the test is over");
  hang_up_launcher();
  io.restart();
  io.run_for(std::chrono::seconds(20));
  process.reset();
  if (!folder_.empty()) std::filesystem::remove_all(folder_);
  ::close(log_fd_);
}

void World::run(awaitable<void> work) {
  std::optional<std::exception_ptr> done;
  asio::co_spawn(io, std::move(work), [&](std::exception_ptr error) {
    done = error;
    io.stop();
  });
  io.restart();
  io.run_for(patience);
  if (!done)
    throw std::runtime_error("the test's world hangs; its log ends with\n" +
                             fmt::format("{}", fmt::join(logged(""), "\n")));
  if (*done) std::rethrow_exception(*done);
}

void World::spawn(awaitable<void> work, std::string name) {
  asio::co_spawn(io, std::move(work), [this, name = std::move(name)](std::exception_ptr error) {
    if (!error) return;
    failures.push_back(name + ": " + text_of(error));
  });
}

Bytes World::grant(std::chrono::seconds period) const {
  const Time now = base::now() + clock_offset;
  protocols::launch::Grant g{.record = base::sha256(record_),
                             .platform = platform.identity(),
                             .host_data = tee->host_data,
                             .not_before = now - std::chrono::seconds(1),
                             .not_after = now + period,
                             .signature = {}};
  return protocols::launch::sign_grant(g, *study->keys("cloudco").grant).serialize();
}

awaitable<void> World::launch(std::chrono::seconds period) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  launcher_ = co_await channel::connect_pinned(endpoint(), study->keys("cloudco").tls, std::nullopt, deadline);
  const auto frame = co_await with_deadline(launcher_->receive(), deadline, "the instance");
  record_ = base::copy(base::view(channel::parse<messages::Instance>(frame).record()));
  co_await renew(period);
  spawn(
      [](World& w, channel::ConnectionPtr link) -> awaitable<void> {
        for (;;) {
          const auto report = channel::parse<messages::InstanceReport>(co_await link->receive());
          w.instance_state = report.state();
          w.granted.set();
        }
      }(*this, launcher_),
      "launcher");
  co_await with_deadline(granted.wait(), deadline, "the grant to be taken");
}

awaitable<void> World::renew(std::chrono::seconds period) {
  messages::Grant message;
  const Bytes bytes = grant(period);
  message.set_grant(bytes.data(), bytes.size());
  co_await launcher_->send(messages::GRANT, message);
}

awaitable<void> World::tell_as_launcher(messages::MessageType type, const google::protobuf::MessageLite& message) {
  co_await launcher_->send(type, message);
}

void World::hang_up_launcher() {
  if (launcher_) launcher_->close();
}

channel::EnclaveExpectation World::expectation(const std::string& owner) const {
  const attest::Charter& charter = study->charter;
  auto host_data = std::make_shared<std::optional<Array<32>>>();
  return {.charter = charter.digest,
          .check_grant = [&charter, host_data](View grant, View record) -> Result<Bytes> {
            const auto g = protocols::launch::verify_grant(charter, grant, record, base::now());
            if (!g) return g.error();
            *host_data = g->host_data;
            return base::copy(base::view(g->platform));
          },
          .tls_key = protocols::launch::tls_key,
          .judge =
              [&charter, host_data, owner](const attest::Claims& claims) {
                attest::Study s{.charter = charter,
                                .at = base::now(),
                                .host_data = *host_data,
                                .settings = {},
                                .task = {},
                                .spent = {},
                                .launch = {},
                                .participant = {}};
                return attest::judge(&claims, s, *charter.policy(owner));
              }};
}

awaitable<channel::ConnectionPtr> World::dial(std::string owner, std::optional<attest::Attester> attester) const {
  co_return co_await channel::connect_enclave(endpoint(), study->keys(owner).tls, expectation(owner),
                                              std::move(attester),
                                              std::chrono::steady_clock::now() + std::chrono::seconds(10), nullptr);
}

std::vector<std::string> World::logged(std::string_view text) const {
  std::string all(static_cast<std::size_t>(::lseek(log_fd_, 0, SEEK_END)), '\0');
  if (::pread(log_fd_, all.data(), all.size(), 0) < 0) return {};
  std::vector<std::string> out;
  for (std::size_t at = 0; at < all.size();) {
    const std::size_t end = all.find('\n', at);
    const std::string line = all.substr(at, end - at);
    if (line.find(text) != std::string::npos) out.push_back(line);
    at = end + 1;
  }
  return out;
}

awaitable<void> World::until_logged(std::string text) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (logged(text).empty()) {
    if (std::chrono::steady_clock::now() > deadline) throw std::runtime_error("never logged: " + text);
    asio::steady_timer tick(io, std::chrono::milliseconds(10));
    co_await tick.async_wait(asio::use_awaitable);
  }
}

TeeProcess::TeeProcess(const std::string& folder, const std::string& guest, const Array<32>& host_data, View document,
                       int output) {
  const int fd = ::memfd_create("document", 0);
  if (::pwrite(fd, document.data(), document.size(), 0) != static_cast<ssize_t>(document.size()))
    throw std::runtime_error("memfd");
  const std::string tee = CLOISTER_BINARY_DIR "/bin/cloister-simulated-tee", host = base::hex(host_data),
                    number = std::to_string(fd);
  const std::vector<const char*> arguments = {tee.c_str(),    "--platform",  folder.c_str(), "--guest",
                                              guest.c_str(),  "--host-data", host.c_str(),   "--document",
                                              number.c_str(), "--memory",    "536870912",    nullptr};
  pid_ = ::fork();
  if (pid_ == 0) {
    ::dup2(output, 1);
    ::execv(tee.c_str(), const_cast<char* const*>(arguments.data()));
    ::_exit(127);
  }
  ::close(fd);
}

TeeProcess::~TeeProcess() {
  kill();
  if (!status_) ::waitpid(pid_, nullptr, 0);
}

std::optional<int> TeeProcess::status() {
  int status = 0;
  if (!status_ && ::waitpid(pid_, &status, WNOHANG) == pid_) status_ = status;
  return status_;
}

void TeeProcess::kill() {
  if (!status()) ::kill(pid_, SIGKILL);
}

}  // namespace cloister::tests
