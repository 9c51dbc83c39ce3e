#include "protocols/round/receipt.hpp"

#include <algorithm>
#include <bit>
#include <fmt/format.h>
#include <map>

#include "base/encoding.hpp"
#include "base/log.hpp"

namespace cloister::protocols::round {

using base::Reader;
using base::Sha256;
using base::Writer;

namespace {

constexpr std::string_view receipt_version = "cloister receipt 2";
constexpr std::string_view acknowledgement_version = "cloister acknowledgement 1";
constexpr std::string_view withdrawal_version = "cloister withdrawal 1";

// Caps before anything is parsed: far above what a charter can name, far below what would hurt.
constexpr std::size_t receipt_cap = 1 << 20;
constexpr std::size_t statement_cap = 4096;
constexpr std::size_t text_cap = 1024;
constexpr std::size_t settings_cap = 256;

void put(Writer& w, const std::optional<Sha256>& digest) {
  w.u8(digest ? 1 : 0);
  if (digest) w.raw(*digest);
}

void put(Writer& w, const std::optional<double>& number) {
  w.u8(number ? 1 : 0);
  if (number) w.u64(std::bit_cast<std::uint64_t>(*number));
}

bool flag(Reader& r, std::string_view field) {
  const std::uint8_t v = r.u8(field);
  if (v > 1) r.fail(field, "wanted 0 or 1, found " + std::to_string(v));
  return v == 1;
}

std::optional<Sha256> optional_digest(Reader& r, std::string_view field) {
  if (!flag(r, field)) return std::nullopt;
  return r.array<32>(field);
}

std::optional<double> optional_number(Reader& r, std::string_view field) {
  if (!flag(r, field)) return std::nullopt;
  return std::bit_cast<double>(r.u64(field));
}

void version(Reader& r, std::string_view wanted) {
  const std::string found = r.string("version", 64);
  if (r.ok() && found != wanted)
    r.fail("version", fmt::format("wanted \"{}\", found {}", wanted, base::json_escape(found)));
}

attest::Settings settings(Reader& r) {
  const std::uint32_t count = r.u32("settings");
  if (count > settings_cap) r.fail("settings", fmt::format("at most {}, found {}", settings_cap, count));
  attest::Settings out;
  for (std::uint32_t i = 0; i < count && r.ok(); ++i) {
    std::string key = r.string("setting.name", text_cap);
    const double value = std::bit_cast<double>(r.u64("setting.value"));
    if (r.ok() && !out.empty() && out.rbegin()->first >= key) r.fail("setting.name", "wanted ascending names");
    out.emplace(std::move(key), value);
  }
  return out;
}

/// field(statement) || raw signature, as receipts, acknowledgements and withdrawals travel.
struct Envelope {
  View statement;
  base::Signature signature{};
};

Result<Envelope> open(std::string name, View bytes, std::size_t cap) {
  Reader r(std::move(name), bytes);
  Envelope out;
  out.statement = r.field("statement", cap);
  out.signature = r.array<64>("signature");
  if (auto done = r.finish(); !done) return done.error();
  return out;
}

Bytes enclose(View statement, const base::Signature& signature) {
  return Writer().field(statement).raw(signature).bytes();
}

std::string json_digest(const std::optional<Sha256>& digest) {
  return digest ? "\"" + base::digest_text(*digest) + "\"" : "null";
}

std::string json_number(const std::optional<double>& number) {
  return number ? fmt::format("{}", *number) : "\"none\"";
}

}  // namespace

Bytes Receipt::serialize() const {
  Writer w;
  w.field(receipt_version).raw(charter).u64(run).u32(round).field(task).u32(train_round).raw(order);
  w.u32(static_cast<std::uint32_t>(settings.size()));
  for (const auto& [key, value] : settings) w.field(key).u64(std::bit_cast<std::uint64_t>(value));
  members.write(w);
  w.raw(updates).field(algorithm);
  put(w, clip), put(w, noise), put(w, epsilon);
  put(w, model_in), put(w, model_out), put(w, optimizer), put(w, statistics), put(w, result);
  w.field(kernel_set).raw(evidence).u8(simulated ? 1 : 0);
  put(w, previous);
  return std::move(w).bytes();
}

Result<Receipt> Receipt::parse(View bytes) {
  Reader r("receipt", bytes);
  Receipt out;
  version(r, receipt_version);
  out.charter = r.array<32>("charter");
  out.run = r.u64("run");
  out.round = r.u32("round");
  out.task = r.string("task", text_cap);
  out.train_round = r.u32("train_round");
  out.order = r.array<32>("order");
  out.settings = round::settings(r);
  out.members = Members::read(r);
  out.updates = r.array<32>("updates");
  out.algorithm = r.string("algorithm", text_cap);
  out.clip = optional_number(r, "clip");
  out.noise = optional_number(r, "noise");
  out.epsilon = optional_number(r, "epsilon");
  out.model_in = optional_digest(r, "model_in");
  out.model_out = optional_digest(r, "model_out");
  out.optimizer = optional_digest(r, "optimizer");
  out.statistics = optional_digest(r, "statistics");
  out.result = optional_digest(r, "result");
  out.kernel_set = r.string("kernel_set", text_cap);
  out.evidence = r.array<32>("evidence");
  out.simulated = flag(r, "simulated");
  out.previous = optional_digest(r, "previous");
  if (auto done = r.finish(); !done) return done.error();
  return out;
}

std::string Receipt::json(const attest::Manifest* manifest) const {
  std::string chosen, who;
  for (const auto& [key, value] : settings)
    chosen += fmt::format("{}{}:{}", chosen.empty() ? "" : ",", base::json_escape(key), value);
  const auto owners = manifest == nullptr ? std::vector<const attest::Party*>() : manifest->data_owners();
  std::map<std::uint32_t, ReceiptMember> listed;
  for (const auto& [what, places] : members.others())
    for (const std::uint32_t at : places) listed.emplace(at, ReceiptMember{what.first, what.second});
  for (std::uint32_t at = 0; members.size() <= json_members && at < members.size(); ++at)
    listed.try_emplace(at, ReceiptMember{MemberState::contributed, ""});
  for (const auto& [at, m] : listed)
    who += fmt::format(R"({}{{"place":{},{}"state":"{}","reason":{}}})", who.empty() ? "" : ",", at,
                       at < owners.size() ? fmt::format(R"("owner":{},)", base::json_escape(owners[at]->owner)) : "",
                       name(m.state), base::json_escape(m.reason));
  return fmt::format(
      R"({{"charter":"{}","run":{},"round":{},"task":{},"train_round":{},"order":"{}","settings":{{{}}},"members":[{}],)"
      R"("owners":{},"contributors":{},"updates":"{}","algorithm":{},"clip":{},"noise":{},"epsilon":{},"model_in":{},"model_out":{},)"
      R"("optimizer":{},"statistics":{},"result":{},"kernel_set":{},"evidence":"{}","simulated":{},"previous":{}}})",
      base::digest_text(charter), run, round, base::json_escape(task), train_round, base::digest_text(order), chosen,
      who, members.size(), contributors(), base::digest_text(updates), base::json_escape(algorithm), json_number(clip),
      json_number(noise), json_number(epsilon), json_digest(model_in), json_digest(model_out), json_digest(optimizer),
      json_digest(statistics), json_digest(result), base::json_escape(kernel_set), base::digest_text(evidence),
      simulated, json_digest(previous));
}

SignedReceipt SignedReceipt::sign(Receipt receipt, const base::PrivateKey& receipt_key) {
  SignedReceipt out;
  const Bytes bytes = receipt.serialize();
  out.digest = base::sha256(bytes);
  out.signature = receipt_key.sign(receipt_version, bytes);
  out.receipt = std::move(receipt);
  return out;
}

Result<SignedReceipt> SignedReceipt::parse(View bytes) {
  auto envelope = open("signed receipt", bytes, receipt_cap);
  if (!envelope) return envelope.error();
  auto receipt = Receipt::parse(envelope->statement);
  if (!receipt) return receipt.error();
  return SignedReceipt{std::move(*receipt), envelope->signature, base::sha256(envelope->statement)};
}

Bytes SignedReceipt::serialize() const {
  return enclose(receipt.serialize(), signature);
}

bool SignedReceipt::verifies(const base::PublicKey& receipt_key) const {
  return receipt_key.verifies(receipt_version, receipt.serialize(), signature);
}

Acknowledgement Acknowledgement::sign(std::string witness, const Receipt& receipt, const Sha256& digest,
                                      const base::PrivateKey& witness_key) {
  Acknowledgement out{std::move(witness), receipt.charter, receipt.run, receipt.round, digest, {}};
  out.signature = witness_key.sign(acknowledgement_version, out.statement());
  return out;
}

Bytes Acknowledgement::statement() const {
  return Writer().field(acknowledgement_version).field(witness).raw(charter).u64(run).u32(round).raw(receipt).bytes();
}

Bytes Acknowledgement::serialize() const {
  return enclose(statement(), signature);
}

Result<Acknowledgement> Acknowledgement::parse(View bytes) {
  auto envelope = open("acknowledgement", bytes, statement_cap);
  if (!envelope) return envelope.error();
  Reader r("acknowledgement", envelope->statement);
  Acknowledgement out;
  version(r, acknowledgement_version);
  out.witness = r.string("witness", text_cap);
  out.charter = r.array<32>("charter");
  out.run = r.u64("run");
  out.round = r.u32("round");
  out.receipt = r.array<32>("receipt");
  out.signature = envelope->signature;
  if (auto done = r.finish(); !done) return done.error();
  return out;
}

Withdrawal Withdrawal::sign(std::string owner, const attest::Charter& charter, std::uint64_t serial, Time from,
                            const base::PrivateKey& witness_key) {
  Withdrawal out{std::move(owner), charter.digest, charter.manifest.study, serial, from, {}};
  out.signature = witness_key.sign(withdrawal_version, out.statement());
  return out;
}

Bytes Withdrawal::statement() const {
  return Writer()
      .field(withdrawal_version)
      .field(owner)
      .raw(charter)
      .field(study)
      .u64(serial)
      .u64(static_cast<std::uint64_t>(from.time_since_epoch().count()))
      .bytes();
}

Bytes Withdrawal::serialize() const {
  return enclose(statement(), signature);
}

Result<Withdrawal> Withdrawal::parse(View bytes) {
  auto envelope = open("withdrawal", bytes, statement_cap);
  if (!envelope) return envelope.error();
  Reader r("withdrawal", envelope->statement);
  Withdrawal out;
  version(r, withdrawal_version);
  out.owner = r.string("owner", text_cap);
  out.charter = r.array<32>("charter");
  out.study = r.string("study", text_cap);
  out.serial = r.u64("serial");
  out.from = Time(std::chrono::seconds(static_cast<std::int64_t>(r.u64("from"))));
  out.signature = envelope->signature;
  if (auto done = r.finish(); !done) return done.error();
  return out;
}

Result<void> Withdrawal::verify(const attest::Charter& of) const {
  if (charter != of.digest)
    return base::untrusted("withdrawal", fmt::format("wanted charter {}, found {}", base::digest_text(of.digest),
                                                     base::digest_text(charter)));
  if (study != of.manifest.study)
    return base::untrusted("withdrawal",
                           fmt::format("wanted study {}, found {}", of.manifest.study, base::json_escape(study)));
  const attest::Party* party = of.manifest.party(owner);
  if (party == nullptr || party->role != attest::Role::data || !party->witness)
    return base::untrusted("withdrawal", "wanted a data owner of the charter, found " + base::json_escape(owner));
  if (!party->witness->verifies(withdrawal_version, statement(), signature))
    return base::untrusted("withdrawal", "the signature is not by the witness key of " + owner);
  return {};
}

Result<void> verify_acknowledgement(const Acknowledgement& a, const SignedReceipt& receipt,
                                    const attest::Charter& charter) {
  const std::string where = fmt::format("acknowledgement of {} for round {}", a.witness, receipt.receipt.round);
  const attest::Party* party = charter.manifest.party(a.witness);
  if (!attest::is_witness(charter.manifest, a.witness) || party == nullptr || !party->witness)
    return base::untrusted(where, "wanted a witness of the charter, found " + base::json_escape(a.witness));
  if (a.charter != receipt.receipt.charter || a.run != receipt.receipt.run || a.round != receipt.receipt.round)
    return base::untrusted(where,
                           fmt::format("wanted run {} round {} of the receipt's charter, found run {} round {}{}",
                                       receipt.receipt.run, receipt.receipt.round, a.run, a.round,
                                       a.charter == receipt.receipt.charter ? "" : " of another charter"));
  if (a.receipt != receipt.digest)
    return base::untrusted(where, fmt::format("wanted receipt {}, found {}", base::digest_text(receipt.digest),
                                              base::digest_text(a.receipt)));
  if (!party->witness->verifies(acknowledgement_version, a.statement(), a.signature))
    return base::untrusted(where, "the signature is not by the charter's witness key of " + a.witness);
  return {};
}

}  // namespace cloister::protocols::round
