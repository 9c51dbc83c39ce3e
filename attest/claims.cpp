#include "attest/claims.hpp"

#include "base/crypto.hpp"
#include "base/encoding.hpp"

namespace cloister::attest {

std::string Claims::platform_text() const {
  return kind + ":" + base::hex(platform);
}

Array<32> host_data_for(const Array<32>& charter_digest, View launch_document) {
  return base::sha256(base::Writer().raw(charter_digest).raw(launch_document).bytes());
}

}  // namespace cloister::attest
