// The attested connection between a party and the enclave: both sides, in wire order (channel.hpp has the diagram).

#include <fmt/format.h>

#include "protocols/channel/connection.hpp"
#include "protocols/launch/documents.hpp"

namespace cloister::protocols::channel {

namespace {

using Framed = std::shared_ptr<FramedConnection>;

// --- The party: is this the enclave that my charter and my policy allow?
// ------------------------------------------------

/// What Hello claims, checked; nothing of it is evidence yet.
struct Claimed {
  attest::Decision decision;
  Bytes record;
  Bytes platform;  // that the grant names
};

Claimed check_hello(const messages::Hello& hello, const EnclaveExpectation& expected, const Tls& tls) {
  Claimed out;
  auto check = [&](bool met, attest::Finding f) {
    f.met = met;
    out.decision.add(std::move(f));
    return met;
  };
  if (!check(hello.version() == 1, unmet("channel.version", "1", std::to_string(hello.version()),
                                         "use a Cloister of the same channel version on both sides")))
    return out;
  const View charter = base::view(hello.charter());
  if (!check(base::equal(charter, expected.charter),
             unmet("channel.charter", base::digest_text(expected.charter),
                   charter.size() == 32 ? base::digest_text(base::array<32>(charter))
                                        : fmt::format("{} bytes", charter.size()),
                   "start the aggregator under this charter, or load the charter that it follows")))
    return out;
  out.record = base::copy(base::view(hello.record()));
  auto key = expected.tls_key(out.record);
  check(key && *key == tls.peer_key(),
        unmet("channel.tls_key", "the TLS key of the instance record, " + (key ? key->text() : key.error().text()),
              tls.peer_key().text(), "somebody between uses another instance's record: dial the enclave itself"));
  auto platform = expected.check_grant(base::view(hello.grant()), out.record);
  check(platform.has_value(),
        unmet("channel.grant", "a grant of the charter's grant key for this instance, in force now",
              platform ? "" : platform.error().text(),
              "let the compute owner's launcher grant this instance, or renew its grant"));
  if (platform) out.platform = std::move(*platform);
  return out;
}

/// The certificate's evidence never authorises. It can refuse early: evidence that is there must fit the record.
attest::Decision check_dice(const Tls& tls, const Claimed& claimed, const EnclaveExpectation& expected) {
  if (tls.peer_dice().empty()) return {};
  auto evidence = unwrap_evidence(tls.peer_dice());
  auto claims = evidence ? expected.verify(*evidence, base::now()) : Result<attest::Claims>(evidence.error());
  const bool met = claims && claims->report_data == launch::instance_report_data(claimed.record) &&
                   claims->platform_text() == base::text(claimed.platform);
  if (met) return {};
  return denial(unmet("channel.certificate_evidence",
                      "instance evidence of the record and of the grant's platform, or none",
                      claims ? "evidence of another instance" : claims.error().text(),
                      "restart the aggregator, so that it makes its certificate anew"));
}

/// Claims that are bound to this connection, or the findings that say why not.
struct Judged {
  attest::Decision decision;
  std::optional<attest::Claims> claims;
};

Judged check_evidence(const FramedConnection& connection, Prover prover, const RequestContext& context, View request,
                      View authenticator, const VerifyEvidence& verify) {
  auto proven = read_authenticator(connection.authenticator_keys(prover), request, context, authenticator,
                                   connection.peer_key(), &connection.peer_certificate());
  if (!proven)
    return {
        denial(unmet("channel.authenticator", "an authenticator made on this connection for this request (RFC 9261)",
                     proven.error().text(), "something between relays or replays: reach the peer directly")),
        {}};
  if (proven->evidence.empty()) return {};
  auto claims = verify(proven->evidence, base::now());
  if (!claims)
    return {denial(unmet("channel.evidence", "evidence that verifies", claims.error().text(),
                         "run the peer in a TEE whose evidence this build verifies")),
            {}};
  const auto wanted = connection.report_data(prover, /*own=*/false, context);
  attest::Finding f =
      unmet("channel.report_data", base::hex(wanted), base::hex(claims->report_data),
            "the evidence was made for another connection: something between relays it; reach the peer directly");
  f.met = base::equal(claims->report_data, wanted);
  return {denial(std::move(f)), std::move(*claims)};
}

/// From the authenticator to the verdict, told to the enclave. Used when connecting and at every renewal.
awaitable<void> judge_enclave(Framed c, Bytes request, RequestContext context, Bytes authenticator, Claimed claimed,
                              const EnclaveExpectation& expected, Deadline deadline, std::shared_ptr<base::Log> log) {
  auto judged = check_evidence(*c, Prover::server, context, request, authenticator, expected.verify);
  auto decision = std::move(claimed.decision);
  decision.add(judged.decision);
  if (!judged.claims && judged.decision.findings.empty())
    decision.add(unmet("channel.evidence", "evidence from the aggregator", "an empty authenticator",
                       "start the aggregator inside a TEE"));
  if (judged.claims) {
    attest::Finding platform = unmet("channel.platform", base::text(claimed.platform) + ", which the grant names",
                                     judged.claims->platform_text(),
                                     "the same binary runs on a machine that the grant does not name: start it through "
                                     "the compute owner's launcher");
    platform.met = !claimed.platform.empty() && judged.claims->platform_text() == base::text(claimed.platform);
    decision.add(std::move(platform));
    const auto owners = expected.judge(*judged.claims);
    decision.add(owners);
    if (owners.findings.empty())  // nothing evaluated is a denial
      decision.add(unmet("aggregator", "a policy that judges the aggregator", "none", "write an [aggregator] section"));
  }
  if (!decision.allowed())
    co_await refuse_and_throw(c, std::move(decision), "the aggregator is not allowed", false, log);
  c->set_claims(std::move(*judged.claims));
  co_await with_deadline(c->send(messages::ACCEPTED, messages::Accepted()), deadline, c->name() + ": sending Accepted");
}

Bytes send_request_bytes(Prover prover, RequestContext& context) {
  context = base::random_array<32>();
  return make_request(prover, context);
}

messages::AuthenticatorRequest request_message(View request) {
  messages::AuthenticatorRequest out;
  out.set_request(base::text(request));
  return out;
}

/// The party proves itself if the enclave asks; then Ready. The enclave's Refusal throws out of the receive.
awaitable<void> await_ready(Framed c, const std::optional<attest::Attester>& attester, Deadline deadline) {
  Frame frame;
  co_await with_deadline(c->receive_raw(frame), deadline, c->name() + ": Ready");
  if (frame.type == messages::AUTHENTICATOR_REQUEST) {
    const auto asked = parse<messages::AuthenticatorRequest>(frame);
    messages::Authenticator answer;
    answer.set_authenticator(
        base::text(c->answer_request(Prover::client, base::view(asked.request()), attester ? &*attester : nullptr)));
    co_await with_deadline(c->send(messages::AUTHENTICATOR, answer), deadline, c->name() + ": sending evidence");
    co_await with_deadline(c->receive_raw(frame), deadline, c->name() + ": Ready");
  }
  if (frame.type != messages::READY)
    throw Exception(base::malformed(c->name(), "got " + type_text(frame.type) + " while waiting for Ready"));
}

void log_attested(base::Log& log, const FramedConnection& c, const std::string& software) {
  const auto& claims = *c.peer_claims();
  log.event("attested",
            "connected to " + tame(software) + " at " + c.name() + (claims.simulated ? " (simulated TEE)" : ""),
            {{"peer", c.name()},
             {"platform", claims.platform_text()},
             {"measurement", base::hex(claims.measurement)},
             {"simulated", claims.simulated}});
}

attest::Decision any_server_key(const base::PublicKey& key) {
  // Which key an enclave has, its record and grant say after the handshake.
  return denial({true, "charter", "channel.tls_key", "the key of a granted instance record", key.text(), ""});
}

}  // namespace

awaitable<ConnectionPtr> connect_enclave(Endpoint to, Credentials own_tls, EnclaveExpectation expected,
                                         std::optional<attest::Attester> attester, Deadline deadline,
                                         std::shared_ptr<base::Log> log) {
  auto socket = co_await dial(to, deadline);
  auto tls = std::make_unique<Tls>(std::move(socket), Tls::Role::client, own_tls, View(), any_server_key, to.text());
  co_await with_deadline(tls->handshake(), deadline, to.text() + ": TLS handshake");
  auto c = std::make_shared<FramedConnection>(std::move(tls), Tls::Role::client, "aggregator");
  // Asked at once, so that Hello and evidence come in one journey; nothing of either counts before both are checked.
  RequestContext context;
  const Bytes request = send_request_bytes(Prover::server, context);
  co_await with_deadline(c->send(messages::AUTHENTICATOR_REQUEST, request_message(request)), deadline,
                         c->name() + ": asking for evidence");
  auto hello = co_await c->expect<messages::Hello>(messages::HELLO, deadline, "Hello");
  Claimed claimed = check_hello(hello, expected, c->tls());
  if (claimed.decision.allowed()) claimed.decision.add(check_dice(c->tls(), claimed, expected));
  if (!claimed.decision.allowed())
    co_await refuse_and_throw(c, claimed.decision, "the aggregator is not the one that the charter and its grant name",
                              false, log);
  c->set_record(claimed.record);
  c->log_to(log);
  auto answer = co_await c->expect<messages::Authenticator>(messages::AUTHENTICATOR, deadline, "Authenticator");
  co_await judge_enclave(c, request, context, base::copy(base::view(answer.authenticator())), std::move(claimed),
                         expected, deadline, log);
  co_await await_ready(c, attester, deadline);
  if (log) log_attested(*log, *c, hello.software());
  co_return c;
}

awaitable<void> attest_again(Connection& connection, const EnclaveExpectation& expected, Deadline deadline) {
  Framed c = dynamic_cast<FramedConnection&>(connection).shared_from_this();
  RequestContext context;
  const Bytes request = send_request_bytes(Prover::server, context);
  co_await with_deadline(c->send(messages::AUTHENTICATOR_REQUEST, request_message(request)), deadline,
                         c->name() + ": asking for evidence again");
  std::optional<messages::Hello> hello;
  for (;;) {
    Frame frame;
    co_await with_deadline(c->receive_raw(frame), deadline, c->name() + ": evidence again");
    if (frame.type == messages::HELLO && !hello) {
      hello = parse<messages::Hello>(frame);
    } else if (frame.type == messages::AUTHENTICATOR && hello) {
      Claimed claimed = check_hello(*hello, expected, c->tls());
      attest::Finding same =
          unmet("channel.record", "the record of this connection's start", "another one", "connect again");
      same.met = claimed.record == c->record();
      claimed.decision.add(std::move(same));
      const auto answer = parse<messages::Authenticator>(frame);
      co_return co_await judge_enclave(c, request, context, base::copy(base::view(answer.authenticator())),
                                       std::move(claimed), expected, deadline, c->log());
    } else {
      c->keep(std::move(frame));
    }
  }
}

// --- The enclave
// --------------------------------------------------------------------------------------------------------

namespace {

/// Hello, then the party's question and verdict. A party's Refusal throws out of the receive.
awaitable<void> prove_to_party(Framed c, std::shared_ptr<const EnclaveIdentity> identity, Bytes grant,
                               Deadline deadline) {
  messages::Hello hello;
  hello.set_version(1);
  hello.set_charter(base::text(identity->charter));
  hello.set_record(base::text(identity->record));
  hello.set_grant(base::text(grant));
  hello.set_software(identity->software);
  co_await with_deadline(c->send(messages::HELLO, hello), deadline, c->name() + ": sending Hello");
  const auto asked = co_await c->expect<messages::AuthenticatorRequest>(messages::AUTHENTICATOR_REQUEST, deadline,
                                                                        "AuthenticatorRequest");
  messages::Authenticator answer;
  answer.set_authenticator(
      base::text(c->answer_request(Prover::server, base::view(asked.request()), &identity->attester)));
  co_await with_deadline(c->send(messages::AUTHENTICATOR, answer), deadline, c->name() + ": sending evidence");
  co_await c->expect<messages::Accepted>(messages::ACCEPTED, deadline, "Accepted");
}

/// The charter's verdict on the party, with its evidence when it must prove itself.
awaitable<void> judge_party(Framed c, std::shared_ptr<const EnclaveIdentity> identity, Deadline deadline,
                            std::shared_ptr<base::Log> log) {
  Judged judged;
  const bool wanted = identity->wants_evidence(c->peer_owner());
  if (wanted) {
    RequestContext context;
    const Bytes request = send_request_bytes(Prover::client, context);
    co_await with_deadline(c->send(messages::AUTHENTICATOR_REQUEST, request_message(request)), deadline,
                           c->name() + ": asking for evidence");
    const auto answer = co_await c->expect<messages::Authenticator>(messages::AUTHENTICATOR, deadline, "Authenticator");
    judged = check_evidence(*c, Prover::client, context, request, base::view(answer.authenticator()), identity->verify);
    if (!judged.decision.findings.empty() && !judged.decision.allowed())
      co_await refuse_and_throw(c, judged.decision, "the evidence of " + c->peer_owner() + " does not hold", false,
                                log);
  }
  auto decision = identity->judge_peer(c->peer_owner(), judged.claims ? &*judged.claims : nullptr);
  if (wanted && !judged.claims && decision.allowed())  // asked for and absent: no policy may overlook it
    decision.add(unmet("channel.evidence", "evidence from " + c->peer_owner(), "none", "run it in a TEE"));
  if (!decision.allowed())
    co_await refuse_and_throw(c, std::move(decision), c->peer_owner() + " is not allowed", false, log);
  if (judged.claims) c->set_claims(std::move(*judged.claims));
  co_await with_deadline(c->send(messages::READY, messages::Ready()), deadline, c->name() + ": sending Ready");
}

}  // namespace

awaitable<ConnectionPtr> accept_enclave(tcp::socket socket, std::shared_ptr<const EnclaveIdentity> identity,
                                        Deadline deadline, std::shared_ptr<base::Log> log) {
  const Bytes dice = identity->dice_evidence.empty() ? Bytes() : wrap_evidence(identity->dice_evidence);
  auto c = co_await accept_tls(std::move(socket), identity->tls, dice, identity->known, deadline, log);
  if (c->peer_owner() == identity->launcher_owner) {
    co_await with_deadline(c->send(messages::READY, messages::Ready()), deadline, c->name() + ": sending Ready");
    co_return c;
  }
  const Bytes grant = identity->grant();
  if (grant.empty()) {
    co_await refuse_and_throw(c,
                              denial(unmet("channel.grant", "a grant in force", "none yet",
                                           "wait until the launcher has granted this instance")),
                              "this instance has no grant yet", /*retry=*/true, log);
  }
  c->set_record(identity->record);
  try {
    co_await prove_to_party(c, identity, grant, deadline);
  } catch (const Refused& refused) {
    if (log && refused.by_peer())
      log->event("refused_by_peer", c->peer_owner() + " refused this aggregator: " + refused.what(),
                 {{"peer", c->peer_owner()}});
    throw;
  }
  co_await judge_party(c, identity, deadline, log);
  c->answer_from(identity);
  co_return c;
}

}  // namespace cloister::protocols::channel
