#pragma once
// Two parties and an enclave in one io_context over loopback TCP, with evidence that the test itself makes: every claim
// can be set, so every refusal can be provoked.

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <optional>
#include <sstream>
#include <string>
#include <unistd.h>

#include "base/encoding.hpp"
#include "protocols/channel/authenticator.hpp"
#include "protocols/channel/channel.hpp"

namespace cloister::protocols::channel::tests {

namespace asio = boost::asio;
using namespace std::chrono_literals;

inline Deadline soon() {
  return std::chrono::steady_clock::now() + 20s;
}

/// What evidence of the test's kind claims: "test" evidence is these fields and no signature, since the TEE is the
/// test.
struct FakeTee {
  Bytes measurement = Bytes(48, 0x11);
  Bytes platform = Bytes(32, 0x22);
  bool debug = false;
  bool simulated = false;
  std::string tcb_status = "up-to-date";
  std::optional<Array<64>> other_report_data;  ///< states this instead of what it was asked for

  Bytes attest(const Array<64>& report_data) const {
    const auto& said = other_report_data ? *other_report_data : report_data;
    const Bytes body =
        base::Writer().field(measurement).field(platform).u8(debug).u8(simulated).field(tcb_status).raw(said).bytes();
    return attest::Evidence{"test", body}.serialize();
  }
  attest::Attester attester() const {
    return [tee = *this](const Array<64>& report_data) -> Result<Bytes> { return tee.attest(report_data); };
  }
};

inline Result<attest::Claims> verify_fake(View bytes, Time) {
  auto evidence = attest::Evidence::parse(bytes);
  if (!evidence) return evidence.error();
  if (evidence->kind != "test") return base::unsupported("evidence", "wanted kind test, found " + evidence->kind);
  base::Reader r("evidence", evidence->body);
  attest::Claims c;
  c.kind = "test";
  c.measurement = base::copy(r.field("measurement", 64));
  c.platform = base::copy(r.field("platform", 64));
  c.debug = r.u8("debug") != 0;
  c.simulated = r.u8("simulated") != 0;
  c.tcb_status = r.string("tcb_status", 64);
  c.report_data = r.array<64>("report_data");
  if (auto end = r.finish(); !end) return end.error();
  return c;
}

/// A log in a file of its own, to be read back.
class LogFile {
 public:
  LogFile() {
    std::string pattern = (std::filesystem::temp_directory_path() / "cloister-channel-XXXXXX").string();
    folder_ = mkdtemp(pattern.data());
    log = base::Log::open("test", path(), /*quiet=*/true).value();
  }
  ~LogFile() { std::filesystem::remove_all(folder_); }
  LogFile(const LogFile&) = delete;
  std::string text() const {
    std::ostringstream all;
    all << std::ifstream(path()).rdbuf();
    return all.str();
  }
  std::shared_ptr<base::Log> log;

 private:
  std::string path() const { return folder_ + "/log.jsonl"; }
  std::string folder_;
};

/// How one side's coroutine ended.
struct Outcome {
  ConnectionPtr connection;
  std::string error;  ///< Error::text(); empty when it did not fail
  std::optional<Error::Kind> kind;
  std::optional<attest::Decision> decision;  ///< of a Refused
  bool by_peer = false;
  bool retry = false;

  bool ok() const { return connection != nullptr; }
  /// The unmet finding of `requirement`, or one that says it is not there.
  attest::Finding refusal(const std::string& requirement) const {
    if (decision)
      for (const auto& f : decision->refusals())
        if (f.requirement == requirement) return f;
    return {false, "", "no refusal of " + requirement + " in: " + error, "", "", ""};
  }
};

inline awaitable<Outcome> outcome(awaitable<ConnectionPtr> op) {
  Outcome out;
  try {
    out.connection = co_await std::move(op);
  } catch (const Refused& e) {
    out.error = e.what();
    out.kind = e.error().kind;
    out.decision = e.decision();
    out.by_peer = e.by_peer();
    out.retry = e.retry();
  } catch (const Exception& e) {
    out.error = e.what();
    out.kind = e.error().kind;
  } catch (const std::exception& e) {
    out.error = std::string("unexpected: ") + e.what();
  }
  co_return out;
}

struct World {
  asio::io_context io;
  tcp::acceptor acceptor{io, {asio::ip::address_v4::loopback(), 0}};
  LogFile party_log, enclave_log;

  base::PrivateKey party = base::PrivateKey::generate();  ///< "charite" in the charter
  base::PrivateKey launcher = base::PrivateKey::generate();
  std::map<base::PublicKey, std::string> charter_keys{{party.public_key(), "charite"},
                                                      {launcher.public_key(), "cloudco"}};
  base::Sha256 charter = base::sha256(base::view("a charter"));

  FakeTee tee;        ///< the enclave's
  FakeTee party_tee;  ///< the party's
  bool party_attests = false;
  bool enclave_asks = false;
  bool grant_given = true;
  Bytes granted_platform = tee.platform;
  std::string grant_error;  ///< what check_grant says is wrong with it; empty: nothing

  base::PrivateKey enclave_key = base::PrivateKey::generate();
  Bytes record = make_record(enclave_key.public_key());

  static Bytes make_record(const base::PublicKey& key) {
    return base::Writer().field("test record").raw(key.bytes).bytes();
  }
  static std::string platform_text(const Bytes& platform) {
    attest::Claims c;
    c.kind = "test";
    c.platform = platform;
    return c.platform_text();
  }
  Endpoint endpoint() const { return {"127.0.0.1", acceptor.local_endpoint().port(), {}}; }

  static attest::Finding finding(bool met, std::string owner, std::string requirement, std::string wanted,
                                 std::string found) {
    return {met, std::move(owner), std::move(requirement), std::move(wanted), std::move(found), "change it"};
  }

  EnclaveExpectation expectation() {
    EnclaveExpectation e;
    e.charter = charter;
    e.check_grant = [this](View grant, View) -> Result<Bytes> {
      if (!grant_error.empty()) return base::untrusted("grant", grant_error);
      return base::copy(grant);
    };
    e.tls_key = [](View r) -> Result<base::PublicKey> {
      base::Reader reader("record", r);
      reader.field("name", 64);
      base::PublicKey key{reader.array<32>("key")};
      if (auto end = reader.finish(); !end) return end.error();
      return key;
    };
    e.judge = [](const attest::Claims& c) {
      attest::Decision d;
      d.add(finding(c.measurement == Bytes(48, 0x11), "charite (data)", "aggregator.measurement", "1111…",
                    base::hex(c.measurement).substr(0, 4)));
      d.add(finding(c.debug == false, "charite (data)", "aggregator.debug", "false",
                    c.debug.value_or(true) ? "true" : "false"));
      d.add(
          finding(c.tcb_status == "up-to-date", "charite (data)", "aggregator.tcb_status", "up-to-date", c.tcb_status));
      d.add(finding(!c.simulated, "charite (data)", "aggregator.simulated", "false", c.simulated ? "true" : "false"));
      return d;
    };
    e.verify = verify_fake;
    return e;
  }

  EnclaveIdentity identity() {
    EnclaveIdentity i{
        .tls = enclave_key,
        .charter = charter,
        .record = record,
        .grant = [this] { return grant_given ? base::copy(base::view(platform_text(granted_platform))) : Bytes(); },
        .attester = tee.attester(),
        .dice_evidence = {},
        .known = known(),
        .launcher_owner = "cloudco",
        .wants_evidence = [this](const std::string&) { return enclave_asks; },
        .judge_peer =
            [this](const std::string& owner, const attest::Claims* claims) {
              attest::Decision d;
              d.add(finding(!enclave_asks || claims != nullptr, "acme (model)", "participants.attested", "true",
                            "no evidence"));
              if (claims)
                d.add(finding(claims->debug == false, "acme (model)", "participants.debug", "false", owner + " true"));
              return d;
            }};
    i.verify = verify_fake;
    return i;
  }

  Known known() {
    return [this](const base::PublicKey& key) -> std::optional<std::string> {
      auto at = charter_keys.find(key);
      return at == charter_keys.end() ? std::nullopt : std::optional(at->second);
    };
  }

  awaitable<ConnectionPtr> accept_one(EnclaveIdentity shown) {
    auto socket = co_await acceptor.async_accept(asio::use_awaitable);
    co_return co_await accept_enclave(std::move(socket), shown, soon(), enclave_log.log);
  }
  awaitable<ConnectionPtr> accept_one_pinned(base::PrivateKey own) {
    auto socket = co_await acceptor.async_accept(asio::use_awaitable);
    co_return co_await accept_pinned(std::move(socket), own, known(), soon(), enclave_log.log);
  }
  awaitable<ConnectionPtr> connect_party() {
    std::optional<attest::Attester> attester;
    if (party_attests) attester = party_tee.attester();
    co_return co_await connect_enclave(endpoint(), party, expectation(), attester, soon(), party_log.log);
  }

  /// Runs until all have ended. What an operation throws is a test failure.
  template <class... Ops>
  void run(Ops... ops) {
    (asio::co_spawn(io, std::move(ops),
                    [](std::exception_ptr e, auto&&...) {
                      if (e) std::rethrow_exception(e);
                    }),
     ...);
    io.restart();
    io.run();
  }
  static awaitable<void> into(Outcome& out, awaitable<ConnectionPtr> op) { out = co_await outcome(std::move(op)); }

  /// The party dials, the enclave accepts.
  std::pair<Outcome, Outcome> meet() {
    Outcome client, server;
    run(into(server, accept_one(identity())), into(client, connect_party()));
    return {std::move(client), std::move(server)};
  }
};

}  // namespace cloister::protocols::channel::tests
