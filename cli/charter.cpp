// `cloister charter`: draft, sign, finalize, check, show.

#include <filesystem>
#include <fmt/format.h>

#include "attest/judge.hpp"
#include "base/file.hpp"
#include "cli/command.hpp"
#include "cli/owner.hpp"
#include "participant/succession.hpp"

namespace cloister::cli {
namespace {

using attest::Charter;
using base::json_escape;

constexpr std::size_t largest_file = 64 * 1024 * 1024;

std::string read_text(const std::string& file) {
  return base::text(base::read_file(file, largest_file).value());
}

Charter read_charter(const std::string& file) {
  const Bytes bytes = base::read_file(file, largest_file).value();
  return attest::parse_charter(bytes, file).value();
}

void write_charter(const std::string& file, const Charter& c) {
  base::write_file(file, c.serialize()).value();
}

// FILE.SIGNER.sig of `cloister policy sign` counts when it lies beside the policy.
void add_policy_signatures(Charter& c, const std::string& file) {
  const std::string owner = attest::parse_policy(read_text(file), file).value().owner;
  const attest::Party* party = c.manifest.party(owner);
  if (party == nullptr) return;
  for (const auto& [signer, key] : party->signers) {
    const std::string path = fmt::format("{}.{}.sig", file, signer);
    if (!std::filesystem::exists(path)) continue;
    std::string text = read_text(path);
    while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) text.pop_back();
    const Bytes bytes = base::from_hex(text, path).value();
    if (bytes.size() != 64 || !attest::policy_signed(*c.policy(owner), key, base::array<64>(bytes)))
      throw Exception(base::untrusted(path, fmt::format("is not {}'s signature over {}", signer, file)));
    c.policy_signatures.push_back({owner, signer, base::array<64>(bytes)});
  }
}

std::string outline(const Charter& c) {
  return fmt::format(R"("study": "{}", "charter": "{}", "sequence": {}, "not_after": "{}")", c.manifest.study,
                     base::digest_text(c.digest), c.sequence, base::text(c.not_after));
}

int print_decision(const Charter& c, const attest::Decision& d, std::string_view extra, bool json) {
  if (json)
    fmt::print("{{{}, {}\"allowed\": {}, \"decision\": {}}}\n", outline(c), extra, d.allowed(), d.json());
  else
    fmt::print("{}\n", d.explain());
  return d.allowed() ? done : denied;
}

// What this owner's policy says about the charter that it is about to sign.
std::vector<attest::Finding> own_refusals(const Charter& c, const std::string& owner) {
  const attest::Policy* policy = c.policy(owner);
  if (policy == nullptr) return {};
  attest::Study study{.charter = c, .at = base::now()};
  study.dry_run = true;
  return attest::judge(nullptr, study, *policy).refusals();
}

std::string signers_of(const std::vector<attest::OwnerSignature>& all, const std::string& owner) {
  std::string out;
  for (const attest::OwnerSignature& s : all)
    if (s.owner == owner) out += (out.empty() ? "" : ", ") + s.signer;
  return out;
}

std::string party_json(const Charter& c, const attest::Party& p) {
  const auto key = [](const std::optional<base::PublicKey>& k) {
    return k ? "\"" + k->text() + "\"" : std::string("null");
  };
  return fmt::format(R"({{"owner": "{}", "role": "{}", "tls": "{}", "witness": {}, "grant": {}, "order": {}, )"
                     R"("policy": "{}", "charter_signed_by": {}, "policy_signed_by": {}}})",
                     p.owner, attest::name(p.role), p.tls.text(), key(p.witness), key(p.grant), key(p.order),
                     base::digest_text(c.policy(p.owner)->digest), json_escape(signers_of(c.signatures, p.owner)),
                     json_escape(signers_of(c.policy_signatures, p.owner)));
}

}  // namespace

int run_charter_draft(const CharterDraftOptions& o, bool json) {
  std::vector<std::pair<std::string, std::string>> policies;
  for (const std::string& file : o.policies) policies.emplace_back(file, read_text(file));
  std::vector<attest::Reference> references;
  for (const std::string& file : o.references)
    references.push_back(attest::parse_reference(read_text(file), file).value());
  const Time not_after = base::parse_time(o.not_after, "--not-after").value();
  attest::parse_manifest(read_text(o.manifest), o.manifest).value();  // its mistakes with its own name
  std::optional<Charter> previous;
  if (!o.previous.empty()) previous = read_charter(o.previous);
  Charter draft = attest::draft_charter(read_text(o.manifest), std::move(policies), std::move(references), not_after,
                                        previous ? &*previous : nullptr)
                      .value();
  for (const std::string& file : o.policies) add_policy_signatures(draft, file);
  write_charter(o.out, draft);
  if (json)
    fmt::print("{{{}, \"file\": {}}}\n", outline(draft), json_escape(o.out));
  else
    fmt::print("{}: draft of {} for study {}\nNow every owner: cloister charter check, then cloister charter sign\n",
               o.out, base::digest_text(draft.digest), draft.manifest.study);
  return done;
}

int run_charter_sign(const CharterSignOptions& o, bool json) {
  Charter c = read_charter(o.file);
  const base::PrivateKey key = base::PrivateKey::load(o.key).value();
  if (o.witness) {
    attest::sign_succession(c, o.owner, key).value();
    participant::remember_succession(o.key, *c.previous, c.digest).value();  // before the signature is anywhere
  } else {
    attest::sign_charter(c, o.owner, o.signer, key).value();
  }
  const std::string out = o.out.empty() ? o.file : o.out;
  write_charter(out, c);
  const std::vector<attest::Finding> refusals = own_refusals(c, o.owner);
  if (json) {
    std::string list;
    for (const attest::Finding& f : refusals) list += (list.empty() ? "" : ", ") + f.json();
    fmt::print("{{{}, \"owner\": {}, \"signer\": {}, \"file\": {}, \"own_policy_refuses\": [{}]}}\n", outline(c),
               json_escape(o.owner), json_escape(o.witness ? "witness" : o.signer), json_escape(out), list);
    return done;
  }
  for (const attest::Finding& f : refusals)
    fmt::print(stderr, "warning: signed, but this owner's own policy will refuse it: {}\n", f.text());
  fmt::print("{}: {} of {} signed {}\n", out, o.witness ? "the witness" : o.signer, o.owner,
             base::digest_text(c.digest));
  return done;
}

int run_charter_finalize(const CharterFinalizeOptions& o, bool json) {
  Charter c = read_charter(o.files.front());
  for (const std::string& file : o.files) attest::merge_signatures(c, read_charter(file)).value();
  const attest::Decision d = attest::founded(c, base::now());
  if (d.allowed()) write_charter(o.out, c);
  return print_decision(c, d, fmt::format("\"file\": {}, ", d.allowed() ? json_escape(o.out) : "null"), json);
}

int run_charter_check(const CharterCheckOptions& o, bool json) {
  const Charter c = read_charter(o.file);
  const Time at = o.at.empty() ? base::now() : base::parse_time(o.at, "--at").value();
  return print_decision(c, attest::check(c, at), fmt::format("\"founded\": {}, ", attest::founded(c, at).allowed()),
                        json);
}

int run_charter_show(const CharterShowOptions& o, bool json) {
  const Charter c = read_charter(o.file);
  const bool is_founded = attest::founded(c, base::now()).allowed();
  const std::string previous = c.previous ? base::digest_text(*c.previous) : "";
  bool private_noise = true;
  for (const attest::Policy& p : c.policies)
    if (p.data() != nullptr && p.data()->privacy_unit == "none") private_noise = false;
  if (json) {
    std::string parties;
    for (const attest::Party& p : c.manifest.parties) parties += (parties.empty() ? "" : ", ") + party_json(c, p);
    fmt::print(
        R"({{{}, "founded": {}, "simulated": {}, "privacy": {}, "previous": {}, "manifest": "{}", "parties": [{}]}})"
        "\n",
        outline(c), is_founded, attest::is_simulated(c), private_noise ? "\"budget\"" : "\"none\"",
        c.previous ? "\"" + previous + "\"" : "null", base::digest_text(c.manifest.digest), parties);
    return done;
  }
  fmt::print("study      {}\npurpose    {}\ncharter    {}{}\nsequence   {}{}\nnot after  {}\nmanifest   {}\n",
             c.manifest.study, c.manifest.purpose, base::digest_text(c.digest), is_founded ? "" : " (not founded)",
             c.sequence, c.previous ? ", succeeds " + previous : "", base::text(c.not_after),
             base::digest_text(c.manifest.digest));
  if (attest::is_simulated(c)) fmt::print("simulated  yes: nothing isolates the host\n");
  if (!private_noise) fmt::print("privacy    no differential privacy protects this study\n");
  for (const attest::Party& p : c.manifest.parties)
    fmt::print("{:10} {:12} charter signed by {}; policy {} signed by {}\n", attest::name(p.role), p.owner,
               signers_of(c.signatures, p.owner).empty() ? "nobody" : signers_of(c.signatures, p.owner),
               base::digest_text(c.policy(p.owner)->digest),
               signers_of(c.policy_signatures, p.owner).empty() ? "nobody" : signers_of(c.policy_signatures, p.owner));
  return done;
}

void setup_charter(CLI::App& app, Context& context) {
  CLI::App* c = app.add_subcommand("charter", "what all owners sign")->require_subcommand(1);
  // One shape for all five: the options live as long as the callback that runs them.
  const auto when = [&context](CLI::App* s, auto options, auto run) {
    s->callback([options, run, &context] {
      context.chosen = [options, run, &context] { return run(*options, context.json); };
    });
  };

  auto draft = std::make_shared<CharterDraftOptions>();
  CLI::App* s = c->add_subcommand("draft", "put manifest and policies together, for all to sign");
  s->add_option("--manifest", draft->manifest)->required();
  s->add_option("--policy", draft->policies, "every owner's; signatures beside it are taken along")->required();
  s->add_option("--reference", draft->references, "signed reference values that policies name");
  s->add_option("--previous", draft->previous, "the charter that this one succeeds");
  s->add_option("--not-after", draft->not_after, "2027-12-01, or a UTC time")->required();
  s->add_option("--out", draft->out)->required();
  when(s, draft, run_charter_draft);

  auto sign = std::make_shared<CharterSignOptions>();
  s = c->add_subcommand("sign", "sign charter and policy as one of an owner's signers");
  s->add_option("FILE", sign->file)->required();
  s->add_option("--owner", sign->owner)->required();
  auto* signer = s->add_option("--signer", sign->signer, "the signer's name in the manifest");
  auto* witness =
      s->add_flag("--witness", sign->witness, "agree to the succession, with the predecessor's witness key");
  signer->excludes(witness);
  s->add_option("--key", sign->key)->required();
  s->add_option("--out", sign->out, "default: in place");
  when(s, sign, run_charter_sign);

  auto finalize = std::make_shared<CharterFinalizeOptions>();
  s = c->add_subcommand("finalize", "merge signed copies and write the founded charter");
  s->add_option("FILE", finalize->files)->required();
  s->add_option("--out", finalize->out)->required();
  when(s, finalize, run_charter_finalize);

  auto check = std::make_shared<CharterCheckOptions>();
  s = c->add_subcommand("check", "dry run: do all policies agree? 3 with every refusal if not");
  s->add_option("FILE", check->file)->required();
  s->add_option("--at", check->at, "judge as if it were this time");
  when(s, check, run_charter_check);

  auto show = std::make_shared<CharterShowOptions>();
  s = c->add_subcommand("show", "what it says and who signed");
  s->add_option("FILE", show->file)->required();
  when(s, show, run_charter_show);
}

}  // namespace cloister::cli
