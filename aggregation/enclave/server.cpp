#include "aggregation/enclave/server.hpp"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/multiple_exceptions.hpp>
#include <boost/asio/redirect_error.hpp>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/socket.h>
#include <unistd.h>

#include "aggregation/model.hpp"
#include "attest/judge.hpp"
#include "base/deadline.hpp"
#include "protocols/launch/checks.hpp"

namespace cloister::enclave {
namespace asio = boost::asio;
using asio::ip::tcp;
using namespace asio::experimental::awaitable_operators;

namespace {

constexpr auto watch_interval = std::chrono::milliseconds(250);
constexpr std::size_t leaving_at_most = 64;  // connections that were cut to make room and are not quite gone

template <class Function>
void logged(base::Log& log, std::string_view event, Function function) {
  try {
    function();
  } catch (const std::exception& e) {
    log.event(event, e.what());
  }
}

std::string reason_of(std::exception_ptr error) {
  try {
    std::rethrow_exception(error);
  } catch (const std::exception& e) {
    return e.what();
  }
}

Result<tcp::acceptor> listen_at(asio::io_context& io, const std::string& host, std::uint16_t port) {
  boost::system::error_code failed;
  tcp::resolver resolver(io);
  const auto found =
      resolver.resolve(host, std::to_string(port), tcp::resolver::passive | tcp::resolver::numeric_service, failed);
  if (failed || found.empty()) return base::unavailable(host, "no such address here: " + failed.message());
  tcp::acceptor acceptor(io);
  const tcp::endpoint endpoint = *found.begin();
  acceptor.open(endpoint.protocol(), failed);
  if (!failed) acceptor.set_option(asio::socket_base::reuse_address(true), failed);
  if (!failed) acceptor.bind(endpoint, failed);
  if (!failed) acceptor.listen(asio::socket_base::max_listen_connections, failed);
  if (failed) return base::unavailable(fmt::format("{}:{}", host, port), "cannot listen: " + failed.message());
  return acceptor;
}

}  // namespace

Result<std::unique_ptr<Server>> Server::make(asio::io_context& io, Tee& tee, Instance instance,
                                             std::shared_ptr<base::Log> log, ServerOptions options) {
  auto plan = make_plan(*instance.charter);
  if (!plan) return plan.error();
  auto acceptor = listen_at(io, instance.launch.host, instance.launch.port);
  if (!acceptor) return acceptor.error();
  return std::unique_ptr<Server>(new Server(io, tee, std::move(instance), std::move(*plan), std::move(*acceptor),
                                            std::move(log), std::move(options)));
}

Server::Server(asio::io_context& io, Tee& tee, Instance instance, Plan plan, tcp::acceptor acceptor,
               std::shared_ptr<base::Log> log, ServerOptions options)
    : io_(io),
      tee_(tee),
      instance_(std::make_shared<const Instance>(std::move(instance))),
      plan_(std::make_shared<const Plan>(std::move(plan))),
      acceptor_(std::move(acceptor)),
      log_(std::move(log)),
      options_(std::move(options)),
      identity_{.tls = instance_->tls,
                .charter = instance_->charter->digest,
                .record = instance_->record,
                .grant = [this] { return granted() ? grant_ : Bytes(); },
                .attester = [this](const Array<64>& report_data) { return tee_.evidence(report_data); },
                .dice_evidence = instance_->evidence,
                .known = [this](const base::PublicKey& key) { return owner_of(key); },
                .launcher_owner = instance_->charter->manifest.compute_owner().owner,
                .wants_evidence =
                    [this](const std::string& owner) {
                      const auto& m = instance_->charter->manifest;
                      return m.party(owner)->role == attest::Role::data &&
                             instance_->charter->policy(m.model_owner().owner)->model()->participants_attested;
                    },
                .judge_peer = [this](const std::string& owner,
                                     const attest::Claims* claims) { return judge_peer(owner, claims); }},
      patience_(instance_->charter->manifest.channel_deadline),
      started_(options_.steady()),
      end_signal_(io, Deadline::max()),
      drained_(io, Deadline::max()) {
  log_->set_simulated(instance_->claims.simulated);
}

Server::~Server() {
  pool_.join();
}

std::uint16_t Server::port() const {
  return acceptor_.local_endpoint().port();
}

// --- Life ------------------------------------------------------------------------------------------------------------

awaitable<std::string> Server::serve() {
  log_->event("listening", fmt::format("the instance listens on port {}", port()),
              {{"study", instance_->charter->manifest.study},
               {"charter", base::digest_text(instance_->charter->digest)},
               {"port", port()}});
  co_await (accept_all() || watch());
  acceptor_.close();
  log_->event("ending", *ended_);
  if (run_ && !run_->finished()) run_->fail("the instance ended: " + *ended_);
  if (launcher_) report_to_launcher("done", *ended_);
  for (const auto& link : {launcher_, feed_.link()})
    if (link) link->finish();
  for (const auto& [owner, peer] : participants_) peer.link->finish();
  // What was queued gets one channel deadline to leave; then the links are cut.
  drained_.expires_after(patience_);
  boost::system::error_code done;
  if (open_ > 0) co_await drained_.async_wait(asio::redirect_error(asio::use_awaitable, done));
  for (const auto& link : {launcher_, feed_.link()})
    if (link) link->close();
  for (const auto& [owner, peer] : participants_) peer.link->close();
  drained_.expires_after(patience_);
  if (open_ > 0) co_await drained_.async_wait(asio::redirect_error(asio::use_awaitable, done));
  co_return *ended_;
}

void Server::end(std::string reason) {
  if (!ended_) ended_ = std::move(reason);
  end_signal_.cancel();
}

// Liveness only: none of this decides what anybody may see.
awaitable<void> Server::watch() {
  while (!ended_) {
    boost::system::error_code woken;
    end_signal_.expires_after(watch_interval);
    co_await end_signal_.async_wait(asio::redirect_error(asio::use_awaitable, woken));
    if (const bool valid = granted(); run_ && !run_->finished() && valid != grant_told_) {
      grant_told_ = valid;
      if (!valid) log_->event("grant_expired", "the grant has expired; no new offers until it is renewed");
      run_->grant(valid);
    }
    if (tee_.ended()) end("the TEE has ended");
    if (options_.steady() - started_ >= instance_->launch.duration) end("the launch's duration is over");
    if (grant_until_ && !granted() && !launcher_) end("the launcher's link was lost for longer than its grant");
  }
}

awaitable<void> Server::accept_all() {
  for (;;) {
    boost::system::error_code failed;
    tcp::socket socket = co_await acceptor_.async_accept(asio::redirect_error(asio::use_awaitable, failed));
    if (failed == asio::error::operation_aborted || ended_) co_return;
    const auto now = std::chrono::steady_clock::now();
    if (failed || (open_ >= instance_->launch.connections && !make_room())) {
      // One line a second is enough to see it, whoever knocks how often.
      const std::string why =
          failed ? failed.message() : fmt::format("{} are open, as many as the launch allows", open_);
      if (now - turned_away_ > std::chrono::seconds(1))
        log_->event("connection_refused", "a connection was not taken: " + why);
      turned_away_ = now;
      if (!failed) continue;
      asio::steady_timer pause(io_, watch_interval);  // out of descriptors: some come back
      co_await pause.async_wait(asio::use_awaitable);
      continue;
    }
    socket.set_option(tcp::no_delay(true), failed);
    socket.set_option(asio::socket_base::keep_alive(true), failed);  // notices a peer whose machine is gone
    ++open_;
    asio::co_spawn(io_, session(std::move(socket)), [this](std::exception_ptr error) {
      if (error) log_->event("session_failed", reason_of(error));
      if (--open_ == 0 && ended_) drained_.cancel();
    });
  }
}

// --- Who connects ----------------------------------------------------------------------------------------------------

std::optional<std::string> Server::owner_of(const base::PublicKey& key) const {
  const attest::Party* party = instance_->charter->manifest.by_tls_key(key);
  return party ? std::optional(party->owner) : std::nullopt;
}

attest::Decision Server::judge_peer(const std::string& owner, const attest::Claims* claims) const {
  const attest::Charter& charter = *instance_->charter;
  const attest::Manifest& manifest = charter.manifest;
  attest::Decision decision;
  const attest::Party* party = manifest.party(owner);
  // By rule: the compute owner's policy decides who may connect.
  const attest::Policy* compute = charter.policy(manifest.compute_owner().owner);
  if (party->role == attest::Role::data) {
    const auto& among = compute->compute()->connect_among;
    decision.add({.met = attest::admits(among, owner),
                  .owner = compute->owner_text(),
                  .requirement = "launch.connect",
                  .wanted = fmt::format("one of {}", fmt::join(among, ", ")),
                  .found = owner,
                  .remedy = "add it to launch.connect and found a new charter"});
    // The model owner decides which participants may see the model.
    decision.add(attest::judge(claims,
                               {.charter = charter,
                                .at = options_.now(),
                                .host_data = {},
                                .settings = {},
                                .task = {},
                                .spent = {},
                                .launch = {},
                                .claims_of_participant = true,
                                .participant = owner},
                               *charter.policy(manifest.model_owner().owner)));
  } else {
    decision.add({.met = party->role == attest::Role::model,
                  .owner = "charter",
                  .requirement = "parties",
                  .wanted = "the model owner or a data owner",
                  .found = owner,
                  .remedy = "dial with the key that the charter names"});
  }
  return decision;
}

Server::Unproven::Unproven(int socket) : copy_(::fcntl(socket, F_DUPFD_CLOEXEC, 0)) {}
Server::Unproven::~Unproven() {
  if (copy_ >= 0) ::close(copy_);
}
void Server::Unproven::cut() const {
  if (copy_ >= 0) ::shutdown(copy_, SHUT_RDWR);
}

// Whoever only connects must not keep a hospital out: when all places are taken, the one that has waited longest
// without proving a key gives its place to the one that comes.
bool Server::make_room() {
  if (unproven_.empty() || open_ >= instance_->launch.connections + leaving_at_most) return false;
  unproven_.begin()->second.cut();
  unproven_.erase(unproven_.begin());
  return true;
}

awaitable<void> Server::session(tcp::socket socket) {
  channel::ConnectionPtr connection;
  const std::uint64_t arrival = ++arrivals_;
  unproven_.try_emplace(arrival, socket.native_handle());
  const std::unique_ptr<const std::uint64_t, std::function<void(const std::uint64_t*)>> gone(
      &arrival, [this](const std::uint64_t* number) { unproven_.erase(*number); });
  try {
    connection = co_await channel::accept_enclave(std::move(socket), identity_,
                                                  std::chrono::steady_clock::now() + patience_, log_);
  } catch (const std::exception& e) {
    log_->event("peer_not_admitted", e.what());
    co_return;
  }
  unproven_.erase(arrival);
  if (ended_) co_return connection->close();
  auto link = std::make_shared<Link>(std::move(connection), io_.get_executor(), patience_);
  join(link);
  std::string why = "closed";
  try {
    co_await (read(link) && link->pump());
  } catch (const asio::multiple_exceptions& e) {
    why = reason_of(e.first_exception());  // the second one is only the end that follows
  } catch (const std::exception& e) {
    why = e.what();
  }
  link->close();
  logged(*log_, "leaving_failed", [&] { leave(link); });
  log_->event("peer_left", link->owner() + ": " + why, {{"owner", link->owner()}});
}

// One link per owner: a new one replaces the old, which may be half open since a cut.
void Server::join(const LinkPtr& link) {
  const std::string& owner = link->owner();
  const auto role = instance_->charter->manifest.party(owner)->role;
  log_->event(
      "peer_admitted", owner,
      {{"owner", owner}, {"role", attest::name(role)}, {"attested", link->connection().peer_claims().has_value()}});
  if (role == attest::Role::compute) {
    if (launcher_) launcher_->close();
    launcher_ = link;
  } else if (role == attest::Role::data) {
    if (const auto it = participants_.find(owner); it != participants_.end()) {
      const LinkPtr old = it->second.link;
      leave(old);
      old->close();
    }
    participants_[owner] = {.link = link};
    if (run_) run_->connected(owner);
  }
}

void Server::leave(const LinkPtr& link) {
  if (launcher_ == link) launcher_ = nullptr;
  feed_.detach(link);
  const auto it = participants_.find(link->owner());
  if (it == participants_.end() || it->second.link != link) return;
  participants_.erase(it);
  if (run_) run_->disconnected(link->owner());
}

awaitable<void> Server::read(LinkPtr link) {
  try {
    switch (instance_->charter->manifest.party(link->owner())->role) {
      case attest::Role::compute:
        co_await launcher(link);
        break;
      case attest::Role::model:
        co_await coordinator(link);
        break;
      case attest::Role::data:
        co_await participant(link);
        break;
    }
  } catch (...) {
    link->close();
    throw;
  }
  link->close();
}

void Server::refuse(LinkPtr link, attest::Decision decision, std::string reason, bool retry) {
  if (!link->begin_refusing()) return;
  log_->event("peer_refused", link->owner() + ": " + reason, {{"owner", link->owner()}, {"reason", reason}});
  attest::log_refusals(*log_, decision, link->owner());
  asio::co_spawn(io_, channel::refuse(link->shared_connection(), std::move(decision), std::move(reason), retry),
                 [link](std::exception_ptr) { link->close(); });
}

}  // namespace cloister::enclave
