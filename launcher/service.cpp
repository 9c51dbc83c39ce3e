#include "launcher/service.hpp"

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <deque>
#include <fmt/format.h>
#include <map>
#include <set>

#include "base/deadline.hpp"

namespace cloister::launcher {

namespace asio = boost::asio;
namespace channel = protocols::channel;
namespace messages = protocols::messages;
using std::chrono::steady_clock;

namespace {

constexpr std::size_t children_cap =
    256;  // links, their writers and instances; the model owner's coordinator needs one link
constexpr std::chrono::milliseconds accept_pause{100};

messages::LaunchStatus status_of(const Instance& instance) {
  const attest::Manifest& m = instance.launch().charter->manifest;
  messages::LaunchStatus out;
  out.set_instance(instance.id());
  out.set_state(instance.state());
  out.set_host(m.aggregator_host);
  out.set_port(m.aggregator_port);
  out.set_grant(base::text(instance.grant()));
  return out;
}

messages::LaunchEnd end_message(const std::string& instance, const std::string& reason,
                                const attest::Decision& decision, int status) {
  messages::LaunchEnd out;
  out.set_instance(instance);
  out.set_reason(reason);
  out.set_exit_status(status);
  for (const attest::Finding& f : decision.refusals()) {
    messages::Finding& to = *out.add_findings();
    to.set_owner(f.owner);
    to.set_requirement(f.requirement);
    to.set_wanted(f.wanted);
    to.set_found(f.found);
    to.set_remedy(f.remedy);
  }
  return out;
}

}  // namespace

/// A coordinator's connection with what waits to be sent on it, so that a slow one holds up no instance.
struct Service::Link {
  Link(channel::ConnectionPtr c, asio::any_io_executor executor)
      : connection(std::move(c)), wake(executor, steady_clock::time_point::max()) {}

  void push(channel::MessageType type, std::unique_ptr<google::protobuf::MessageLite> message) {
    waiting.emplace_back(type, std::move(message));
    wake.cancel();
  }
  /// Closes once everything that waits is sent.
  void finish() {
    finishing = true;
    wake.cancel();
  }
  void close() {
    closed = true;
    wake.cancel();
    connection->close();
  }

  channel::ConnectionPtr connection;
  std::deque<std::pair<channel::MessageType, std::unique_ptr<google::protobuf::MessageLite>>> waiting;
  asio::steady_timer wake;
  bool finishing = false, closed = false;
};

struct Service::State : std::enable_shared_from_this<Service::State> {
  using LinkPtr = std::shared_ptr<Link>;
  struct Row {
    std::shared_ptr<Instance> instance;
    std::set<LinkPtr> links;  // that asked for it or for its end
  };

  State(asio::ip::tcp::acceptor a, Tools t)
      : acceptor(std::move(a)),
        tools(std::move(t)),
        executor(acceptor.get_executor()),
        idle(executor, steady_clock::time_point::max()) {}

  asio::ip::tcp::acceptor acceptor;
  Tools tools;
  asio::any_io_executor executor;
  std::map<std::string, Row> rows;  // by instance id; only those that live
  std::set<LinkPtr> links;
  std::size_t children = 0;  // coroutines that run() waits for
  bool stopping = false;
  asio::steady_timer idle;  // cancelled when a child ends

  std::chrono::milliseconds deadline() const { return tools.agent.channel_deadline(); }

  // Runs as a child of the service, which sees what it throws and waits for it in run().
  void spawn(std::string what, asio::awaitable<void> child) {
    ++children;
    asio::co_spawn(executor, std::move(child), [self = shared_from_this(), what](std::exception_ptr e) {
      --self->children;
      self->idle.cancel();
      if (!e) return;
      try {
        std::rethrow_exception(e);
      } catch (const std::exception& caught) {
        self->tools.log->event("link_end", fmt::format("{}: {}", what, caught.what()), {{"reason", caught.what()}});
      }
    });
  }

  asio::awaitable<void> accept_one(asio::ip::tcp::socket socket);
  asio::awaitable<void> read(LinkPtr link);
  asio::awaitable<void> write(LinkPtr link);
  asio::awaitable<void> live(std::shared_ptr<Instance> instance);
  void on_request(const LinkPtr& link, const messages::LaunchRequest& message);
  void on_end(const LinkPtr& link, const messages::LaunchEnd& message);
  void start(const LinkPtr& link, Launch launch);
  void refuse(const LinkPtr& link, attest::Decision decision, const std::string& reason);
  void tell(const Row& row, channel::MessageType type, const google::protobuf::MessageLite& message);
};

asio::awaitable<void> Service::State::accept_one(asio::ip::tcp::socket socket) {
  const auto known = [this](const base::PublicKey& key) { return tools.agent.known(key); };
  auto connection =
      co_await channel::accept_pinned(std::move(socket), tools.tls, known, steady_clock::now() + deadline(), tools.log);
  connection->await_launches();
  const auto link = std::make_shared<Link>(std::move(connection), executor);
  links.insert(link);
  tools.log->event("link", fmt::format("{} is connected", link->connection->peer_owner()),
                   {{"owner", link->connection->peer_owner()}});
  spawn("to " + link->connection->peer_owner(), write(link));
  try {
    co_await read(link);
  } catch (const Exception& e) {
    tools.log->event("link_end", fmt::format("{}: {}", link->connection->peer_owner(), e.what()),
                     {{"owner", link->connection->peer_owner()}, {"reason", e.what()}});
  }
  links.erase(link);
  for (auto& [id, row] : rows) row.links.erase(link);
  link->close();
}

asio::awaitable<void> Service::State::read(LinkPtr link) {
  for (;;) {
    const auto frame = co_await link->connection->receive();
    switch (frame.type) {
      case messages::LAUNCH_REQUEST:
        on_request(link, channel::parse<messages::LaunchRequest>(frame));
        break;
      case messages::LAUNCH_END:
        on_end(link, channel::parse<messages::LaunchEnd>(frame));
        break;
      default: {
        attest::Decision none;
        std::string reason =
            fmt::format("wanted LaunchRequest or LaunchEnd, found a frame of type {}", static_cast<int>(frame.type));
        co_await channel::refuse(link->connection, std::move(none), std::move(reason));
        co_return;
      }
    }
  }
}

asio::awaitable<void> Service::State::write(LinkPtr link) {
  while (!link->closed) {
    if (link->waiting.empty() && link->finishing) co_return link->close();
    if (link->waiting.empty()) {
      boost::system::error_code e;
      co_await link->wake.async_wait(asio::redirect_error(asio::use_awaitable, e));
      continue;
    }
    const auto [type, message] = std::move(link->waiting.front());
    link->waiting.pop_front();
    try {
      co_await with_deadline(link->connection->send(type, *message), steady_clock::now() + deadline(),
                             "the coordinator: a message");
    } catch (const Exception&) {
      link->close();  // its reader says why
      throw;
    }
  }
}

void Service::State::tell(const Row& row, channel::MessageType type, const google::protobuf::MessageLite& message) {
  for (const LinkPtr& link : row.links) {
    std::unique_ptr<google::protobuf::MessageLite> copy(message.New());
    copy->CheckTypeAndMergeFrom(message);
    link->push(type, std::move(copy));
  }
}

void Service::State::refuse(const LinkPtr& link, attest::Decision decision, const std::string& reason) {
  attest::log_refusals(*tools.log, decision, "launch request of " + link->connection->peer_owner());
  link->push(messages::LAUNCH_END, std::make_unique<messages::LaunchEnd>(end_message("", reason, decision, 0)));
}

void Service::State::on_request(const LinkPtr& link, const messages::LaunchRequest& message) {
  const Request request{link->connection->peer_key(),
                        base::view(message.charter()),
                        {base::copy(base::view(message.measurement())), message.memory(), message.connections(),
                         std::chrono::milliseconds(std::min<std::uint64_t>(message.duration_ms(), INT64_MAX))}};
  tools.log->event("launch_request",
                   fmt::format("{} asks for an instance: {}", link->connection->peer_owner(), message.why()),
                   {{"owner", link->connection->peer_owner()}, {"why", message.why()}});
  Admission admitted = tools.agent.admit(request, tools.clock());
  if (!admitted.decision.allowed())
    return refuse(link, admitted.decision, "the launcher refuses: " + admitted.decision.explain());
  for (auto& [id, row] : rows) {
    const Launch& other = row.instance->launch();
    if (other.charter->digest == admitted.charter->digest && !row.instance->ending()) {
      row.links.insert(link);
      return link->push(messages::LAUNCH_STATUS, std::make_unique<messages::LaunchStatus>(status_of(*row.instance)));
    }
    // Every instance listens where its manifest says, and two cannot listen there.
    const attest::Manifest &a = other.charter->manifest, &b = admitted.charter->manifest;
    if (a.aggregator_host != b.aggregator_host || a.aggregator_port != b.aggregator_port) continue;
    attest::Decision busy;
    busy.add({false, tools.agent.owner() + " (compute)", "launch.address",
              fmt::format("{}:{} free", b.aggregator_host, b.aggregator_port),
              fmt::format("{} {} there", id, row.instance->ending() ? "is ending" : "runs"),
              "ask again when it has ended"});
    return refuse(link, busy, "the launcher refuses: " + busy.explain());
  }
  start(link, Agent::prepare(admitted, request, base::random_array<32>()));
}

void Service::State::start(const LinkPtr& link, Launch launch) {
  const auto changed = [weak = weak_from_this()](const Instance& instance) {
    const auto self = weak.lock();
    if (!self) return;
    if (const auto at = self->rows.find(instance.id()); at != self->rows.end())
      self->tell(at->second, messages::LAUNCH_STATUS, status_of(instance));
  };
  auto instance = std::make_shared<Instance>(executor, tools, std::move(launch), changed);
  rows[instance->id()] = {instance, {link}};
  spawn(instance->id(), live(instance));
}

asio::awaitable<void> Service::State::live(std::shared_ptr<Instance> instance) {
  co_await instance->run();
  const auto at = rows.find(instance->id());
  tell(at->second, messages::LAUNCH_END,
       end_message(instance->id(), instance->reason(), instance->decision(), instance->exit_status()));
  rows.erase(at);
}

void Service::State::on_end(const LinkPtr& link, const messages::LaunchEnd& message) {
  const auto at = rows.find(message.instance());
  if (at == rows.end())
    return link->push(messages::LAUNCH_END, std::make_unique<messages::LaunchEnd>(end_message(
                                                message.instance(), "no such instance is running here", {}, 0)));
  // Only the model owner of its charter ends an instance.
  const base::PublicKey& owner = at->second.instance->launch().charter->manifest.model_owner().tls;
  if (owner != link->connection->peer_key()) {
    attest::Decision denied;
    denied.add({false, tools.agent.owner() + " (compute)", "launch.requester",
                "the charter's model owner, " + owner.text(), link->connection->peer_key().text(),
                "ask from the coordinator that the charter names"});
    return refuse(link, denied, "the launcher refuses: " + denied.explain());
  }
  at->second.links.insert(link);
  at->second.instance->end("the coordinator ends it: " + message.reason());
}

Service::Service(asio::ip::tcp::acceptor acceptor, Tools tools)
    : state_(std::make_shared<State>(std::move(acceptor), std::move(tools))) {}

Service::~Service() {
  stop();
}

asio::awaitable<void> Service::run() {
  const auto state = state_;
  while (!state->stopping) {
    boost::system::error_code e;
    asio::ip::tcp::socket socket(state->executor);
    co_await state->acceptor.async_accept(socket, asio::redirect_error(asio::use_awaitable, e));
    if (state->stopping) break;
    if (e == asio::error::operation_aborted || e == asio::error::bad_descriptor)
      throw boost::system::system_error(e, "accept");
    if (e) {  // a peer that went away, or no descriptors left
      asio::steady_timer pause(state->executor, accept_pause);
      co_await pause.async_wait(asio::redirect_error(asio::use_awaitable, e));
      continue;
    }
    if (state->children >= children_cap) continue;  // closes the socket
    state->spawn("a coordinator's link", state->accept_one(std::move(socket)));
  }
  while (!state->rows.empty()) {
    boost::system::error_code e;
    co_await state->idle.async_wait(asio::redirect_error(asio::use_awaitable, e));
  }
  for (const auto& link : state->links) link->finish();
  while (state->children != 0) {
    boost::system::error_code e;
    co_await state->idle.async_wait(asio::redirect_error(asio::use_awaitable, e));
  }
}

void Service::stop() {
  if (std::exchange(state_->stopping, true)) return;
  boost::system::error_code ignored;
  state_->acceptor.close(ignored);
  for (auto& [id, row] : state_->rows) row.instance->end("the launcher stops");
}

}  // namespace cloister::launcher
