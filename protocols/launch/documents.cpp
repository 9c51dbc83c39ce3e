#include "protocols/launch/documents.hpp"

#include <fmt/format.h>

#include "base/encoding.hpp"

namespace cloister::protocols::launch {
namespace {

constexpr std::string_view document_name = "cloister launch document 1";
constexpr std::string_view record_name = "cloister instance record 1";
constexpr std::string_view grant_name = "cloister grant v1";
constexpr std::uint64_t latest_second = 253'402'300'799;        // 9999-12-31T23:59:59Z
constexpr std::uint64_t longest_ms = 10ull * 366 * 86'400'000;  // ten years: a duration beyond it is a mistake

// The first field of every document names its format and version.
Result<void> named(std::string_view what, View bytes, std::string_view wanted) {
  base::Reader r(std::string(what), bytes);
  const std::string found = r.string("format", 64);
  if (!r.ok()) return r.finish();
  if (found != wanted)
    return base::unsupported(fmt::format("{}.format", what), fmt::format("wanted \"{}\", found \"{}\"", wanted, found));
  return {};
}

std::uint64_t seconds(Time t) {
  return static_cast<std::uint64_t>(t.time_since_epoch().count());
}

Time time(base::Reader& r, std::string_view field) {
  const std::uint64_t s = r.u64(field);
  if (s <= latest_second) return Time(std::chrono::seconds(s));
  r.fail(field, fmt::format("wanted a time before the year 10000, found {} seconds", s));
  return {};
}

}  // namespace

Bytes LaunchDocument::serialize() const {
  return base::Writer()
      .field(document_name)
      .field(charter)
      .raw(nonce)
      .u64(memory)
      .u32(connections)
      .u64(static_cast<std::uint64_t>(duration.count()))
      .field(measurement)
      .field(host)
      .u16(port)
      .bytes();
}

Result<LaunchDocument> LaunchDocument::parse(View bytes) {
  if (auto ok = named("launch document", bytes, document_name); !ok) return ok.error();
  base::Reader r("launch document", bytes);
  r.field("format", 64);
  LaunchDocument out;
  out.charter = base::copy(r.field("charter", charter_cap));
  out.nonce = r.array<32>("nonce");
  out.memory = r.u64("memory");
  out.connections = r.u32("connections");
  const std::uint64_t ms = r.u64("duration");
  if (ms > longest_ms) r.fail("duration", fmt::format("wanted at most {} ms, found {}", longest_ms, ms));
  out.duration = std::chrono::milliseconds(ms);
  out.measurement = base::copy(r.field("measurement", 64));
  out.host = r.string("host", 255);
  out.port = r.u16("port");
  if (auto ok = r.finish(); !ok) return ok.error();
  return out;
}

Record Record::make(const base::Sha256& charter, const base::PublicKey& tls, const base::PublicKey& receipt,
                    const Array<32>& nonce) {
  return {charter, base::sha256(tls.spki()), tls, receipt, nonce};
}

Bytes Record::serialize() const {
  return base::Writer()
      .field(record_name)
      .raw(charter)
      .raw(tls_digest)
      .raw(tls.bytes)
      .raw(receipt.bytes)
      .raw(nonce)
      .bytes();
}

Result<Record> Record::parse(View bytes) {
  if (auto ok = named("instance record", bytes, record_name); !ok) return ok.error();
  base::Reader r("instance record", bytes);
  r.field("format", 64);
  Record out;
  out.charter = r.array<32>("charter");
  out.tls_digest = r.array<32>("tls_digest");
  out.tls.bytes = r.array<32>("tls");
  out.receipt.bytes = r.array<32>("receipt");
  out.nonce = r.array<32>("nonce");
  if (auto ok = r.finish(); !ok) return ok.error();
  if (out.tls_digest != base::sha256(out.tls.spki()))
    return base::untrusted("instance record.tls_digest",
                           "wanted the digest of the record's own TLS key, found another");
  return out;
}

Array<64> instance_report_data(View record) {
  return base::sha512(base::Writer().field("cloister instance 1").field(record).bytes());
}

Bytes Grant::signed_bytes() const {
  return base::Writer()
      .field(grant_name)
      .raw(record)
      .field(platform)
      .field(host_data)
      .u64(seconds(not_before))
      .u64(seconds(not_after))
      .bytes();
}

Bytes Grant::serialize() const {
  return base::Writer().field(signed_bytes()).raw(signature).bytes();
}

Result<Grant> Grant::parse(View bytes) {
  base::Reader outer("grant", bytes);
  const View body = outer.field("body", grant_cap);
  Grant out;
  out.signature = outer.array<64>("signature");
  if (auto ok = outer.finish(); !ok) return ok.error();
  if (auto ok = named("grant", body, grant_name); !ok) return ok.error();
  base::Reader r("grant", body);
  r.field("format", 64);
  out.record = r.array<32>("record");
  out.platform = r.string("platform", 256);
  const View host_data = r.field("host_data", 32);
  if (r.ok() && host_data.size() != 32) r.fail("host_data", fmt::format("wanted 32 bytes, found {}", host_data.size()));
  std::copy(host_data.begin(), host_data.end(), out.host_data.begin());
  out.not_before = time(r, "not_before");
  out.not_after = time(r, "not_after");
  if (auto ok = r.finish(); !ok) return ok.error();
  return out;
}

Grant sign_grant(Grant grant, const base::PrivateKey& grant_key) {
  grant.signature = grant_key.sign(grant_name, grant.signed_bytes());
  return grant;
}

}  // namespace cloister::protocols::launch
