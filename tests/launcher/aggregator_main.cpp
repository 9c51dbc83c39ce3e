// A guest that plays the aggregator towards its launcher. Its first argument is its fault; "honest" has none.

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cstdio>
#include <string>

#include "attest/charter.hpp"
#include "attest/simulated/guest.hpp"
#include "protocols/channel/channel.hpp"
#include "protocols/launch/documents.hpp"

namespace {

using namespace cloister;
namespace asio = boost::asio;
namespace messages = protocols::messages;
using asio::ip::tcp;
using protocols::channel::ConnectionPtr;
using protocols::launch::LaunchDocument;
using protocols::launch::Record;

struct Aggregator {
  std::string fault;
  attest::simulated::Guest guest;
  LaunchDocument document = LaunchDocument::parse(guest.document().value()).value();
  attest::Charter charter = attest::parse_charter(document.charter, "launch document").value();
  base::PrivateKey tls = base::PrivateKey::generate(), receipt = base::PrivateKey::generate();

  messages::Instance instance(int link) const {
    auto nonce = document.nonce;
    if (fault == "nonce") nonce[0] ^= 1;
    const bool other = fault == "two-records" && link > 0;
    const auto record =
        Record::make(charter.digest, tls.public_key(), other ? tls.public_key() : receipt.public_key(), nonce)
            .serialize();
    // It asks for the measurement that the charter names, whatever it is.
    const auto evidence = guest.evidence(protocols::launch::instance_report_data(record), document.measurement).value();
    messages::Instance out;
    out.set_record(base::text(record));
    out.set_evidence(base::text(evidence));
    return out;
  }

  asio::awaitable<void> serve(ConnectionPtr launcher, int link) {
    if (fault == "nonsense") co_await launcher->send(messages::RUN_STATUS, messages::RunStatus());
    co_await launcher->send(messages::INSTANCE, instance(link));
    for (;;) {
      const auto frame = co_await launcher->receive();
      if (frame.type != messages::GRANT) throw Exception(base::malformed("guest", "wanted Grant"));
      if (fault == "quit") std::exit(7);
      if ((fault == "cut" || fault == "two-records") && link == 0) co_return;
      messages::InstanceReport report;
      report.set_state("idle");
      co_await launcher->send(messages::INSTANCE_REPORT, report);
    }
  }

  asio::awaitable<void> run() {
    auto executor = co_await asio::this_coro::executor;
    tcp::acceptor acceptor(executor, {asio::ip::make_address(document.host), document.port});
    const auto known = [this](const base::PublicKey& key) -> std::optional<std::string> {
      if (key == charter.manifest.compute_owner().tls) return charter.manifest.compute_owner().owner;
      return {};
    };
    for (int link = 0;; ++link) {
      auto socket = co_await acceptor.async_accept(asio::use_awaitable);
      if (fault == "mute") {
        co_await socket.async_wait(tcp::socket::wait_error, asio::use_awaitable);
        continue;
      }
      try {
        const auto soon = std::chrono::steady_clock::now() + std::chrono::seconds(10);
        auto connection = co_await protocols::channel::accept_pinned(std::move(socket), tls, known, soon, nullptr);
        co_await serve(connection, link);
        connection->close();
      } catch (const Exception& e) {
        std::printf("%s\n", e.what());
        std::fflush(stdout);
      }
    }
  }
};

}  // namespace

int main(int argc, char** argv) {
  auto guest = attest::simulated::Guest::open();
  if (!guest || argc < 2) return 2;
  Aggregator aggregator{argv[1], *guest};
  asio::io_context io(1);
  int status = 0;
  asio::co_spawn(io, aggregator.run(), [&](std::exception_ptr e) { status = e ? 1 : 0; });
  io.run();
  return status;
}
