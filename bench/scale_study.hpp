#pragma once
// A study with as many data owners as one likes, all keys in this process's memory: its charter, drafted and signed by
// everybody through the same functions as any other.

#include <memory>
#include <string>
#include <vector>

#include "aggregation/model.hpp"
#include "attest/run_order.hpp"
#include "attest/simulated/platform.hpp"

namespace cloister::bench {

struct Owner {
  std::string name;
  base::PrivateKey signer = base::PrivateKey::generate(), tls = base::PrivateKey::generate();
  base::PrivateKey extra = base::PrivateKey::generate();  ///< witness, grant or order key
};

struct ScaleStudy {
  ScaleStudy(std::size_t data_owners, std::size_t values, std::string aggregator);

  attest::simulated::Platform platform;
  std::string platform_pem;
  Owner model, compute;
  std::vector<Owner> data;
  base::PrivateKey submitter = base::PrivateKey::generate();
  aggregation::Model initial;
  Bytes initial_file;
  Bytes measurement;
  std::string manifest;
  Bytes charter_file;
  std::shared_ptr<const attest::Charter> charter;  ///< as load_charter gives it
  double founding_seconds = 0, loading_seconds = 0;

  attest::RunOrder order(std::uint32_t rounds, std::size_t quorum) const;  ///< quorum 0: everybody

 private:
  std::string manifest_text() const;
  std::string policy_text(const Owner& owner, std::string_view role) const;
};

}  // namespace cloister::bench
