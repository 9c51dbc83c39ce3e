// What a participant must find again after a restart (docs/formats.md, "Participant's record").

#include <fmt/format.h>

#include "base/encoding.hpp"
#include "protocols/round/participant.hpp"

namespace cloister::protocols::round {

namespace {
constexpr std::string_view record_version = "cloister participant record 2";
constexpr std::size_t list_cap = 100'000;
constexpr std::size_t receipts_cap = 2;
constexpr std::size_t receipt_cap = 2 << 20;
}  // namespace

Bytes ParticipantRecord::serialize() const {
  base::Writer w;
  w.field(record_version).u64(run).u8(receipt_key ? 1 : 0);
  if (receipt_key) w.raw(receipt_key->bytes);
  w.raw(order).u32(answered).raw(offer).u32(static_cast<std::uint32_t>(withdrawn.size()));
  for (const std::string& owner : withdrawn) w.field(owner);
  w.u32(stored).raw(update).u64(update_length).u64(weight).u32(static_cast<std::uint32_t>(receipts.size()));
  for (const auto& [round, digest] : receipts) w.u32(round).raw(digest);
  w.field(committed);
  return std::move(w).bytes();
}

Result<ParticipantRecord> ParticipantRecord::parse(View bytes) {
  base::Reader r("participant record", bytes);
  ParticipantRecord out;
  if (const std::string version = r.string("version", 64); r.ok() && version != record_version)
    r.fail("version", fmt::format("wanted \"{}\", found another", record_version));
  out.run = r.u64("run");
  const std::uint8_t has_key = r.u8("receipt_key");
  if (has_key > 1) r.fail("receipt_key", "wanted 0 or 1");
  if (has_key == 1) out.receipt_key = base::PublicKey{r.array<32>("receipt_key")};
  out.order = r.array<32>("order");
  out.answered = r.u32("answered");
  out.offer = r.array<32>("offer");
  const std::uint32_t withdrawn = r.u32("withdrawn");
  if (withdrawn > list_cap) r.fail("withdrawn", "too long");
  for (std::uint32_t i = 0; i < withdrawn && r.ok(); ++i) out.withdrawn.push_back(r.string("withdrawn", 1024));
  out.stored = r.u32("stored");
  out.update = r.array<32>("update");
  out.update_length = r.u64("update_length");
  out.weight = r.u64("weight");
  const std::uint32_t receipts = r.u32("receipts");
  if (receipts > receipts_cap) r.fail("receipts", "too many");
  for (std::uint32_t i = 0; i < receipts && r.ok(); ++i) {
    const std::uint32_t round = r.u32("receipts.round");
    if (r.ok() && !out.receipts.empty() && out.receipts.rbegin()->first >= round)
      r.fail("receipts.round", "wanted ascending rounds");
    out.receipts.emplace(round, r.array<32>("receipts.digest"));
  }
  out.committed = base::copy(r.field("committed", receipt_cap));
  if (auto done = r.finish(); !done) return done.error();
  if (!out.committed.empty()) {
    auto receipt = SignedReceipt::parse(out.committed);
    if (!receipt) return receipt.error();
  }
  return out;
}

}  // namespace cloister::protocols::round
