#pragma once
// Simulated evidence, version 1 (docs/formats.md, "Simulated evidence"): for laptops and tests. It has every field that
// the evidence of hardware has, so that each requirement of a policy can be met and broken. No hardware stands behind
// it.
//
//   bytes --parse--> Report --verify(time)--> VerifiedReport --> Claims

#include <string>
#include <vector>

#include "attest/claims.hpp"
#include "base/crypto.hpp"

namespace cloister::attest::simulated {

inline constexpr std::uint32_t format_version = 1;
inline constexpr std::size_t advisories_cap = 64;  ///< how many
inline constexpr std::size_t text_cap = 64;        ///< bytes of an advisory or a status

/// Who the platform is: made around its key by itself. Policies pin platforms by identity, so no root stands above it.
struct Certificate {
  base::PublicKey platform_key;
  Time not_before{};
  Time not_after{};
  base::Signature signature{};  ///< by the platform key, context "cloister simulated platform 1", over signed_bytes()

  Bytes signed_bytes() const;
  Bytes serialize() const;
  static Result<Certificate> parse(View bytes);
  /// SHA-256 of the platform key's 32 bytes.
  Bytes identity() const;
};

/// What the bytes say. Nothing here is verified.
struct Report {
  Certificate certificate;
  Array<48> measurement{};
  std::uint64_t tcb_version = 0;
  std::string tcb_status;  ///< one of tcb_statuses()
  Time tcb_date{};
  std::vector<std::string> advisories;
  bool debug = false;
  std::uint32_t vmpl = 0;       ///< 0 to 3: the privilege level that asked (AMD 56860, VMPL)
  std::uint32_t guest_svn = 0;  ///< the guest's security version
  Array<32> host_data{};
  Array<64> report_data{};
  Time made_at{};               ///< by the platform's clock: for people; freshness comes from nonces
  base::Signature signature{};  ///< by the platform key, context "cloister simulated evidence 1", over signed_bytes()

  Bytes signed_bytes() const;
  Bytes serialize() const;
};

/// "up-to-date", "configuration-needed", "sw-hardening-needed", "out-of-date", "revoked".
const std::vector<std::string>& tcb_statuses();

/// Errors: unsupported (version, status), malformed (a cap, a flag, left-over bytes).
Result<Report> parse(View body);

/// A report whose signatures hold and whose platform certificate is valid. Only verify() makes one.
class VerifiedReport {
 public:
  const Report& report() const { return report_; }
  Claims claims() const;

 private:
  friend Result<VerifiedReport> verify(Report report, Time at);
  explicit VerifiedReport(Report report) : report_(std::move(report)) {}
  Report report_;
};

/// `at`: the relying party's own clock. Errors: untrusted (a signature), expired (the certificate's validity).
Result<VerifiedReport> verify(Report report, Time at);

/// The three steps in a row: this kind's row in the table of kinds.
Result<Claims> verify_claims(View body, Time at);

}  // namespace cloister::attest::simulated
