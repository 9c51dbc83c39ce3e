// cloister-aggregator: started by a TEE with an empty environment, no arguments and descriptor 3 to the TEE. Logs to
// standard output as JSON lines. Exit codes: 0 ended as it should, 1 failed, 2 not started by a TEE.

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <google/protobuf/stubs/logging.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>

#include "aggregation/enclave/cleansing_heap.hpp"
#include "aggregation/enclave/server.hpp"
#include "attest/simulated/guest.hpp"

namespace cloister::enclave {
namespace {

namespace simulated = attest::simulated;

class GuestTee final : public Tee {
 public:
  explicit GuestTee(simulated::Guest guest) : guest_(std::move(guest)) {}
  Result<Bytes> launch_document() override {
    auto document = guest_.document();
    if (!document) return document.error();
    if (const auto launch = protocols::launch::LaunchDocument::parse(*document)) expected_ = launch->measurement;
    return document;
  }
  /// Asks for what it was launched as. The TEE states what it measured: a patched copy that asks the same is found out.
  Result<Bytes> evidence(const Array<64>& report_data) override { return guest_.evidence(report_data, expected_); }
  bool ended() const override {
    pollfd link{.fd = simulated::guest_descriptor, .events = POLLRDHUP, .revents = 0};
    return ::poll(&link, 1, 0) > 0 && (link.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
  }

 private:
  simulated::Guest guest_;
  Bytes expected_;
};

int serve(Tee& tee, const std::shared_ptr<base::Log>& log) {
  boost::asio::io_context io(1);
  auto instance = make_instance(tee, base::now());
  if (!instance) throw Exception(instance.error());
  auto server = Server::make(io, tee, std::move(*instance), log);
  if (!server) throw Exception(server.error());
  std::exception_ptr failed;
  boost::asio::co_spawn(io, (*server)->serve(), [&](std::exception_ptr error, std::string reason) {
    failed = error;
    if (!error) log->event("ended", reason);
  });
  io.run();
  if (failed) std::rethrow_exception(failed);
  return 0;
}

}  // namespace
}  // namespace cloister::enclave

int main(int argc, char**) {
  using namespace cloister;
  ::signal(SIGPIPE, SIG_IGN);
  // One descriptor for each data owner: as many as the host lets this process have.
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max) {
    files.rlim_cur = files.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &files);
  }
  google::protobuf::SetLogHandler(nullptr);                // it would write to standard error at a peer's will
  const bool cleansing = enclave::cleanse_freed_memory();  // before OpenSSL takes any
  const auto log = base::Log::to_descriptor("aggregator", 1);
  if (!cleansing) {
    log->event("failed", "OpenSSL would free memory without erasing it");
    return 1;
  }
  // What is not measured must not steer it: an argument that the measurement covers is still one too many here.
  if (argc > 1) {
    log->event("not_started", "cloister-aggregator takes no arguments; its charter comes from the TEE");
    return 2;
  }
  auto guest = attest::simulated::Guest::open();
  if (!guest) {
    log->event("not_started", guest.error().text());
    return 2;
  }
  try {
    enclave::GuestTee tee(std::move(*guest));
    return enclave::serve(tee, log);
  } catch (const std::exception& e) {
    log->event("failed", e.what());
    return 1;
  }
}
