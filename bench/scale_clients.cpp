#include "bench/scale_clients.hpp"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cstring>
#include <random>
#include <unistd.h>

#include "aggregation/enclave/plan.hpp"
#include "attest/judge.hpp"
#include "protocols/channel/channel.hpp"
#include "protocols/launch/checks.hpp"
#include "protocols/round/participant.hpp"

namespace cloister::bench {
namespace {

namespace asio = boost::asio;
namespace channel = protocols::channel;
namespace messages = protocols::messages;
namespace round = protocols::round;
using channel::awaitable;

constexpr std::size_t lanes = 32;  // handshakes at a time
constexpr auto patience = std::chrono::minutes(5);

struct Shared {
  const ScaleStudy& study;
  std::uint16_t port;
  round::Shapes shapes{};
  Bytes update{};
  base::Sha256 update_digest{};
  std::size_t connected = 0, ended = 0;
  ClientFigures figures{};
  bool counting = false;
};

class Site {
 public:
  Site(Shared& shared, const Owner& owner, asio::io_context& io) : shared_(shared), owner_(owner), pause_(io) {
    boot(std::nullopt);
  }

  awaitable<void> dial() {
    channel::Endpoint to{"127.0.0.1", shared_.port, {}};
    auto link = co_await channel::connect_enclave(std::move(to), owner_.tls, expectation(), std::nullopt,
                                                  std::chrono::steady_clock::now() + patience, nullptr);
    link_ = std::move(link);
    seen_in_ = link_->bytes_received(), seen_out_ = link_->bytes_sent();
    const auto key = protocols::launch::Record::parse(link_->record())->receipt;
    auto steps = machine_->connected(key);
    co_await perform(std::move(steps));
  }

  /// Until the run has ended, dialling again after a cut.
  awaitable<void> live() {
    while (!ended_) {
      bool lost = false;
      try {
        while (!ended_) {
          auto frame = co_await link_->receive();
          co_await handle(std::move(frame));
        }
      } catch (const Exception&) {
        lost = true;
      }
      count();
      if (!lost) break;
      incoming_.reset();
      if (std::exchange(restart_, false)) {
        boot(round::ParticipantRecord::parse(machine_->record().serialize()).value());
      } else {
        auto steps = machine_->disconnected();
        co_await perform(std::move(steps));
      }
      for (bool again = true; again && !ended_;) {
        pause_.expires_after(std::chrono::milliseconds(50));
        co_await pause_.async_wait(asio::use_awaitable);
        try {
          co_await dial();
          again = false;
        } catch (const Exception& e) {
          if (e.error().kind != Error::Kind::unavailable) throw;
        }
      }
    }
    if (link_) link_->close();
  }

  /// From outside: cuts the connection, and with `restart` what only memory held is lost.
  void cut(bool restart) {
    if (!link_ || ended_) return;
    restart_ = restart;
    link_->close();
    ++(restart ? shared_.figures.restarts : shared_.figures.cuts);
  }
  void count() {
    if (!link_) return;
    const std::uint64_t in = link_->bytes_received(), out = link_->bytes_sent();
    if (shared_.counting) shared_.figures.bytes_in += in - seen_in_, shared_.figures.bytes_out += out - seen_out_;
    seen_in_ = in, seen_out_ = out;
  }

 private:
  struct Incoming {
    base::Sha256 digest{};
    std::uint64_t left = 0;
    base::Hasher hasher;
  };

  void boot(std::optional<round::ParticipantRecord> record) {
    machine_.emplace(round::ParticipantSetup{.owner = owner_.name,
                                             .charter = shared_.study.charter,
                                             .run = 1,
                                             .witness_key = owner_.extra,
                                             .shapes = shared_.shapes,
                                             .gate = [this](const round::OfferedTask& t) { return gate(t); }},
                     std::move(record));
  }

  attest::Decision judge(const attest::Claims& claims, std::optional<attest::Task> task) const {
    const attest::Charter& charter = *shared_.study.charter;
    attest::Study s{.charter = charter, .at = base::now()};
    s.host_data = host_data_;
    s.task = std::move(task);
    attest::Decision d = attest::still_founded(charter, s.at);
    d.add(attest::judge(&claims, s, *charter.policy(owner_.name)));
    return d;
  }
  attest::Decision gate(const round::OfferedTask& offered) const {
    const attest::Manifest& m = shared_.study.charter->manifest;
    attest::Task task{.kind = offered.task, .cohort = offered.cohort, .trainer = m.trainer, .algorithm = m.algorithm};
    task.weight = 100;
    return judge(*link_->peer_claims(), std::move(task));
  }

  channel::EnclaveExpectation expectation() {
    channel::EnclaveExpectation out;
    out.charter = shared_.study.charter->digest;
    out.check_grant = [this](View grant, View record) -> Result<Bytes> {
      const auto g = protocols::launch::verify_grant(*shared_.study.charter, grant, record, base::now());
      if (!g) return g.error();
      host_data_ = g->host_data;
      return base::copy(base::view(g->platform));
    };
    out.tls_key = protocols::launch::tls_key;
    out.judge = [this](const attest::Claims& claims) { return judge(claims, std::nullopt); };
    return out;
  }

  awaitable<void> handle(channel::Frame frame) {
    if (frame.type == messages::DATA) {
      if (!incoming_) throw Exception(base::malformed(owner_.name, "data that nothing announced"));
      incoming_->hasher.add(frame.payload);
      incoming_->left -= frame.payload.size();
      if (incoming_->left > 0) co_return;
      const base::Sha256 wanted = incoming_->digest, found = std::move(incoming_->hasher).finish();
      incoming_.reset();
      if (found == wanted) model_ = wanted;
      auto steps = found == wanted ? machine_->model_ready(wanted) : machine_->model_broken(wanted);
      co_await perform(std::move(steps));
      co_return;
    }
    auto message = round::parse_message(frame.type, frame.payload);
    if (!message) throw Exception(message.error());
    auto steps = machine_->on(*message);
    co_await perform(std::move(steps));
  }

  awaitable<void> perform(round::ParticipantSteps steps) {
    for (auto& step : steps) {
      if (const auto* s = std::get_if<round::Send>(&step)) {
        co_await link_->send(round::type(s->message), round::protobuf(s->message));
      } else if (const auto* need = std::get_if<round::NeedModel>(&step)) {
        auto next = model_ == need->digest ? machine_->model_ready(need->digest) : machine_->fetch(need->digest, 0);
        co_await perform(std::move(next));
      } else if (const auto* receive = std::get_if<round::ReceiveModel>(&step)) {
        incoming_.emplace(Incoming{receive->digest, receive->length - receive->offset, {}});
      } else if (const auto* run = std::get_if<round::RunTask>(&step)) {
        auto next = machine_->task_done(run->offered.round, shared_.update_digest, shared_.update.size(), 100);
        co_await perform(std::move(next));
      } else if (const auto* send = std::get_if<round::SendUpdate>(&step)) {
        const View rest = View(shared_.update).subspan(send->offset, send->length);
        co_await link_->send_data(rest);
      } else if (const auto* refused = std::get_if<round::Refused>(&step)) {
        // A round that closed at its quorum takes no more updates; nothing else may be refused here.
        if (!refused->decision.explain().starts_with("denied by charter: update in time"))
          throw std::runtime_error(owner_.name + ": " + refused->about + ": " + refused->decision.explain());
        ++shared_.figures.late;
      } else if (std::get_if<round::Disconnect>(&step) != nullptr) {
        link_->close();
      } else if (const auto* ended = std::get_if<round::Ended>(&step)) {
        if (ended->outcome != round::Outcome::done) throw std::runtime_error(owner_.name + ": " + ended->reason);
        ended_ = true;
        ++shared_.ended, ++shared_.figures.ended_done;
      }
    }
  }

  Shared& shared_;
  const Owner& owner_;
  std::optional<round::Participant> machine_;
  channel::ConnectionPtr link_;
  std::optional<Array<32>> host_data_;
  std::optional<Incoming> incoming_;
  std::optional<base::Sha256> model_;
  asio::steady_timer pause_;
  std::uint64_t seen_in_ = 0, seen_out_ = 0;
  bool ended_ = false, restart_ = false;
};

using Sites = std::vector<std::unique_ptr<Site>>;

awaitable<void> dial_lane(const Sites& sites, std::size_t lane, Shared& shared) {
  for (std::size_t i = lane; i < sites.size(); i += lanes) {
    co_await sites[i]->dial();
    ++shared.connected;
  }
}

awaitable<void> cut_now_and_then(asio::io_context& io, const Sites& sites, Shared& shared, Chaos chaos) {
  std::mt19937_64 random(chaos.seed);
  std::exponential_distribution<double> wait(chaos.per_second);
  asio::steady_timer timer(io);
  while (shared.ended < sites.size()) {
    timer.expires_after(std::chrono::microseconds(static_cast<std::int64_t>(wait(random) * 1e6)));
    co_await timer.async_wait(asio::use_awaitable);
    sites[random() % sites.size()]->cut(random() % 2 == 0);
  }
}

void spawn(asio::io_context& io, awaitable<void> work) {
  asio::co_spawn(io, std::move(work), [](std::exception_ptr error) {
    if (error) std::rethrow_exception(error);
  });
}

}  // namespace

void serve_participants(const ScaleStudy& study, std::uint16_t port, std::size_t first, std::size_t step, int ready,
                        int figures, const Chaos& chaos) {
  asio::io_context io(1);
  const auto working = asio::make_work_guard(io);  // between connecting and the run there may be nothing to do
  Shared shared{.study = study, .port = port};
  shared.shapes = enclave::make_plan(*study.charter).value().shapes();
  const std::vector<float> ones(study.initial.values.size(), 0.5F);
  shared.update.resize(ones.size() * sizeof(float));
  std::memcpy(shared.update.data(), ones.data(), shared.update.size());
  shared.update_digest = base::sha256(shared.update);
  Sites sites;
  for (std::size_t i = first; i < study.data.size(); i += step)
    sites.push_back(std::make_unique<Site>(shared, study.data[i], io));
  for (std::size_t lane = 0; lane < lanes; ++lane) spawn(io, dial_lane(sites, lane, shared));
  while (shared.connected < sites.size()) io.run_one();
  for (const auto& site : sites) site->count();
  shared.counting = true;
  if (::write(ready, "c", 1) != 1) throw std::runtime_error("the bench has gone");
  for (const auto& site : sites) spawn(io, site->live());
  if (chaos.per_second > 0) spawn(io, cut_now_and_then(io, sites, shared, chaos));
  while (shared.ended < sites.size()) io.run_one();
  for (const auto& site : sites) site->count();
  const bool told = ::write(figures, &shared.figures, sizeof shared.figures) == sizeof shared.figures;
  ::_exit(told ? 0 : 1);  // coroutines that still wait hold on to what would be taken down before them
}

}  // namespace cloister::bench
