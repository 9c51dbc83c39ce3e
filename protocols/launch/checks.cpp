#include "protocols/launch/checks.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <fmt/ranges.h>

namespace cloister::protocols::launch {
namespace {

using attest::Decision;
using attest::Finding;

constexpr std::string_view agreed = "charter";  // the owner of what all owners signed

Finding unreadable(std::string requirement, const Error& e) {
  return {false,
          std::string(agreed),
          std::move(requirement),
          "a document that parses",
          e.text(),
          "use the same version of Cloister on both sides"};
}

// By rule: "The peer checks the charter's grant key"
Finding signed_by_launcher(const attest::Charter& charter, const Grant& grant) {
  const auto& key = charter.manifest.compute_owner().grant;
  return {key && key->verifies("cloister grant v1", grant.signed_bytes(), grant.signature),
          std::string(agreed),
          "grant.signature",
          fmt::format("a signature by {}'s grant key {}", charter.manifest.compute_owner().owner,
                      key ? key->text() : "(none)"),
          "a signature that this key did not make",
          "have the charter's launcher grant this instance"};
}

// "… that the record's TLS key is the one it is talking to": the channel compares tls_key() with the handshake's.
Finding for_this_record(const Grant& grant, View record) {
  const auto digest = base::sha256(record);
  return {grant.record == digest,
          std::string(agreed),
          "grant.record",
          base::digest_text(digest),
          base::digest_text(grant.record),
          "ask the launcher for this instance's grant; this one belongs to another"};
}

Finding for_this_charter(const attest::Charter& charter, const Record& record) {
  return {record.charter == charter.digest,
          std::string(agreed),
          "record.charter",
          base::digest_text(charter.digest),
          base::digest_text(record.charter),
          "launch an instance under this charter"};
}

// "… not_after on its own clock"
Finding in_time(const Grant& grant, Time now) {
  return {grant.not_before <= now && now <= grant.not_after,
          std::string(agreed),
          "grant.not_after",
          fmt::format("a grant in force at {}", base::text(now)),
          fmt::format("one from {} until {}", base::text(grant.not_before), base::text(grant.not_after)),
          "wait for the launcher to renew it, or compare the clocks"};
}

// "… and that the platform identity is one the compute owner's policy lists"
Finding on_listed_platform(const attest::Charter& charter, const Grant& grant) {
  const std::string& owner = charter.manifest.compute_owner().owner;
  const attest::Policy* policy = charter.policy(owner);
  const auto platforms =
      policy && policy->aggregator.platforms ? *policy->aggregator.platforms : std::vector<std::string>{};
  return {
      std::find(platforms.begin(), platforms.end(), grant.platform) != platforms.end(),
      policy ? policy->owner_text() : owner + " (compute)",
      "aggregator.platforms",
      platforms.empty() ? "a listed platform; none is listed" : fmt::format("one of {}", fmt::join(platforms, ", ")),
      grant.platform,
      "start the instance on a listed platform, or found a charter that lists this one"};
}

Error::Kind kind(const Decision& decision) {
  const auto refusals = decision.refusals();
  const auto all = [&](std::string_view requirement) {
    return std::all_of(refusals.begin(), refusals.end(),
                       [&](const Finding& f) { return f.requirement == requirement; });
  };
  if (all("grant.not_after")) return Error::Kind::expired;
  return all("aggregator.platforms") ? Error::Kind::denied : Error::Kind::untrusted;
}

template <std::size_t N>
Finding bound(const ExpectedInstance& e, std::string requirement, const Array<N>& wanted, const Array<N>& found,
              std::string remedy) {
  return {wanted == found, e.owner, std::move(requirement), base::hex(wanted), base::hex(found), std::move(remedy)};
}

}  // namespace

Decision judge_grant(const attest::Charter& charter, View grant, View record, Time now) {
  Decision out;
  const auto g = Grant::parse(grant);
  const auto r = Record::parse(record);
  if (!g) out.add(unreadable("grant", g.error()));
  if (!r) out.add(unreadable("record", r.error()));
  if (r) out.add(for_this_charter(charter, *r));
  if (!g) return out;
  out.add(signed_by_launcher(charter, *g));
  out.add(for_this_record(*g, record));
  out.add(in_time(*g, now));
  out.add(on_listed_platform(charter, *g));
  return out;
}

Result<Grant> verify_grant(const attest::Charter& charter, View grant, View record, Time now) {
  auto parsed = Grant::parse(grant);
  if (!parsed) return parsed.error();
  if (auto r = Record::parse(record); !r) return r.error();
  const Decision decision = judge_grant(charter, grant, record, now);
  if (!decision.allowed()) return Error{kind(decision), "grant", decision.explain()};
  return parsed;
}

Result<Bytes> check_grant(const attest::Charter& charter, View grant, View record, Time now) {
  auto verified = verify_grant(charter, grant, record, now);
  if (!verified) return verified.error();
  return base::copy(base::view(verified->platform));
}

Result<base::PublicKey> tls_key(View record) {
  auto parsed = Record::parse(record);
  if (!parsed) return parsed.error();
  return parsed->tls;
}

Decision judge_instance(const ExpectedInstance& expected, View record, const attest::Claims& claims) {
  Decision out;
  const auto r = Record::parse(record);
  if (!r) {
    out.add({false, expected.owner, "instance.record", "a record that parses", r.error().text(),
             "start the aggregator that the charter names"});
    return out;
  }
  out.add(bound(expected, "instance.record.charter", expected.charter, r->charter, "start it with this charter"));
  out.add(bound(expected, "instance.record.nonce", expected.nonce, r->nonce, "answer with the record of this launch"));
  out.add({r->tls == expected.tls, expected.owner, "instance.record.tls", expected.tls.text(), r->tls.text(),
           "the instance that answers must be the one in the record"});
  out.add(bound(expected, "instance.evidence.report_data", instance_report_data(record), claims.report_data,
                "make the evidence over this record"));
  out.add(bound(expected, "instance.evidence.host_data", expected.host_data, claims.host_data,
                "start the TEE with this launch's host data"));
  return out;
}

}  // namespace cloister::protocols::launch
