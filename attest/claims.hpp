#pragma once
// What evidence says, in one vocabulary for every kind of TEE. Names follow EAT (RFC 9711) and AR4SI where they have
// one.

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.hpp"
#include "base/time.hpp"

namespace cloister::attest {

/// Facts from verified evidence. Only a verifier makes one; `judge` decides over it.
struct Claims {
  std::string kind;        ///< "simulated", "tdx", "sev-snp" …: the row of attest/evidence.cpp that verified it
  bool simulated = false;  ///< no hardware stands behind it
  Bytes measurement;       ///< of the binary with its fixed arguments and empty environment (48 bytes)
  std::string tcb_status;  ///< "up-to-date", "out-of-date", "revoked": the vendor's words, in our spelling
  Time tcb_date{};         ///< when the TCB level was published
  std::vector<std::string> advisories;
  std::optional<bool> debug;
  Bytes platform;  ///< platform identity (PPID, CHIP_ID; 32 bytes of the simulated platform key's digest)
  Array<64> report_data{};
  Array<32> host_data{};                     ///< SHA-256(charter digest || launch document)
  std::map<std::string, std::string> facts;  ///< the kind's own facts, for policies that name them

  std::string platform_text() const;  ///< "simulated:4f2a…", as policies list it
};

/// SHA-256(charter digest || launch document): what an instance's host data must be.
Array<32> host_data_for(const Array<32>& charter_digest, View launch_document);

}  // namespace cloister::attest
