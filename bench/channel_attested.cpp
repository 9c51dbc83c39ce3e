#include <boost/asio/co_spawn.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cstdlib>
#include <fmt/format.h>
#include <fstream>
#include <functional>
#include <sys/resource.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

#include "attest/simulated/platform.hpp"
#include "bench/channel_sides.hpp"
#include "protocols/channel/channel.hpp"
#include "protocols/launch/checks.hpp"
#include "tests/support/study.hpp"

namespace cloister::bench {
namespace {

namespace asio = boost::asio;
namespace simulated = attest::simulated;
using namespace protocols::channel;
namespace launch = protocols::launch;
namespace messages = protocols::messages;
using Work = std::function<awaitable<void>(ConnectionPtr)>;

Deadline later() {
  return std::chrono::steady_clock::now() + std::chrono::minutes(5);
}

simulated::Platform a_platform() {
  simulated::PlatformFacts facts;
  facts.tcb_date = base::now() - std::chrono::days(10);
  facts.advisories = {"INTEL-SA-00001"};
  return {base::PrivateKey::generate(), facts};
}

/// Study, platform, instance: what stands before anybody dials.
struct Scene {
  simulated::Platform platform = a_platform();
  tests::Study study{{.platform = platform.identity()}};
  base::PrivateKey enclave = base::PrivateKey::generate();
  Array<32> host_data = base::random_array<32>();
  Bytes record = launch::Record::make(study.charter.digest, enclave.public_key(),
                                      base::PrivateKey::generate().public_key(), base::random_array<32>())
                     .serialize();
  Bytes grant = launch::sign_grant({.record = base::sha256(record),
                                    .platform = platform.identity(),
                                    .host_data = host_data,
                                    .not_before = base::now() - std::chrono::minutes(1),
                                    .not_after = base::now() + std::chrono::hours(1),
                                    .signature = {}},
                                   *study.keys("cloudco").grant)
                    .serialize();
  std::string hospital = study.options.data_owners.front();

  EnclaveIdentity identity() const {
    return {.tls = enclave,
            .charter = study.charter.digest,
            .record = record,
            .grant = [this] { return grant; },
            .attester = [this, m = base::array<48>(study.claims().measurement)](const Array<64>& report_data)
                -> Result<Bytes> { return platform.attest(m, host_data, report_data, base::now()); },
            .dice_evidence = {},
            .known = [this](const base::PublicKey& key) -> std::optional<std::string> {
              const attest::Party* party = study.charter.manifest.by_tls_key(key);
              return party ? std::optional(party->owner) : std::nullopt;
            },
            .launcher_owner = "cloudco",
            .wants_evidence = [](const std::string&) { return false; },
            .judge_peer =
                [](const std::string& owner, const attest::Claims*) {
                  attest::Decision d;
                  d.add({true, "charter", "parties", "a party", owner, ""});
                  return d;
                }};
  }
  EnclaveExpectation expectation() const {
    return {.charter = study.charter.digest,
            .check_grant = [this](View g, View r) { return launch::check_grant(study.charter, g, r, base::now()); },
            .tls_key = launch::tls_key,
            .judge =
                [this](const attest::Claims& claims) {
                  const attest::Study asked{.charter = study.charter,
                                            .at = base::now(),
                                            .host_data = host_data,
                                            .settings = {},
                                            .task = {},
                                            .spent = {},
                                            .launch = {},
                                            .participant = {}};
                  return attest::judge(&claims, asked, study.policy(hospital));
                }};
  }
};

void start(asio::io_context& io, awaitable<void> work) {
  asio::co_spawn(io, std::move(work), [](std::exception_ptr e) {
    if (e) std::rethrow_exception(e);
  });
}

awaitable<void> send(ConnectionPtr c, std::size_t chunks) {
  const Bytes bytes(chunk, 1);
  for (std::size_t i = 0; i < chunks; ++i) co_await c->send_data(bytes);
  co_await c->receive();
}

awaitable<void> receive(ConnectionPtr c, std::size_t chunks) {
  Bytes bytes(chunk);
  for (std::size_t i = 0; i < chunks; ++i) {
    std::size_t have = 0;
    co_await c->receive_data(bytes, have);
  }
  co_await c->send(messages::READY, messages::Ready());
}

class Attested final : public Side {
 public:
  void stream(Way way, std::size_t chunks) override {
    const bool up = way == Way::up;
    meet(
        1, 1, [=](ConnectionPtr c) { return up ? send(c, chunks) : receive(c, chunks); },
        [=](ConnectionPtr c) { return up ? receive(c, chunks) : send(c, chunks); });
  }
  void connections(std::size_t count, std::size_t at_once) override {
    meet(
        count, at_once, [](ConnectionPtr c) { return send(c, 0); }, [](ConnectionPtr c) { return receive(c, 0); });
  }

 private:
  void meet(std::size_t count, std::size_t at_once, const Work& client, const Work& server) {
    std::thread other([&] {
      for (std::size_t t = 0; t < at_once; ++t) start(server_io_, accept(share(count, at_once, t), server));
      server_io_.restart();
      server_io_.run();
    });
    for (std::size_t t = 0; t < at_once; ++t) start(client_io_, dial(share(count, at_once, t), client));
    client_io_.restart();
    client_io_.run();
    other.join();
  }
  static std::size_t share(std::size_t count, std::size_t at_once, std::size_t t) {
    return count / at_once + (t < count % at_once);
  }
  awaitable<void> accept(std::size_t count, Work work) {
    for (std::size_t i = 0; i < count; ++i) {
      auto socket = co_await acceptor_.async_accept(asio::use_awaitable);
      const ConnectionPtr c = co_await accept_enclave(std::move(socket), identity_, later(), nullptr);
      co_await work(c);
    }
  }
  awaitable<void> dial(std::size_t count, Work work) {
    const Endpoint to{"127.0.0.1", acceptor_.local_endpoint().port(), {}};
    for (std::size_t i = 0; i < count; ++i) {
      const ConnectionPtr c = co_await connect_enclave(to, hospital_, expected_, std::nullopt, later(), nullptr);
      co_await work(c);
    }
  }

  Scene scene_;
  asio::io_context server_io_{1}, client_io_{1};
  tcp::acceptor acceptor_{server_io_, {asio::ip::address_v4::loopback(), 0}};
  Credentials hospital_ = scene_.study.keys(scene_.hospital).tls;
  EnclaveExpectation expected_ = scene_.expectation();
  std::shared_ptr<const EnclaveIdentity> identity_ = std::make_shared<EnclaveIdentity>(scene_.identity());
};

std::size_t resident() {
  std::ifstream statm("/proc/self/statm");
  std::size_t all = 0, pages = 0;
  statm >> all >> pages;
  return pages * static_cast<std::size_t>(::getpagesize());
}

/// The other process: dials, holds all connections open until `stop` is closed.
[[noreturn]] void hold(const Scene& scene, std::uint16_t port, std::size_t count, int stop) {
  asio::io_context io{1};
  std::vector<ConnectionPtr> held;
  start(io, [](const Scene& s, std::uint16_t p, std::size_t n, std::vector<ConnectionPtr>& all) -> awaitable<void> {
    for (std::size_t i = 0; i < n; ++i) {
      const Endpoint to{"127.0.0.1", p, {}};
      auto c = co_await connect_enclave(to, s.study.keys(s.hospital).tls, s.expectation(), {}, later(), nullptr);
      all.push_back(std::move(c));
    }
  }(scene, port, count, held));
  io.run();
  char unused = 0;
  while (::read(stop, &unused, 1) > 0) {
  }
  ::_exit(0);
}

awaitable<void> wait_on(ConnectionPtr c) {
  try {
    co_await c->receive();
  } catch (const std::exception&) {
    // The peer hung up: the measurement is over.
  }
}

}  // namespace

std::size_t idle_memory(std::size_t count) {
  rlimit files{};
  ::getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &files);
  const Scene scene;
  asio::io_context io{1};
  tcp::acceptor acceptor{io, {asio::ip::address_v4::loopback(), 0}};
  int stop[2];
  must(::pipe(stop) == 0, "pipe");
  const pid_t child = ::fork();
  if (child == 0) {
    ::close(stop[1]);
    hold(scene, acceptor.local_endpoint().port(), count, stop[0]);
  }
  std::vector<ConnectionPtr> held;
  std::size_t before = 0, after = 0;
  start(io, [&]() -> awaitable<void> {
    const auto identity = std::make_shared<const EnclaveIdentity>(scene.identity());
    for (std::size_t i = 0; i < count; ++i) {
      auto socket = co_await acceptor.async_accept(asio::use_awaitable);
      auto c = co_await accept_enclave(std::move(socket), identity, later(), nullptr);
      start(io, wait_on(c));
      held.push_back(std::move(c));
      if (i == 0) before = resident();  // the first one pays for what all share
    }
    after = resident();
    ::close(stop[1]);
  }());
  io.run();
  ::waitpid(child, nullptr, 0);
  return (after - before) / (count - 1);
}

std::unique_ptr<Side> attested() {
  return std::make_unique<Attested>();
}

}  // namespace cloister::bench
