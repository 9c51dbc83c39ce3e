#pragma once
// What an owner does before anything runs: keys, reference values, its policy, the charter. Options and run_ functions,
// free of the command line's parser, so that tests call them. Each prints to standard output, as JSON when asked, and
// gives the exit code (cli::Exit); what fails throws Exception.

#include <optional>
#include <string>
#include <vector>

#include "attest/policy.hpp"

namespace cloister::cli {

struct KeygenOptions {
  std::vector<std::string> names;
  std::string folder = ".";
};
/// Writes NAME.key (PKCS #8 PEM, mode 0600) and NAME.pub ("ed25519:…"). Never overwrites either.
int run_keygen(const KeygenOptions& options, bool json);

struct ReferenceSignOptions {
  std::string name, measurement, key, out;
};
/// Writes a signed reference value, which `charter draft --reference` takes.
int run_reference_sign(const ReferenceSignOptions& options, bool json);

struct PolicyCheckOptions {
  std::vector<std::string> files;
};
int run_policy_check(const PolicyCheckOptions& options, bool json);

struct PolicyExplainOptions {
  std::string file;
};
int run_policy_explain(const PolicyExplainOptions& options, bool json);
/// The policy in plain sentences, for whoever has to answer for it.
std::string explain(const attest::Policy& policy);

struct PolicySignOptions {
  std::string file, key, signer;
};
/// Writes FILE.SIGNER.sig: the signature in hex. `charter draft` picks it up from beside the policy.
int run_policy_sign(const PolicySignOptions& options, bool json);

struct CharterDraftOptions {
  std::string manifest;
  std::vector<std::string> policies, references;
  std::string previous;  ///< file of the charter that this one succeeds, or empty
  std::string not_after, out;
};
int run_charter_draft(const CharterDraftOptions& options, bool json);

struct CharterSignOptions {
  std::string file, owner, signer, key;
  bool witness = false;  ///< as a witness of the predecessor, instead of a signer
  std::string out;       ///< empty: in place
};
/// Signs charter and policy; as a witness, one successor of a charter ever (KEY.successions remembers). Says what the
/// owner's own policy would refuse in it, but signs: that policy goes on refusing.
int run_charter_sign(const CharterSignOptions& options, bool json);

struct CharterFinalizeOptions {
  std::vector<std::string> files;  ///< copies of one draft, signed in different places
  std::string out;
};
/// Merges the signatures and writes the founded charter; exit code `denied` names who has yet to sign.
int run_charter_finalize(const CharterFinalizeOptions& options, bool json);

struct CharterCheckOptions {
  std::string file;
  std::string at;  ///< empty: now
};
/// The dry run over all policies; exit code `denied` with every refusal.
int run_charter_check(const CharterCheckOptions& options, bool json);

struct CharterShowOptions {
  std::string file;
};
int run_charter_show(const CharterShowOptions& options, bool json);

}  // namespace cloister::cli
