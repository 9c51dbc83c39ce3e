#pragma once
// A hospital's folder with its node, and four of them against the real enclave over real channels in one process.

#include <gtest/gtest.h>

#include "base/file.hpp"
#include "participant/node.hpp"
#include "tests/aggregation/enclave/hospital.hpp"
#include "tests/participant/temporary.hpp"

namespace cloister::participant {

using boost::asio::awaitable;
using tests::Edit;
using tests::ScriptedCoordinator;
using tests::World;
using tests::WorldOptions;
using namespace std::chrono_literals;

inline const std::string program = CLOISTER_BINARY_DIR "/tests/participant/participant_fake_trainer";
inline const std::vector<std::string> owners = {"charite", "usz", "ccf", "va"};

inline WorldOptions with_trainer(WorldOptions options = {}) {
  const std::string from = base::digest_text(base::sha256(base::view("trainer")));
  const std::string to = base::digest_text(base::sha256(*base::read_file(program, 1 << 28)));
  options.edits.push_back({"manifest", from, to});
  for (const std::string& owner : owners) options.edits.push_back({owner, from, to});
  return options;
}

// A hospital's folder, and the node in it.
struct Site {
  Site(World& w, std::string name) : world(w), owner(std::move(name)) {
    const tests::Keys& keys = world.study->keys(owner);
    write("charter.bin", world.study->charter.serialize());
    write("policy.toml", base::view(world.study->policy(owner).text));
    write("tls.pem", base::view(keys.tls.pem()));
    write("witness.pem", base::view(keys.witness->pem()));
    write("data.csv", base::view("63,1,1,0\n"));
    write("participant.toml", base::view("owner = \"" + owner + R"("
charter = "charter.bin"
policy = "policy.toml"
keys = { tls = "tls.pem", witness = "witness.pem" }
[data]
file = "data.csv"
[ledger]
folder = "ledger"
[log]
file = "log.jsonl"
[trainer]
program = ")" + program + "\"\nisolation = \"best-effort\"\n"));
    options.config = *load_config(folder / "participant.toml");
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    options.config.trainer_memory = 0;
#endif
    options.runs = 1;
    options.port = world.port;
    options.first_pause = 10ms;
    options.longest_pause = 50ms;
    options.refused_pause = 50ms;
  }

  void write(const std::string& name, View bytes) {
    base::write_file(folder / name, bytes, 0600).value();
  }

  void start() {
    end.reset();
    log = base::Log::open("participant " + owner, folder / "log.jsonl", true).value();
    node = Node::open(options, world.io.get_executor(), log).value();
    world.spawn(
        [](Site& site) -> awaitable<void> {
          site.end = co_await site.node->run();
          site.ended.set();
        }(*this),
        owner);
  }
  awaitable<void> until_end() {
    co_await ended.wait();
    node.reset();
  }
  awaitable<void> restart() {
    node->stop("restart");
    co_await until_end();
    ended.clear();
    start();
  }
  std::string logged() const {
    return base::text(*base::read_file(folder / "log.jsonl", 1 << 24));
  }
  std::size_t count(const std::string& event) const {
    std::size_t n = 0;
    const std::string text = logged(), what = "\"event\":\"" + event + "\"";
    for (auto at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++n;
    return n;
  }
  std::string data_set() const {
    return world.study->policy(owner).data()->data_set;
  }
  LedgerState ledger() const {
    return Ledger::read(options.config.ledger_folder, data_set()).value();
  }

  // Set when the node's run() returned.
  struct Ended {
    explicit Ended(boost::asio::io_context& io) : timer(io, base::Deadline::max()) {}
    void set() {
      done = true;
      timer.cancel();
    }
    void clear() {
      done = false;
      timer.expires_at(base::Deadline::max());
    }
    awaitable<void> wait() {
      while (!done) {
        boost::system::error_code ignored;
        co_await timer.async_wait(boost::asio::redirect_error(boost::asio::use_awaitable, ignored));
      }
    }
    boost::asio::steady_timer timer;
    bool done = false;
  };

  World& world;
  std::string owner;
  Temporary folder;
  NodeOptions options;
  std::shared_ptr<base::Log> log;
  std::unique_ptr<Node> node;
  std::optional<NodeEnd> end;
  Ended ended{world.io};
};

struct NodeTest : ::testing::Test {
  explicit NodeTest(WorldOptions options = {}) : world(with_trainer(std::move(options))) {
    for (const std::string& owner : owners) sites.push_back(std::make_unique<Site>(world, owner));
  }
  Site& site(std::size_t i) { return *sites[i]; }

  void start_all() {
    for (auto& s : sites) s->start();
  }
  awaitable<void> order(double rounds) {
    co_await coordinator.connect();
    const attest::RunOrder run = world.study->run_order({{"rounds", rounds}});
    co_await coordinator.order(run);
  }
  awaitable<void> until_logged(Site& s, std::string event, std::size_t times = 1) {
    const auto deadline = std::chrono::steady_clock::now() + 20s;
    while (s.count(event) < times) {
      if (std::chrono::steady_clock::now() > deadline) throw std::runtime_error(s.owner + " never logged " + event);
      boost::asio::steady_timer tick(world.io, 5ms);
      co_await tick.async_wait(boost::asio::use_awaitable);
    }
  }
  awaitable<void> until_all_end() {
    for (auto& s : sites) co_await s->until_end();
  }

  World world;
  ScriptedCoordinator coordinator{world};
  std::vector<std::unique_ptr<Site>> sites;
};

}  // namespace cloister::participant
