#pragma once
// The side of the simulated TEE that holds the platform key. No guest links this.

#include <string>

#include "attest/simulated/evidence.hpp"
#include "attest/simulated/measure.hpp"

namespace cloister::attest::simulated {

/// What a platform says about itself: platform.toml.
struct PlatformFacts {
  std::uint64_t tcb_version = 1;
  std::string tcb_status = "up-to-date";
  Time tcb_date = std::chrono::floor<std::chrono::days>(base::now());
  std::vector<std::string> advisories;
  bool debug = false;
  std::uint32_t vmpl = 0;
  std::uint32_t guest_svn = 1;
  Time not_before = std::chrono::sys_days(std::chrono::year(2020) / 1 / 1);  ///< of its certificate
  Time not_after = std::chrono::sys_days(std::chrono::year(2050) / 1 / 1);

  std::string toml() const;
  static Result<PlatformFacts> parse(std::string_view toml, std::string file);
};

/// A platform: a key and facts. Thread-safe once made.
class Platform {
 public:
  Platform(base::PrivateKey key, PlatformFacts facts);

  /// platform.key (0600) and platform.toml in `folder`, made when neither is there.
  static Result<Platform> create(const std::string& folder);
  static Result<Platform> load(const std::string& folder);

  const PlatformFacts& facts() const { return facts_; }
  const Certificate& certificate() const { return certificate_; }
  /// "simulated:" and 64 hex digits: what policies list.
  std::string identity() const;

  /// Serialized Evidence, signed, made at `at`.
  Bytes attest(const Measurement& measurement, const Array<32>& host_data, const Array<64>& report_data, Time at) const;
  /// Certificate, facts and signature filled in; for tests that need another report than attest() makes.
  Report sign(Report report) const;

 private:
  base::PrivateKey key_;
  PlatformFacts facts_;
  Certificate certificate_;
};

}  // namespace cloister::attest::simulated
