// A charter: what founds it, and that nothing about it can change unseen.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <random>

#include "tests/support/study.hpp"

namespace cloister {
namespace {

using attest::Charter;
using attest::Decision;
using testing::HasSubstr;
using tests::Study;

const Study& good() {
  static const Study study;
  return study;
}

Decision founded(const Charter& c) {
  return attest::founded(c, good().at);
}

// The one refusal that `c` should meet.
std::string refusal(const Charter& c) {
  const auto all = founded(c).refusals();
  return all.size() == 1 ? all[0].text() : founded(c).explain() + " (wanted one refusal)";
}

TEST(Charter, ParsingAfterSerializingIsTheIdentity) {
  const Bytes bytes = good().charter.serialize();
  const Charter again = attest::load_charter(bytes, "c", good().at).value();
  EXPECT_EQ(again.serialize(), bytes);
  EXPECT_EQ(again.digest, good().charter.digest);
  EXPECT_EQ(again.statement(), good().charter.statement());
}

TEST(Charter, OneFlippedBitDenies) {
  const Bytes bytes = good().charter.serialize();
  // One bit in 401, each time from another start: all bits over many runs.
  const std::size_t start = std::random_device()() % 401;
  SCOPED_TRACE(start);
  std::size_t tried = 0;
  for (std::size_t bit = start; bit < 8 * bytes.size(); bit += 401, ++tried) {
    Bytes bad = bytes;
    bad[bit / 8] ^= static_cast<std::uint8_t>(1 << bit % 8);
    EXPECT_FALSE(attest::load_charter(bad, "c", good().at)) << "bit " << bit;
  }
  EXPECT_GT(tried, 200u);
}

TEST(Charter, WhatFollowsTheTextsIsCovered) {
  Charter c = good().charter;
  const Bytes bytes = c.serialize();
  // Every third byte behind the policies' texts: signatures, references, sequence, times.
  std::size_t texts = c.manifest.text.size();
  for (const auto& p : c.policies) texts += p.text.size();
  for (std::size_t at = texts; at < bytes.size(); at += 3) {
    Bytes bad = bytes;
    bad[at] ^= 0x10;
    EXPECT_FALSE(attest::load_charter(bad, "c", good().at)) << "byte " << at;
  }
}

TEST(Charter, ATruncatedOrLongerFileIsRefused) {
  Bytes bytes = good().charter.serialize();
  for (std::size_t n = 0; n < bytes.size(); n += 199)
    EXPECT_FALSE(attest::parse_charter(View(bytes).first(n), "c")) << n;
  bytes.push_back(0);
  EXPECT_THAT(attest::parse_charter(bytes, "c").error().text(), HasSubstr("1 bytes are left over"));
  const Bytes other = base::copy(base::view(std::string("\0\0\0\7charter", 11)));
  EXPECT_EQ(attest::parse_charter(other, "c").error().text(),
            "c: wanted \"cloister charter file 1\", found \"charter\"");
}

TEST(Charter, KOfNSignersFoundItAndFewerDoNot) {
  Charter c = good().charter;
  std::erase_if(c.signatures, [](const auto& s) { return s.signer == "it"; });
  EXPECT_EQ(refusal(c),
            "denied by charite (data): signers.at_least: wanted the charter signed by 2 of dpo, it, found dpo; have it "
            "sign: cloister charter sign");
  std::erase_if(c.signatures, [](const auto& s) { return s.owner == "charite"; });
  EXPECT_THAT(refusal(c), HasSubstr("found none; have dpo or it sign"));
  c = good().charter;
  std::erase_if(c.policy_signatures, [](const auto& s) { return s.owner == "cloudco"; });
  EXPECT_THAT(
      refusal(c),
      HasSubstr("denied by cloudco (compute): signers.at_least: wanted the policy signed by 1 of officer, found none"));
}

TEST(Charter, OneOfTwoSignersIsEnoughWhereManifestAndPolicySaySo) {
  const Study study({.edits = {{"manifest", "signers = { at_least = 2", "signers = { at_least = 1"},
                               {"charite", "signers = { at_least = 2", "signers = { at_least = 1"}}});
  Charter c = study.charter;
  std::erase_if(c.signatures, [](const auto& s) { return s.signer == "it"; });
  std::erase_if(c.policy_signatures, [](const auto& s) { return s.signer == "dpo"; });
  EXPECT_TRUE(founded(c).allowed()) << founded(c).explain();
}

TEST(Charter, TheStricterOfManifestAndPolicyCounts) {
  const Study study({.edits = {{"manifest", "signers = { at_least = 2", "signers = { at_least = 1"}}});
  Charter c = study.charter;
  std::erase_if(c.signatures, [](const auto& s) { return s.signer == "it"; });
  EXPECT_THAT(refusal(c), HasSubstr("wanted the charter signed by 2 of dpo, it, found dpo"));
}

TEST(Charter, AWrongRepeatedOrForeignSignatureDeniesEvenWhereEnoughAreRight) {
  Charter c = good().charter;
  for (auto& x : c.signatures)
    if (x.owner == "usz") x.signature = c.signatures[0].signature;
  EXPECT_THAT(refusal(c), HasSubstr("found a signature by officer that does not verify; draft the charter again"));
  c = good().charter;
  for (const auto& s : good().charter.signatures)
    if (s.owner == "usz") c.signatures.push_back(s);
  EXPECT_THAT(refusal(c), HasSubstr("found two signatures by officer"));
  c = good().charter;
  c.signatures.push_back({"usz", "mallory", {}});
  EXPECT_THAT(refusal(c), HasSubstr("found a signature by mallory, who is not one of its signers"));
  c = good().charter;
  c.policy_signatures.push_back({"mallory", "m", {}});
  EXPECT_THAT(refusal(c), HasSubstr("denied by charter: signatures: wanted signatures of its owners only, found one of "
                                    "mallory, who is no party"));
}

TEST(Charter, ASignatureOverThePolicyIsNotConsentToTheCharter) {
  Charter c = good().charter;
  for (auto& s : c.signatures)
    for (const auto& p : c.policy_signatures)
      if (s.owner == p.owner && s.signer == p.signer) s.signature = p.signature;
  EXPECT_EQ(founded(c).refusals().size(), 6u);
}

TEST(Charter, AReferenceValueThatItsSignerDidNotSignDenies) {
  Charter c = good().charter;
  c.references[0].signature[0] ^= 1;
  EXPECT_THAT(refusal(c),
              HasSubstr("denied by charter: reference cloister-aggregator 1.2: wanted a signature by ed25519:"));
  // Another value under the same name is another charter.
  Charter other = good().charter;
  other.references[0] = attest::sign_reference("cloister-aggregator 1.2", Bytes(48, 9), good().reference_signer);
  EXPECT_NE(base::sha256(other.statement()), good().charter.digest);
}

TEST(Charter, IsOverAtNotAfter) {
  const Time end = good().charter.not_after;
  EXPECT_TRUE(attest::founded(good().charter, end - std::chrono::seconds(1)).allowed());
  const auto d = attest::founded(good().charter, end).refusals();
  ASSERT_EQ(d.size(), 1u);
  EXPECT_EQ(d[0].text(), "denied by charter: not_after: wanted a time before " + base::text(end) + ", found " +
                             base::text(end) + "; found a successor");
  EXPECT_THAT(attest::load_charter(good().charter.serialize(), "study.charter", end).error().text(),
              HasSubstr("study.charter: not founded: denied by charter: not_after"));
}

TEST(Charter, ASuccessorNeedsAQuorumOfItsPredecessorsWitnesses) {
  const Study& s = good();
  const Charter next = s.found(s.manifest, s.policies, &s.charter);
  EXPECT_EQ(next.sequence, 2u);
  EXPECT_EQ(next.previous, s.charter.digest);
  EXPECT_TRUE(founded(next).allowed()) << founded(next).explain();
  EXPECT_TRUE(attest::load_charter(next.serialize(), "c", s.at)) << "nobody needs the predecessor's file";

  Charter three = next;
  three.succession.pop_back();
  EXPECT_TRUE(founded(three).allowed()) << "3 of 4 are a quorum";
  Charter two = three;
  two.succession.pop_back();
  EXPECT_EQ(refusal(two),
            "denied by charter: succession: wanted 3 of the predecessor's 4 witnesses, found 2; have the predecessor's "
            "witnesses sign: cloister charter sign --witness");
  Charter twice = two;
  twice.succession.push_back(twice.succession[0]);
  EXPECT_THAT(refusal(twice), HasSubstr("found a signature of " + twice.succession[0].owner + " that does not count"));
  Charter forged = next;
  forged.succession[0].signature[5] ^= 1;
  EXPECT_THAT(refusal(forged), HasSubstr("that does not count"));
}

TEST(Charter, ASuccessorsSequenceIsOneMoreAndItsStudyTheSame) {
  const Study& s = good();
  Charter next = s.found(s.manifest, s.policies, &s.charter);
  next.sequence = 3;
  EXPECT_THAT(founded(next).explain(), HasSubstr("denied by charter: sequence: wanted 2, found 3"));
  Charter first = s.charter;
  first.sequence = 2;
  EXPECT_THAT(founded(first).explain(),
              HasSubstr("denied by charter: sequence: wanted 1 for a charter without a predecessor, found 2"));
  std::string other = s.manifest;
  other.replace(other.find("study = \"heart\""), 15, "study = \"other\"");
  EXPECT_EQ(attest::draft_charter(other, s.policies, {}, s.charter.not_after, &s.charter).error().text(),
            "previous charter: wanted a charter of study other, found heart");
}

TEST(Charter, OnlyAWitnessOfThePredecessorSignsItsSuccession) {
  const Study& s = good();
  Charter next = s.found(s.manifest, s.policies, &s.charter);
  const auto denied = attest::sign_succession(next, "usz", *s.keys("va").witness);
  ASSERT_FALSE(denied);
  EXPECT_THAT(denied.error().text(), HasSubstr("is not one of its witnesses"));
}

TEST(Charter, ADraftNeedsThePolicyOfEveryPartyAndNoOther) {
  const Study& s = good();
  auto policies = s.policies;
  policies.pop_back();
  EXPECT_EQ(attest::draft_charter(s.manifest, policies, {}, s.charter.not_after).error().text(),
            "draft: wanted a policy of va (data), found none");
  policies = s.policies;
  policies.push_back(policies.back());
  EXPECT_THAT(attest::draft_charter(s.manifest, policies, {}, s.charter.not_after).error().text(),
              HasSubstr("va has more than one policy"));
  policies = s.policies;
  policies.back().second.replace(policies.back().second.find("\"va\""), 4, "\"vb\"");
  EXPECT_EQ(attest::draft_charter(s.manifest, policies, {}, s.charter.not_after).error().text(),
            "draft: wanted a policy of va (data), found none; vb has a policy and is no party of the manifest");
  policies = s.policies;
  std::swap(policies[0], policies[3]);
  EXPECT_EQ(attest::draft_charter(s.manifest, policies, s.charter.references, s.charter.not_after).value().digest,
            s.charter.digest)
      << "the order of the files does not matter";
}

TEST(Charter, CopiesOfOneDraftMergeAndOthersDoNot) {
  const Study& s = good();
  Charter a = s.charter, b = s.charter;
  a.signatures.clear();
  std::erase_if(b.signatures, [](const auto& x) { return x.owner == "usz"; });
  EXPECT_TRUE(attest::merge_signatures(a, b));
  EXPECT_THAT(refusal(a), HasSubstr("denied by usz (data): signers.at_least"));
  EXPECT_TRUE(attest::merge_signatures(a, s.charter));
  EXPECT_TRUE(founded(a).allowed());
  const Study other;
  EXPECT_THAT(attest::merge_signatures(a, other.charter).error().text(),
              HasSubstr("charter: wanted a copy of sha256:"));
}

TEST(Charter, TellsWhatASiteMayWeighAndHowManyAreTheFewest) {
  EXPECT_EQ(attest::weight_at_most(good().charter, "usz"), 500u);
  EXPECT_EQ(attest::weight_at_most(good().charter, "acme"), 0u);
  EXPECT_EQ(attest::weight_at_most(good().charter, "mallory"), 0u);
  const Study small({.edits = {{"manifest", "weight_at_most = 1000", "weight_at_most = 100"},
                               {"usz", "at_least = 3", "at_least = 4"}}});
  EXPECT_EQ(attest::weight_at_most(small.charter, "usz"), 100u);
  EXPECT_EQ(attest::largest_at_least(small.charter), 4u);
  EXPECT_TRUE(attest::is_simulated(small.charter));
}

}  // namespace
}  // namespace cloister
