#include "attest/simulated/evidence.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/encoding.hpp"

namespace cloister::attest::simulated {
namespace {

constexpr std::string_view certificate_context = "cloister simulated platform 1";
constexpr std::string_view report_context = "cloister simulated evidence 1";
constexpr std::size_t certificate_cap = 256;
constexpr std::uint64_t latest_second = 253'402'300'799;  // 9999-12-31T23:59:59Z: every later one cannot be written

std::uint64_t seconds(Time t) {
  return static_cast<std::uint64_t>(t.time_since_epoch().count());
}

Time time(base::Reader& r, std::string_view field) {
  const std::uint64_t s = r.u64(field);
  if (s > latest_second) r.fail(field, fmt::format("wanted a time before the year 10000, found {} seconds", s));
  return Time(std::chrono::seconds(s > latest_second ? 0 : s));
}

Result<void> version(std::string_view what, View bytes) {
  base::Reader r(std::string(what), bytes);
  const std::uint32_t found = r.u32("version");
  if (!r.ok()) return r.finish();
  if (found != format_version)
    return base::unsupported(fmt::format("{}.version", what),
                             fmt::format("wanted {}, found {}", format_version, found));
  return {};
}

}  // namespace

const std::vector<std::string>& tcb_statuses() {
  static const std::vector<std::string> out{"up-to-date", "configuration-needed", "sw-hardening-needed", "out-of-date",
                                            "revoked"};
  return out;
}

Bytes Certificate::signed_bytes() const {
  return base::Writer()
      .u32(format_version)
      .raw(platform_key.bytes)
      .u64(seconds(not_before))
      .u64(seconds(not_after))
      .bytes();
}

Bytes Certificate::serialize() const {
  return base::Writer().raw(signed_bytes()).raw(signature).bytes();
}

Result<Certificate> Certificate::parse(View bytes) {
  if (auto ok = version("platform certificate", bytes); !ok) return ok.error();
  base::Reader r("platform certificate", bytes);
  r.u32("version");
  Certificate out;
  out.platform_key.bytes = r.array<32>("platform_key");
  out.not_before = time(r, "not_before");
  out.not_after = time(r, "not_after");
  out.signature = r.array<64>("signature");
  if (auto ok = r.finish(); !ok) return ok.error();
  return out;
}

Bytes Certificate::identity() const {
  return base::copy(base::sha256(platform_key.bytes));
}

Bytes Report::signed_bytes() const {
  base::Writer w;
  w.u32(format_version).field(certificate.serialize()).raw(measurement);
  w.u64(tcb_version).field(tcb_status).u64(seconds(tcb_date)).u32(static_cast<std::uint32_t>(advisories.size()));
  for (const std::string& a : advisories) w.field(a);
  w.u8(debug ? 1 : 0).u32(vmpl).u32(guest_svn).raw(host_data).raw(report_data).u64(seconds(made_at));
  return std::move(w).bytes();
}

Bytes Report::serialize() const {
  return base::Writer().raw(signed_bytes()).raw(signature).bytes();
}

Result<Report> parse(View body) {
  if (auto ok = version("simulated evidence", body); !ok) return ok.error();
  base::Reader r("simulated evidence", body);
  r.u32("version");
  Report out;
  const View certificate = r.field("certificate", certificate_cap);
  out.measurement = r.array<48>("measurement");
  out.tcb_version = r.u64("tcb_version");
  out.tcb_status = r.string("tcb_status", text_cap);
  out.tcb_date = time(r, "tcb_date");
  const std::uint32_t advisories = r.u32("advisories");
  if (advisories > advisories_cap)
    r.fail("advisories", fmt::format("wanted at most {}, found {}", advisories_cap, advisories));
  for (std::uint32_t i = 0; r.ok() && i < advisories; ++i) out.advisories.push_back(r.string("advisories", text_cap));
  const std::uint8_t debug = r.u8("debug");
  if (debug > 1) r.fail("debug", fmt::format("wanted 0 or 1, found {}", debug));
  out.debug = debug == 1;
  out.vmpl = r.u32("vmpl");
  if (out.vmpl > 3) r.fail("vmpl", fmt::format("wanted 0 to 3, found {}", out.vmpl));
  out.guest_svn = r.u32("guest_svn");
  out.host_data = r.array<32>("host_data");
  out.report_data = r.array<64>("report_data");
  out.made_at = time(r, "made_at");
  out.signature = r.array<64>("signature");
  if (auto ok = r.finish(); !ok) return ok.error();

  const auto& statuses = tcb_statuses();
  if (std::find(statuses.begin(), statuses.end(), out.tcb_status) == statuses.end())
    return base::unsupported(
        "simulated evidence.tcb_status",
        fmt::format("wanted one of {}, found another of {} bytes", fmt::join(statuses, ", "), out.tcb_status.size()));
  auto parsed = Certificate::parse(certificate);
  if (!parsed) return parsed.error();
  out.certificate = *parsed;
  return out;
}

Result<VerifiedReport> verify(Report report, Time at) {
  const Certificate& c = report.certificate;
  // docs/formats.md, "Simulated evidence": the certificate is signed by the key that it is about.
  if (!c.platform_key.verifies(certificate_context, c.signed_bytes(), c.signature))
    return base::untrusted("platform certificate.signature",
                           "wanted a signature by the platform's own key, found one that does not verify");
  if (at < c.not_before || at > c.not_after)
    return base::expired("platform certificate",
                         fmt::format("wanted one that is valid at {}, found one from {} until {}", base::text(at),
                                     base::text(c.not_before), base::text(c.not_after)));
  if (!c.platform_key.verifies(report_context, report.signed_bytes(), report.signature))
    return base::untrusted("simulated evidence.signature",
                           "wanted a signature by the certificate's platform key, found one that does not verify");
  // A platform does not sign before or after its certificate; how fresh the evidence is, nonces decide and not this
  // clock.
  if (report.made_at < c.not_before || report.made_at > c.not_after)
    return base::expired("simulated evidence.made_at",
                         fmt::format("wanted a time inside the platform certificate's {} until {}, found {}",
                                     base::text(c.not_before), base::text(c.not_after), base::text(report.made_at)));
  return VerifiedReport(std::move(report));
}

Claims VerifiedReport::claims() const {
  Claims out;
  out.kind = "simulated";
  out.simulated = true;
  out.measurement = base::copy(report_.measurement);
  out.tcb_status = report_.tcb_status;
  out.tcb_date = report_.tcb_date;
  out.advisories = report_.advisories;
  out.debug = report_.debug;
  out.platform = report_.certificate.identity();
  out.report_data = report_.report_data;
  out.host_data = report_.host_data;
  out.facts = {{"tcb_version", fmt::format("{}", report_.tcb_version)},
               {"vmpl", fmt::format("{}", report_.vmpl)},
               {"guest_svn", fmt::format("{}", report_.guest_svn)},
               {"made_at", base::text(report_.made_at)}};
  return out;
}

Result<Claims> verify_claims(View body, Time at) {
  auto report = parse(body);
  if (!report) return report.error();
  auto verified = verify(std::move(*report), at);
  if (!verified) return verified.error();
  return verified->claims();
}

}  // namespace cloister::attest::simulated
