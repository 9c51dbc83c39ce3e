// The aggregator and one member of the cohort: its answer, its download, its update.

#include <fmt/format.h>

#include "protocols/round/aggregator_state.hpp"

namespace cloister::protocols::round {

using base::Sha256;

namespace {

attest::Finding unmet(std::string owner, std::string requirement, std::string wanted, std::string found,
                      std::string remedy) {
  return {false, std::move(owner), std::move(requirement), std::move(wanted), std::move(found), std::move(remedy)};
}

std::string digest_of(const std::string& bytes) {
  return bytes.size() == 32 ? base::digest_text(base::array<32>(base::view(bytes)))
                            : fmt::format("{} bytes", bytes.size());
}

}  // namespace

void Aggregator::Impl::accept(const std::string& owner, const messages::Accept& message) {
  if (message.round() > round) return unexpected(owner, fmt::format("Accept of round {}", message.round()));
  Member& m = member(owner);
  if (message.round() < round || phase != Phase::collecting) return;  // crossed the close on its way
  if (m.progress == Progress::offered) set(owner, task.task == "statistics" ? Progress::training : Progress::accepted);
}

void Aggregator::Impl::decline(const std::string& owner, const messages::Decline& message) {
  if (message.round() > round) return unexpected(owner, fmt::format("Decline of round {}", message.round()));
  if (message.round() < round) return;
  attest::Decision decision;
  decision.findings = refusals(message.findings());
  if (phase == Phase::witnessing) {
    member(owner).reason = peer_text("does not witness: " + message.reason());
    changed = true;
    out.emplace_back(LogRefusal{fmt::format("receipt of round {} by {}", round, owner), std::move(decision)});
    return;
  }
  if (phase != Phase::collecting || !may_still_contribute(member(owner).progress)) return;
  out.emplace_back(LogRefusal{fmt::format("offer of round {} by {}", round, owner), std::move(decision)});
  drop_slot(owner);
  set(owner, Progress::declined, peer_text(message.reason()));
  close_if_ready();
}

void Aggregator::Impl::request_model(const std::string& owner, const messages::ModelRequest& message) {
  // By rule: "Download of the model to the cohort, only of a committed one (or the charter's initial one)". `model`
  // is never anything else; the final one goes to the cohort when the run is done.
  const bool final_one = phase == Phase::finished && outcome == Outcome::done &&
                         member(owner).progress != Progress::withdrawn && publish_model > 0;
  const Progress p = member(owner).progress;
  const bool working = phase == Phase::collecting && p >= Progress::accepted && p < Progress::stored;
  if (!working && !final_one) {
    if (phase == Phase::collecting && p < Progress::accepted) unexpected(owner, "ModelRequest before Accept");
    return;  // crossed the close on its way: the receipt answers
  }
  if (!model || base::text(*model) != message.model() || message.offset() > setup.model_length)
    return unexpected(owner,
                      fmt::format("ModelRequest for {} from byte {}", digest_of(message.model()), message.offset()));
  if (working) set(owner, Progress::downloading);
  out.emplace_back(SendModel{owner, *model, message.offset()});
}

std::uint64_t Aggregator::Impl::weight_bound(const std::string& owner, std::string& whose,
                                             std::string& requirement) const {
  if (task.task != "train") {
    whose = "charter", requirement = "weight of a task that does not train";
    return 1;
  }
  whose = "charter", requirement = "aggregation.weight_at_most";
  std::uint64_t most = charter.manifest.weight_at_most;
  const attest::Policy* policy = charter.policy(owner);
  const attest::DataPolicy* data = policy == nullptr ? nullptr : policy->data();
  if (data == nullptr) return 0;
  if (data->records_at_most < most) {
    most = data->records_at_most;
    whose = policy->owner_text(), requirement = "data.records.at_most";
  }
  return most;
}

attest::Decision Aggregator::Impl::judge_update(const std::string& owner, const messages::Update& u) const {
  attest::Decision d;
  auto check = [&](bool met, std::string whose, std::string requirement, std::string wanted, std::string found,
                   std::string remedy) {
    attest::Finding f =
        unmet(std::move(whose), std::move(requirement), std::move(wanted), std::move(found), std::move(remedy));
    f.met = met;
    d.add(std::move(f));
  };
  check(u.run() == setup.order.run, "charter", "update.run", std::to_string(setup.order.run), std::to_string(u.run()),
        "send the update of the run that was offered");
  check(u.round() == round, "charter", "update.round", std::to_string(round), std::to_string(u.round()),
        "send the update of the round that is open");
  check(u.schema() == base::text(shape().schema), "charter", "update.schema", base::digest_text(shape().schema),
        digest_of(u.schema()), "use the trainer that the charter names");
  check(u.length() == shape().length, "charter", "update.length", std::to_string(shape().length),
        std::to_string(u.length()), "use the trainer that the charter names");
  check(u.digest().size() == 32, "charter", "update.digest", "32 bytes", fmt::format("{} bytes", u.digest().size()),
        "announce SHA-256 of the update");
  std::string whose, requirement;
  const std::uint64_t most = weight_bound(owner, whose, requirement);
  // The weight is a number of records: the refusal names the check, not the value (docs/threat-model.md).
  check(u.weight() >= 1 && u.weight() <= most, whose, requirement, fmt::format("1 to {}", most),
        u.weight() == 0      ? "0"
        : u.weight() <= most ? "within"
                             : "more",
        "train on fewer records, or raise the bound in a new charter");
  return d;
}

void Aggregator::Impl::announce(const std::string& owner, const messages::Update& u) {
  Member& m = member(owner);
  auto answer = [&](const attest::Decision& decision) {
    messages::UpdateRefused refused;
    refused.set_round(u.round());
    refused.set_reason(decision.explain());
    for (const attest::Finding& f : decision.refusals()) *refused.add_findings() = to_message(f);
    send(owner, std::move(refused));
    out.emplace_back(LogRefusal{fmt::format("update of round {} from {}", u.round(), owner), decision});
  };
  if (phase != Phase::collecting || m.progress == Progress::late || (u.run() == setup.order.run && u.round() < round)) {
    return answer({{unmet("charter", "update in time", fmt::format("before round {} closed", u.round()), "late",
                          "nothing: the round goes on without it")}});
  }
  if (m.progress < Progress::accepted) return unexpected(owner, "Update before Accept");
  if (m.update) {  // By rule: "twice counts once"
    if (u.run() != setup.order.run || u.round() != round || u.digest() != base::text(*m.update))
      return answer({{unmet("charter", "one update per round", base::digest_text(*m.update),
                            "another: " + digest_of(u.digest()), "send the update that was announced first")}});
    if (m.progress == Progress::stored) {
      messages::UpdateStored done;
      done.set_round(round);
      done.set_digest(base::text(*m.update));
      return send(owner, std::move(done));
    }
  }
  if (!may_still_contribute(m.progress))
    return answer({{unmet("charter", "one answer per round", "no update after " + std::string(name(m.progress)),
                          "an update", "wait for the next round")}});
  attest::Decision decision = judge_update(owner, u);
  if (!decision.allowed()) {
    set(owner, Progress::refused, peer_text(decision.refusals().front().text()));
    answer(decision);
    return close_if_ready();
  }
  m.update = base::array<32>(base::view(u.digest()));
  m.weight = u.weight();
  m.slot = true;
  set(owner, Progress::uploading);
  peers[owner].upload = {round, *m.update, u.length(), 0, true, false};
  out.emplace_back(OpenSlot{owner, round, *m.update, u.length()});
}

void Aggregator::Impl::slot_open(const std::string& owner, std::uint64_t offset) {
  Upload& upload = peers[owner].upload;
  if (member(owner).progress != Progress::uploading || !upload.wanted)
    return;  // gone meanwhile: it will announce again
  upload.offset = offset;
  upload.wanted = false;
  upload.resumed = true;
  messages::Resume resume;
  resume.set_round(round);
  resume.set_offset(offset);
  send(owner, std::move(resume));
}

void Aggregator::Impl::transfer(const std::string& owner, const messages::Transfer& t) {
  Upload& upload = peers[owner].upload;
  const bool matches = t.what() == "update" && t.digest() == base::text(upload.digest) && t.length() == upload.length &&
                       t.offset() == upload.offset;
  if (!upload.resumed || !matches)
    return unexpected(owner, fmt::format("Transfer of {} from byte {}", peer_text(t.what()), t.offset()));
  upload.resumed = false;
  const std::uint64_t rest = upload.length - upload.offset;
  if (phase == Phase::collecting && upload.round == round && member(owner).progress == Progress::uploading)
    out.emplace_back(Receive{owner, round, upload.offset, rest});
  else
    out.emplace_back(Swallow{owner, rest});
}

void Aggregator::Impl::staged(const std::string& owner, const Sha256& digest) {
  Member& m = member(owner);
  if (m.progress != Progress::uploading || !m.update) return;
  if (digest != *m.update)
    return refuse_update(owner, unmet("charter", "update.digest", base::digest_text(*m.update),
                                      base::digest_text(digest), "send the bytes that were announced"));
  m.slot = false;
  set(owner, Progress::stored);
  out.emplace_back(Add{owner, round, m.weight});
  messages::UpdateStored done;
  done.set_round(round);
  done.set_digest(base::text(digest));
  send(owner, std::move(done));
  close_if_ready();
}

void Aggregator::Impl::refuse_update(const std::string& owner, attest::Finding finding) {
  if (member(owner).progress != Progress::uploading) return;
  finding.met = false;
  drop_slot(owner);
  set(owner, Progress::refused, peer_text(finding.text()));
  messages::UpdateRefused refused;
  refused.set_round(round);
  refused.set_reason(finding.text());
  *refused.add_findings() = to_message(finding);
  send(owner, std::move(refused));
  out.emplace_back(LogRefusal{fmt::format("update of round {} from {}", round, owner), {{std::move(finding)}}});
  close_if_ready();
}

void Aggregator::Impl::withdraw(const std::string& owner, View statement) {
  auto w = Withdrawal::parse(statement);
  Result<void> ok = w ? w->verify(charter) : Result<void>(w.error());
  if (ok && w->owner != owner)
    ok = base::untrusted("withdrawal", fmt::format("wanted one of {}, found one of {}", owner, w->owner));
  if (!ok) return unexpected(owner, ok.error().text());
  auto [it, fresh] = withdrawn.try_emplace(owner, *w);
  if (!fresh) {
    if (w->serial > it->second.serial) it->second = *w;
    return;
  }
  // By rule: "the next round runs without that hospital". What it gave before stays; what it has not given, it keeps.
  if (phase == Phase::collecting && may_still_contribute(member(owner).progress)) {
    drop_slot(owner);
    set(owner, Progress::declined, "withdrew after the offer");
    close_if_ready();
  }
}

}  // namespace cloister::protocols::round
