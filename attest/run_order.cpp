#include "attest/run_order.hpp"

#include <bit>
#include <fmt/format.h>

#include "base/encoding.hpp"

namespace cloister::attest {

using base::malformed;
using base::unsupported;

namespace {

using base::Reader;
using base::Writer;

constexpr std::size_t largest_order = 64 * 1024;
constexpr std::string_view submission_format = "cloister submission 1";
constexpr std::string_view order_format = "cloister run order 1";

Bytes ordered_bytes(const RunOrder& o) {
  return Writer().u64(o.run).field(o.submission()).raw(o.submitted).bytes();
}

const Submitter* find_submitter(const Charter& charter, const std::string& name) {
  const Policy* policy = charter.policy(charter.manifest.model_owner().owner);
  for (const Submitter& s : policy->model()->submitters)
    if (s.name == name) return &s;
  return nullptr;
}

Finding of_charter(bool met, std::string requirement, std::string wanted, std::string found, std::string remedy) {
  return {met, "charter", std::move(requirement), std::move(wanted), std::move(found), std::move(remedy)};
}

}  // namespace

Bytes RunOrder::submission() const {
  Writer w;
  w.field(submission_format).raw(charter).field(submitter).u32(static_cast<std::uint32_t>(settings.size()));
  for (const auto& [name, value] : settings) w.field(name).u64(std::bit_cast<std::uint64_t>(value));
  w.raw(nonce).field(note);
  return std::move(w).bytes();
}

void RunOrder::submit(const base::PrivateKey& key) {
  submitted = key.sign(submission_format, submission());
}

void RunOrder::number(std::uint64_t run_number, const base::PrivateKey& order) {
  run = run_number;
  ordered = order.sign(order_format, ordered_bytes(*this));
}

Bytes RunOrder::serialize() const {
  return Writer().field(order_format).u64(run).field(submission()).raw(submitted).raw(ordered).bytes();
}

Result<RunOrder> RunOrder::parse_submission(View bytes) {
  if (bytes.size() > largest_order) return malformed("submission", fmt::format("larger than {} bytes", largest_order));
  Reader r("submission", bytes);
  if (const std::string format = r.string("format", 64); r.ok() && format != submission_format)
    return unsupported("submission", fmt::format("wanted \"{}\", found \"{}\"", submission_format, format));
  RunOrder out;
  out.charter = r.array<32>("charter");
  out.submitter = r.string("submitter", 64);
  if (r.ok() && !valid_name(out.submitter)) r.fail("submitter", "wanted a name of a-z, 0-9 and -");
  std::string last;
  for (std::uint32_t n = r.u32("settings"); n > 0 && r.ok(); --n) {
    std::string name = r.string("setting", 64);
    if (name <= last) r.fail("settings", "must be sorted by name, no two alike");
    out.settings[name] = std::bit_cast<double>(r.u64("setting's value"));
    last = std::move(name);
  }
  out.nonce = r.array<16>("nonce");
  out.note = r.string("note", 4096);
  if (auto done = r.finish(); !done) return done.error();
  return out;
}

Result<RunOrder> RunOrder::parse(View bytes) {
  if (bytes.size() > largest_order) return malformed("run order", fmt::format("larger than {} bytes", largest_order));
  Reader r("run order", bytes);
  if (const std::string format = r.string("format", 64); r.ok() && format != order_format)
    return unsupported("run order", fmt::format("wanted \"{}\", found \"{}\"", order_format, format));
  const std::uint64_t run = r.u64("run");
  RunOrder out;
  const View submission = r.field("submission", largest_order);
  if (r.ok()) {
    auto parsed = parse_submission(submission);
    if (!parsed) return parsed.error();
    out = *std::move(parsed);
    out.run = run;
  }
  out.submitted = r.array<64>("submitted");
  out.ordered = r.array<64>("ordered");
  if (auto done = r.finish(); !done) return done.error();
  return out;
}

Decision judge_submission(const RunOrder& order, const Charter& charter,
                          std::optional<std::uint32_t> submitted_before) {
  Decision d;
  d.add(of_charter(order.charter == charter.digest, "charter", base::digest_text(charter.digest),
                   base::digest_text(order.charter), "submit again under the charter in force"));
  const std::string owner = charter.policy(charter.manifest.model_owner().owner)->owner_text();
  const Submitter* s = find_submitter(charter, order.submitter);
  d.add({s != nullptr, owner, "submitters", "a submitter that it names", order.submitter,
         "have the model owner name this submitter and its key in a new charter"});
  if (s != nullptr) {
    const bool is_signed = s->key.verifies(submission_format, order.submission(), order.submitted);
    d.add({is_signed, owner, fmt::format("submitters.{}.key", s->name), "a signature by " + s->key.text(),
           is_signed ? "it" : "one that does not verify", "sign with the key that the policy names"});
    if (submitted_before)
      d.add({*submitted_before < s->runs_at_most, owner, fmt::format("submitters.{}.runs_at_most", s->name),
             fmt::format("at most {}", s->runs_at_most), fmt::format("{}", *submitted_before + 1),
             "the quota is spent: ask the model owner for a new charter"});
  }
  const auto settings = complete_settings(charter.manifest, order.settings);
  d.add(of_charter(settings.has_value(), "settings", "settings inside the manifest's ranges",
                   settings ? "those" : settings.error().what,
                   "choose other settings, or found a charter with other ranges"));
  return d;
}

Decision judge_order(const RunOrder& order, const Charter& charter, std::optional<std::uint32_t> submitted_before) {
  Decision d = judge_submission(order, charter, submitted_before);
  const base::PublicKey& key = *charter.manifest.model_owner().order;
  const bool is_signed = key.verifies(order_format, ordered_bytes(order), order.ordered);
  d.add(of_charter(is_signed, "order", "a signature by " + key.text(), is_signed ? "it" : "one that does not verify",
                   "have the model owner's coordinator order the run"));
  d.add(of_charter(order.run >= 1 && order.run <= charter.manifest.runs, "runs.at_most",
                   fmt::format("a run from 1 to {}", charter.manifest.runs), fmt::format("run {}", order.run),
                   "found a successor that covers more runs"));
  return d;
}

}  // namespace cloister::attest
