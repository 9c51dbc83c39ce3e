#pragma once
// What the compute owner's launcher decides, without I/O: whom it starts what for, whether the instance that answers is
// the one it started, and what it grants. Time is an argument. Not thread-safe.

#include <memory>
#include <string>
#include <vector>

#include "attest/charter.hpp"
#include "attest/judge.hpp"
#include "protocols/launch/checks.hpp"

namespace cloister::launcher {

/// A program that this launcher can start. Found by what it measures, never by its name.
struct Binary {
  std::string path;
  std::vector<std::string> arguments;  ///< fixed and measured
  Bytes measurement;                   ///< 48 bytes
};

/// A request as it came over a link whose peer proved `requester`.
struct Request {
  base::PublicKey requester;
  View charter;  ///< founded, serialized
  attest::Launch launch;
};

/// Everything that one launch is bound to.
struct Launch {
  std::shared_ptr<const attest::Charter> charter;
  Binary binary;
  protocols::launch::LaunchDocument document;
  Bytes document_bytes;  ///< what the TEE hands to its guest
  Array<32> host_data{};
};

struct Admission {
  attest::Decision decision;
  std::shared_ptr<const attest::Charter> charter;  ///< when it parsed
  const Binary* binary = nullptr;                  ///< when one measures what was asked for
};

/// Instance evidence, judged. `claims` when it verified.
struct Judged {
  attest::Decision decision;
  std::optional<attest::Claims> claims;
};

class Agent {
 public:
  struct Identity {
    base::PublicKey tls;
    base::PrivateKey grant;
    std::chrono::milliseconds grant_lifetime{};
  };

  /// `charters`: founded, at least one, all with this launcher as their compute owner. Errors name the charter that
  /// does not fit: another TLS or grant key, another owner, another address to listen at.
  static Result<Agent> make(Identity self, std::vector<attest::Charter> charters, std::vector<Binary> binaries);

  const std::string& owner() const { return party().owner; }
  const attest::Party& party() const { return charters_.front()->manifest.compute_owner(); }
  /// Does any charter admit evidence that no hardware stands behind?
  bool simulated() const;
  /// The longest channel.deadline of its charters.
  std::chrono::milliseconds channel_deadline() const;
  /// The model owner with this TLS key; nobody else may talk to a launcher.
  std::optional<std::string> known(const base::PublicKey& tls) const;

  /// May this be started? The charter is one that this launcher holds, or one that names the same compute owner with
  /// the same keys and is founded with its signatures; the requester is its model owner; its compute policy and
  /// manifest allow the size.
  Admission admit(const Request& request, Time now) const;

  /// A launch of what was admitted, under a fresh `nonce`.
  static Launch prepare(const Admission& admitted, const Request& request, const Array<32>& nonce);

  /// Is the instance that answers with `tls` the one that was launched, and does the compute owner's policy accept it?
  Judged judge_instance(const Launch& launch, View record, View evidence, const base::PublicKey& tls, Time now) const;

  /// The same claims against the policy at a later time, before a renewal.
  attest::Decision judge_renewal(const Launch& launch, const attest::Claims& claims, Time now) const;

  /// In force from a minute before `now` (other owners' clocks may be behind) for the grant's lifetime, at most until
  /// `ends`.
  protocols::launch::Grant grant(const Launch& launch, View record, const attest::Claims& claims, Time now,
                                 Time ends) const;
  std::chrono::milliseconds grant_lifetime() const { return self_.grant_lifetime; }

 private:
  Agent(Identity self, std::vector<std::shared_ptr<const attest::Charter>> charters, std::vector<Binary> binaries)
      : self_(std::move(self)), charters_(std::move(charters)), binaries_(std::move(binaries)) {}
  std::string owner_text() const { return owner() + " (compute)"; }
  bool holds(const attest::Charter& charter) const;
  bool signed_by_own_owner(const attest::Charter& charter) const;
  const Binary* find(View measurement) const;

  Identity self_;
  std::vector<std::shared_ptr<const attest::Charter>> charters_;
  std::vector<Binary> binaries_;
};

}  // namespace cloister::launcher
