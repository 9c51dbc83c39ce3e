// `cloister policy`: check, explain and sign one owner's policy.

#include <algorithm>
#include <fmt/format.h>

#include "base/file.hpp"
#include "base/log.hpp"
#include "cli/command.hpp"
#include "cli/owner.hpp"

namespace cloister::cli {
namespace {

constexpr std::size_t largest_file = 1024 * 1024;

Result<attest::Policy> read_policy(const std::string& file) {
  auto bytes = base::read_file(file, largest_file);
  if (!bytes) return bytes.error();
  return attest::parse_policy(base::text(*bytes), file);
}

std::string facts(const std::string& file, const attest::Policy& p) {
  return fmt::format(
      R"("file": {}, "owner": "{}", "role": "{}", "digest": "{}", "valid_from": "{}", "valid_until": "{}")",
      base::json_escape(file), p.owner, attest::name(p.role), base::digest_text(p.digest), base::text(p.valid_from),
      base::text(p.valid_until));
}

}  // namespace

int run_policy_check(const PolicyCheckOptions& o, bool json) {
  std::string list;
  bool good = true;
  for (const std::string& file : o.files) {
    const auto policy = read_policy(file);
    good = good && policy;
    if (json)
      list += fmt::format("{}{{\"ok\": {}, {}}}", list.empty() ? "" : ", ", policy.has_value(),
                          policy ? facts(file, *policy)
                                 : fmt::format("\"file\": {}, \"error\": {}", base::json_escape(file),
                                               base::json_escape(policy.error().text())));
    else if (policy)
      fmt::print("{}: good: {}, {}\n", file, policy->owner_text(), base::digest_text(policy->digest));
    else
      fmt::print("{}\n", policy.error().text());
  }
  if (json) fmt::print("[{}]\n", list);
  return good ? done : failed;
}

int run_policy_explain(const PolicyExplainOptions& o, bool json) {
  const attest::Policy policy = read_policy(o.file).value();
  if (json)
    fmt::print("{{{}, \"explanation\": {}}}\n", facts(o.file, policy), base::json_escape(explain(policy)));
  else
    fmt::print("{}", explain(policy));
  return done;
}

int run_policy_sign(const PolicySignOptions& o, bool json) {
  const attest::Policy policy = read_policy(o.file).value();
  if (std::find(policy.signers_among.begin(), policy.signers_among.end(), o.signer) == policy.signers_among.end())
    throw Exception(base::denied(o.file, fmt::format("signers.among does not name {}", o.signer)));
  const base::PrivateKey key = base::PrivateKey::load(o.key).value();
  const std::string out = fmt::format("{}.{}.sig", o.file, o.signer);
  base::write_file(out, base::view(base::hex(attest::sign_policy(policy, key)) + "\n")).value();
  if (json)
    fmt::print("{{{}, \"signer\": \"{}\", \"key\": \"{}\", \"signature\": {}}}\n", facts(o.file, policy), o.signer,
               key.public_key().text(), base::json_escape(out));
  else
    fmt::print("{}: {} signed {}\n", out, o.signer, base::digest_text(policy.digest));
  return done;
}

void setup_policy(CLI::App& app, Context& context) {
  CLI::App* c = app.add_subcommand("policy", "an owner's trust policy")->require_subcommand(1);

  auto check = std::make_shared<PolicyCheckOptions>();
  CLI::App* s = c->add_subcommand("check", "read policies strictly; every mistake with file and line");
  s->add_option("FILE", check->files)->required();
  s->callback(
      [check, &context] { context.chosen = [check, &context] { return run_policy_check(*check, context.json); }; });

  auto explain_it = std::make_shared<PolicyExplainOptions>();
  s = c->add_subcommand("explain", "say in plain sentences what a policy allows");
  s->add_option("FILE", explain_it->file)->required();
  s->callback([explain_it, &context] {
    context.chosen = [explain_it, &context] { return run_policy_explain(*explain_it, context.json); };
  });

  auto sign = std::make_shared<PolicySignOptions>();
  s = c->add_subcommand("sign", "sign a policy; writes FILE.SIGNER.sig");
  s->add_option("FILE", sign->file)->required();
  s->add_option("--key", sign->key, "the signer's private key")->required();
  s->add_option("--signer", sign->signer, "the signer's name in signers.among")->required();
  s->callback([sign, &context] { context.chosen = [sign, &context] { return run_policy_sign(*sign, context.json); }; });
}

}  // namespace cloister::cli
