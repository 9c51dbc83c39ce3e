#include "launcher/agent.hpp"

#include <algorithm>
#include <fmt/format.h>

#include "attest/evidence.hpp"

namespace cloister::launcher {

namespace launch = protocols::launch;
using attest::Charter;
using attest::Decision;

namespace {

// The owner's identity: what a charter must name alike, so that its signatures are this owner's.
bool same_owner(const attest::Party& a, const attest::Party& b) {
  return a.owner == b.owner && a.tls == b.tls && a.grant == b.grant && a.signers_at_least == b.signers_at_least &&
         a.signers == b.signers;
}

Result<void> fits(const Agent::Identity& self, const Charter& charter, const Charter& first) {
  const attest::Party& party = charter.manifest.compute_owner();
  const std::string where = "charter " + base::digest_text(charter.digest);
  if (party.tls != self.tls)
    return base::untrusted(where, fmt::format("names the launcher's TLS key {}, and this launcher has {}",
                                              party.tls.text(), self.tls.text()));
  if (party.grant != self.grant.public_key())
    return base::untrusted(where,
                           fmt::format("names the grant key {}, and this launcher has {}",
                                       party.grant ? party.grant->text() : "(none)", self.grant.public_key().text()));
  const attest::Party& other = first.manifest.compute_owner();
  if (!same_owner(party, other) || party.host != other.host || party.port != other.port)
    return base::malformed(
        where, fmt::format("names {} at {}:{} and {} names {} at {}:{}; one launcher serves one owner at one address",
                           party.owner, party.host, party.port, base::digest_text(first.digest), other.owner,
                           other.host, other.port));
  return {};
}

}  // namespace

Result<Agent> Agent::make(Identity self, std::vector<Charter> charters, std::vector<Binary> binaries) {
  if (charters.empty()) return base::malformed("charters", "wanted at least one founded charter");
  std::vector<std::shared_ptr<const Charter>> held;
  for (Charter& c : charters) held.push_back(std::make_shared<const Charter>(std::move(c)));
  for (const auto& c : held)
    if (auto ok = fits(self, *c, *held.front()); !ok) return ok.error();
  return Agent(std::move(self), std::move(held), std::move(binaries));
}

bool Agent::simulated() const {
  return std::any_of(charters_.begin(), charters_.end(), [](const auto& c) { return attest::is_simulated(*c); });
}

std::chrono::milliseconds Agent::channel_deadline() const {
  std::chrono::milliseconds out{};
  for (const auto& c : charters_) out = std::max(out, c->manifest.channel_deadline);
  return out;
}

std::optional<std::string> Agent::known(const base::PublicKey& tls) const {
  for (const auto& c : charters_)
    if (const attest::Party& p = c->manifest.model_owner(); p.tls == tls) return p.owner;
  return {};
}

bool Agent::holds(const Charter& charter) const {
  return std::any_of(charters_.begin(), charters_.end(), [&](const auto& c) { return c->digest == charter.digest; });
}

// Whoever writes a manifest chooses the signers in it; these are ours only when a charter that we hold names the same.
bool Agent::signed_by_own_owner(const Charter& charter) const {
  return same_owner(charter.manifest.compute_owner(), party()) &&
         charter.manifest.compute_owner().host == party().host && charter.manifest.compute_owner().port == party().port;
}

const Binary* Agent::find(View measurement) const {
  const auto at = std::find_if(binaries_.begin(), binaries_.end(),
                               [&](const Binary& b) { return base::equal(b.measurement, measurement); });
  return at == binaries_.end() ? nullptr : &*at;
}

Admission Agent::admit(const Request& request, Time now) const {
  Admission out;
  const std::string us = owner_text();
  auto parsed = attest::parse_charter(request.charter, "charter of the launch request");
  if (!parsed) {
    out.decision.add(
        {false, us, "launch.charter", "a charter that parses", parsed.error().text(), "send the founded charter"});
    return out;
  }
  out.charter = std::make_shared<const Charter>(std::move(*parsed));
  const Charter& charter = *out.charter;
  out.decision.add(
      {holds(charter) || signed_by_own_owner(charter), us, "launch.charter",
       fmt::format("a charter that this launcher holds, or one that names {} with the same keys and signers", owner()),
       base::digest_text(charter.digest), "add the charter's file to launcher.toml"});
  const base::PublicKey& model_owner = charter.manifest.model_owner().tls;
  out.decision.add({request.requester == model_owner, us, "launch.requester",
                    "the charter's model owner, " + model_owner.text(), request.requester.text(),
                    "ask from the coordinator that the charter names"});
  const Decision founded = attest::founded(charter, now);
  out.decision.add(founded);
  const attest::Policy* policy = charter.policy(charter.manifest.compute_owner().owner);
  attest::Study study{.charter = charter, .at = now};
  study.launch = request.launch;
  if (policy != nullptr) out.decision.add(attest::judge(nullptr, study, *policy));
  out.binary = find(request.launch.measurement);
  out.decision.add({out.binary != nullptr, us, "launch.aggregator", base::hex(request.launch.measurement),
                    fmt::format("{} programs, none of which measures that", binaries_.size()),
                    "install the build that the charter names and list it in launcher.toml"});
  return out;
}

Launch Agent::prepare(const Admission& admitted, const Request& request, const Array<32>& nonce) {
  Launch out;
  out.charter = admitted.charter;
  out.binary = *admitted.binary;
  const attest::Manifest& m = admitted.charter->manifest;
  out.document = {base::copy(request.charter), nonce,
                  request.launch.memory,       request.launch.connections,
                  request.launch.duration,     request.launch.measurement,
                  m.aggregator_host,           m.aggregator_port};
  out.document_bytes = out.document.serialize();
  out.host_data = attest::host_data_for(admitted.charter->digest, out.document_bytes);
  return out;
}

Judged Agent::judge_instance(const Launch& launched, View record, View evidence, const base::PublicKey& tls,
                             Time now) const {
  Judged out;
  auto claims = attest::verify_evidence(evidence, now);
  if (!claims) {
    out.decision.add({false, owner_text(), "instance.evidence", "evidence that verifies", claims.error().text(),
                      "start the instance in a TEE whose evidence verifies"});
    return out;
  }
  out.claims = std::move(*claims);
  out.decision.add(launch::judge_instance(
      {owner_text(), launched.charter->digest, launched.document.nonce, launched.host_data, tls}, record, *out.claims));
  out.decision.add(judge_renewal(launched, *out.claims, now));
  return out;
}

Decision Agent::judge_renewal(const Launch& launched, const attest::Claims& claims, Time now) const {
  attest::Study study{.charter = *launched.charter, .at = now};
  study.host_data = launched.host_data;
  // admit() saw that the charter names this owner, and a charter has a policy for each of its parties.
  return attest::judge(&claims, study, *launched.charter->policy(owner()));
}

launch::Grant Agent::grant(const Launch& launched, View record, const attest::Claims& claims, Time now,
                           Time ends) const {
  launch::Grant g;
  g.record = base::sha256(record);
  g.platform = claims.platform_text();
  g.host_data = launched.host_data;
  g.not_before = now - std::chrono::minutes(1);
  g.not_after = std::min(
      {now + std::chrono::floor<std::chrono::seconds>(self_.grant_lifetime), ends, launched.charter->not_after});
  return launch::sign_grant(std::move(g), self_.grant);
}

}  // namespace cloister::launcher
