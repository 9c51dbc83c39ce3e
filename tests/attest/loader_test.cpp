// The three policies' and the manifest's strict loader: every key has its type, its absence is no, its misspelling is
// found.

#include <cmath>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/study.hpp"

namespace cloister {
namespace {

using testing::HasSubstr;
using tests::Study;

const Study& good() {
  static const Study study;
  return study;
}

std::string replaced(std::string text, std::string_view from, std::string_view to) {
  const std::size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

std::string policy_of(const std::string& owner) {
  return good().policy(owner).text;
}

// The 1-based line on which `part` stands.
std::size_t line_of(const std::string& text, std::string_view part) {
  return 1 + static_cast<std::size_t>(
                 std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(text.find(part)), '\n'));
}

struct Mistake {
  const char *of, *from, *to;
  const char* says;          // "LINE" stands for the line of `on`
  const char* on = nullptr;  // default: the first line of `to`
};

class PolicyMistakes : public testing::TestWithParam<Mistake> {};

TEST_P(PolicyMistakes, AreSaidWithFileLineAndPath) {
  const Mistake& m = GetParam();
  const bool manifest = std::string_view(m.of) == "manifest";
  const std::string text = replaced(manifest ? good().manifest : policy_of(m.of), m.from, m.to);
  const std::string file = std::string(m.of) + ".toml";
  const std::string error =
      manifest ? attest::parse_manifest(text, file).error().text() : attest::parse_policy(text, file).error().text();
  std::string says = m.says;
  if (const std::size_t at = says.find("LINE"); at != std::string::npos)
    says.replace(at, 4, std::to_string(line_of(text, m.on != nullptr ? m.on : m.to)));
  EXPECT_THAT(error, HasSubstr(file + ":" + says));
}

const Mistake policy_mistakes[] = {
    {"usz", "participants = {", "participant = {",
     "LINE: study.participant: no such setting; did you mean study.participants?"},
    {"usz", "owner = \"usz\"", "owner = \"Unispital\"", "LINE: owner: wanted a name of a-z, 0-9 and -"},
    {"usz", "owner = \"usz\"", "owner = \"anyone\"", "LINE: owner: wanted a name of a-z, 0-9 and -, not \"anyone\""},
    {"usz", "role = \"data\"", "role = \"date\"",
     "LINE: role: wanted one of \"model\", \"data\", \"compute\", found \"date\"; did you mean \"data\"?"},
    {"usz", "at_least = 1, among = [\"officer\"]", "at_least = 2, among = [\"officer\"]",
     "LINE: signers.at_least: wants 2 of 1 signers"},
    {"usz", "among = [\"officer\"]", "among = [\"anyone\"]", "LINE: signers.among: names people, not \"anyone\""},
    {"usz", "purpose =", "porpose =", "LINE: porpose: no such setting; did you mean purpose?"},
    {"usz", "debug = false", "debug = \"no\"", "LINE: aggregator.debug: wanted true or false, found a string"},
    {"usz", "debug = false\n", "\n", "LINE: aggregator.debug: is missing, and absent means no: write it out",
     "[aggregator]"},
    {"usz", "tee = [\"simulated\"]", "tee = []",
     "LINE: aggregator.tee: an empty list allows nothing; leave the section out if that is meant"},
    {"usz", "tee = [\"simulated\"]", "tee = \"simulated\"",
     "LINE: aggregator.tee: wanted an array of strings, found a string"},
    {"usz", "measurement = [", "measurement = [\"00\", ",
     "LINE: aggregator.measurement: wanted 96 hex digits (48 bytes) or {name, signed_by}"},
    {"usz", "measurement = [", "measurement = [{ name = \"x\" }, ",
     "LINE: aggregator.measurement[0].signed_by: is missing"},
    {"usz", "measurement = [", "measurement = [{ name = \"x\", sign_by = 1 }, ",
     "LINE: aggregator.measurement[0].sign_by: no such setting; did you mean aggregator.measurement[0].signed_by?"},
    {"usz", "tcb = { status =", "tcb = { statsu =",
     "LINE: aggregator.tcb.statsu: no such setting; did you mean aggregator.tcb.status?"},
    {"usz", "platforms = [\"simulated:", "platforms = [\"simulated-",
     "LINE: aggregator.platforms: wanted a TEE kind, a colon and lower-case hex"},
    {"usz", "renew = \"1h\"", "renew = \"1 hour\"", "LINE: aggregator.renew: wanted a duration like"},
    {"usz", "renew = \"1h\"", "renew = \"10ms\"", "LINE: aggregator.renew: wanted at least \"1s\""},
    {"usz", "renew = \"1h\"", "renews = \"1h\"",
     "LINE: aggregator.renews: no such setting; did you mean aggregator.renew?"},
    {"usz", "records = { at_most = 500 }", "records = 500", "LINE: data.records: wanted a table, found an integer"},
    {"usz", "records = { at_most = 500 }", "records = { at_most = 0 }",
     "LINE: data.records.at_most: wanted an integer from 1 to 1000000000, found 0"},
    {"usz",
     "trainer = [\"sha256:", "trainer = [\"sha1:", "LINE: tasks.train.trainer: wanted \"sha256:\" and 64 hex digits"},
    {"usz", "at_most = 50, exact = true", "exact = true", "LINE: tasks.evaluate.at_most: is missing", "evaluate = {"},
    {"usz", "unit = \"none\"", "unit = \"none\"\nepsilon = 1.0", "LINE: privacy.epsilon: unit \"none\" has no budget",
     "epsilon = 1.0"},
    {"usz", "unit = \"none\"", "unit = \"patient\"\nepsilon = 0.0\ndelta = 1e-6",
     "LINE: privacy.epsilon: wanted a number above 0", "epsilon = 0.0"},
    {"usz", "unit = \"none\"", "unit = \"patient\"", "LINE: privacy.epsilon: is missing", "[privacy]"},
    {"usz", "unit = \"none\"", "unit = \"site\"\nepsilon = 1\ndelta = 1",
     "LINE: privacy.delta: wanted a number below 1", "delta = 1"},
    {"usz", "model = \"final\"", "model = \"finally\"",
     "LINE: study.publish.model: wanted one of \"never\", \"final\", \"every-round\", found \"finally\"; did you mean "
     "\"final\"?"},
    {"usz", "among = [\"charite\",", "among = [\"anyone\", \"charite\",",
     "LINE: study.participants.among: \"anyone\" stands alone or not at all"},
    {"usz", "[privacy]", "[launch]", "LINE: launch: no such setting"},
    {"usz",
     "valid = { from =", "valid = { from = 2999-01-01, x =", "LINE: valid.until: wanted a time after valid.from"},
    {"acme", "attested = false", "attested = true", "LINE: participants.tee: is missing", "[participants]"},
    {"acme", "attested = false", "attested = false\ndebug = true", "LINE: participants.debug: no such setting",
     "debug = true"},
    {"acme", "alice = {", "\"Alice A.\" = {", "LINE: submitters.Alice A.: wanted a name of a-z, 0-9 and -"},
    {"acme", "runs_at_most = 5", "runs = 5", "LINE: submitters.alice.runs: no such setting"},
    {"cloudco", "platforms = [", "platform = [",
     "LINE: aggregator.platform: no such setting; did you mean aggregator.platforms?"},
    {"cloudco", "memory = { at_most = \"2 GiB\" }", "memory = { at_most = \"2 GB\" }",
     "LINE: launch.memory.at_most: wanted a size like"},
    {"cloudco", "[launch]", "[data]", "LINE: data: no such setting"},
};
INSTANTIATE_TEST_SUITE_P(Policies, PolicyMistakes, testing::ValuesIn(policy_mistakes));

const Mistake manifest_mistakes[] = {
    {"manifest", "format = 1", "format = 2", "LINE: format: this build reads format 1, found 2"},
    {"manifest", "role = \"compute\"", "role = \"model\"",
     "LINE: party: wanted one model owner, one compute owner and data owners, found 2, 0 and 4", "[[party]]"},
    {"manifest", "owner = \"usz\"", "owner = \"charite\"", "LINE: party[3].owner: stands twice",
     "owner = \"charite\"\nsigners = { at_least = 1"},
    {"manifest", "at_least = 2, keys", "at_least = 3, keys", "LINE: party[2].signers.at_least: wants 3 of 2 signers"},
    {"manifest", "port = 7443", "port = 70000",
     "LINE: aggregator.port: wanted an integer from 1 to 65535, found 70000"},
    {"manifest", "connections = 16", "connections = 5",
     "LINE: aggregator.connections: wanted at least 6: every data owner, coordinator and launcher"},
    {"manifest", "dtype = \"float32\"", "dtype = \"float64\"",
     "LINE: model.tensors[0].dtype: wanted one of \"float32\", found \"float64\""},
    {"manifest", "shape = [1, 6]", "shape = [1, 0]",
     "LINE: model.tensors[0].shape: wanted integers from 1 to 1000000, found 0"},
    {"manifest", "shape = [1, 6]", "shape = [1000000, 1000000, 2]",
     "LINE: model.tensors[0].shape: holds more than 2^40 values"},
    {"manifest", "name = \"bias\"", "name = \"weight\"", "LINE: model.tensors[1].name: stands twice",
     "name = \"weight\"\nshape = [1]"},
    {"manifest", "column = \"num\"", "column = \"age\"",
     "LINE: data.label.column: is one of the data.columns: the model would see its answer"},
    {"manifest", "kind = \"number\"", "kind = \"category\"", "LINE: data.columns[0].categories: is missing",
     "[[data.columns]]"},
    {"manifest", "kind = \"number\"", "kind = \"number\"\ncategories = [\"1\"]",
     "LINE: data.columns[0].categories: no such setting", "categories = [\"1\"]"},
    {"manifest", "algorithm = \"fedavg\"", "algorithm = \"fedsgd\"", "LINE: training.algorithm: wanted one of"},
    {"manifest", "algorithm = \"fedavg\"", "algorithm = \"fedprox\"", "LINE: settings.mu: is missing", "[settings]"},
    {"manifest", "value_bound = 16.0", "value_bound = 0.0", "LINE: training.value_bound: wanted a number above 0"},
    {"manifest", "batch_size = 16", "batch_size = 16\nmu = 0.1",
     "LINE: settings.mu: is a setting of fedprox, and the algorithm is fedavg", "mu = 0.1"},
    {"manifest", "batch_size = 16", "batch_size = 16.5", "LINE: settings.batch_size: wanted integers"},
    {"manifest", "batch_size = 16", "batch_size = 16\nseed = 7", "LINE: settings.seed: no such setting", "seed = 7"},
    {"manifest", "rounds = { from = 1, to = 20", "rounds = { from = 11, to = 20",
     "LINE: settings.rounds: wanted from <= otherwise <= to, found 11, 10, 20"},
    {"manifest", "quorum = { from = 3, to = 4", "quorum = { from = 3, to = 5",
     "LINE: settings.quorum: wanted values from 1 to 4"},
    {"manifest", "learning_rate = {", "learning_rate = \"high\" #",
     "LINE: settings.learning_rate: wanted a finite number, found a string"},
    {"manifest", "bins = 1000", "bins = 1", "LINE: evaluate.bins: wanted an integer from 2 to 65536, found 1"},
    {"manifest", "[publish]", "[witnesses]\namong = [\"acme\"]\n[publish]",
     "LINE: witnesses.among: wanted owners of data in this manifest", "among = [\"acme\"]"},
    {"manifest", "[publish]", "[witnesses]\namong = [\"usz\"]\n[publish]",
     "LINE: witnesses: 1 witnesses of whom 1 may lie never reach their quorum of 2"},
    {"manifest", "deadline = \"1m\"", "deadline = \"0s\"", "LINE: round.deadline: wanted more than nothing"},
};
INSTANTIATE_TEST_SUITE_P(Manifest, PolicyMistakes, testing::ValuesIn(manifest_mistakes));

TEST(Loader, AllMistakesOfAPolicyComeAtOnce) {
  std::string text = replaced(policy_of("usz"), "debug = false", "debug = 0");
  text = replaced(text, "unit = \"none\"", "unit = \"nobody\"");
  text = replaced(text, "runs = {", "run = {");
  const std::string error = attest::parse_policy(text, "usz.policy.toml").error().text();
  EXPECT_THAT(error, HasSubstr("aggregator.debug: wanted true or false, found an integer"));
  EXPECT_THAT(error, HasSubstr("study.run: no such setting; did you mean study.runs?"));
  EXPECT_THAT(error, HasSubstr("study.runs: is missing"));
  EXPECT_THAT(error, HasSubstr("privacy.unit: wanted one of"));
}

TEST(Loader, EveryLineOfAPolicyMatters) {
  // Without any one of its lines a document is refused, or means something else: nothing in it is idle.
  const auto lines = [](const std::string& text) {
    std::vector<std::string> out(1);
    for (const char c : text)
      if (c == '\n')
        out.emplace_back();
      else
        out.back().push_back(c);
    return out;
  };
  const auto without = [](const std::vector<std::string>& all, std::size_t i) {
    std::string out;
    for (std::size_t k = 0; k < all.size(); ++k)
      if (k != i) out += all[k] + "\n";
    return out;
  };
  for (const char* owner : {"acme", "cloudco", "usz"}) {
    const auto all = lines(policy_of(owner));
    for (std::size_t i = 0; i < all.size(); ++i) {
      if (all[i].empty()) continue;
      const auto policy = attest::parse_policy(without(all, i), "p");
      const std::string key = all[i].substr(0, all[i].find(' '));
      const bool may_be_absent = key == "simulated" || key == "platforms" || key == "train" || key == "statistics" ||
                                 key == "evaluate" || key == "alice";
      EXPECT_EQ(policy.has_value(), may_be_absent && !(std::string_view(owner) == "cloudco" && key == "platforms"))
          << owner << ": " << all[i];
    }
  }
}

TEST(Loader, TheTcbMayBeAWordAListOrAnExplicitFloor) {
  const std::string text = policy_of("usz");
  const std::size_t at = text.find("tcb = {"), end = text.find('\n', at);
  const auto tcb = [&](const std::string& value) {
    std::string t = text;
    t.replace(at, end - at, "tcb = " + value);
    return attest::parse_policy(t, "p").value().aggregator;
  };
  EXPECT_EQ(tcb("\"up-to-date\"").tcb, (std::vector<std::string>{"up-to-date"}));
  EXPECT_FALSE(tcb("\"up-to-date\"").tcb_date);
  EXPECT_EQ(tcb("[\"up-to-date\", \"sw-hardening-needed\"]").tcb.size(), 2u);
  const attest::TeeRequirements floor = tcb("{ status = [\"out-of-date\"], date = 2026-01-01, advisories = [\"A\"] }");
  EXPECT_EQ(floor.tcb, (std::vector<std::string>{"out-of-date"}));
  EXPECT_EQ(base::text(*floor.tcb_date), "2026-01-01T00:00:00Z");
  EXPECT_EQ(floor.advisories, (std::vector<std::string>{"A"}));
}

TEST(Loader, APolicyIsItsTextByteForByte) {
  const std::string text = policy_of("charite");
  const auto policy = attest::parse_policy(text, "p").value();
  EXPECT_EQ(policy.text, text);
  EXPECT_EQ(policy.digest, base::sha256(base::view(text)));
  EXPECT_NE(attest::parse_policy(text + "\n", "p").value().digest, policy.digest);
  EXPECT_EQ(attest::parse_policy(std::string(300 * 1024, '#'), "p").error().text(), "p: larger than 262144 bytes");
}

TEST(Loader, AManifestHasEverySettingOfItsAlgorithm) {
  const attest::Manifest& m = good().charter.manifest;
  for (const char* name : {"rounds", "quorum", "local_epochs", "batch_size", "learning_rate", "weight_decay",
                           "server_learning_rate", "split"})
    EXPECT_EQ(m.settings.count(name), 1u) << name;
  EXPECT_EQ(m.settings.count("mu"), 0u);
  EXPECT_EQ(m.settings.at("server_learning_rate").otherwise, 1.0);
  EXPECT_EQ(m.witnesses.size(), 4u);
  EXPECT_EQ(m.witness_quorum(), 3u);  // floor((4 + 1) / 2) + 1
}

TEST(Loader, TheWitnessQuorumIsHalfOfWitnessesAndLiarsAndOneMore) {
  attest::Manifest m;
  const std::uint32_t quorums[][3] = {{1, 0, 1}, {2, 1, 2}, {3, 1, 3}, {4, 1, 3}, {5, 1, 4}, {7, 2, 5}};
  for (const auto& [n, b, q] : quorums) {
    m.witnesses.assign(n, "x");
    m.lying_witnesses = b;
    EXPECT_EQ(m.witness_quorum(), q) << n << " witnesses, " << b << " may lie";
  }
}

TEST(Settings, AreCompletedWithTheManifestsDefaultsAndRefusedOutsideItsRanges) {
  const attest::Manifest& m = good().charter.manifest;
  const attest::Settings s = attest::complete_settings(m, {{"rounds", 5}}).value();
  EXPECT_EQ(s.at("rounds"), 5);
  EXPECT_EQ(s.at("batch_size"), 16);
  EXPECT_EQ(s.size(), m.settings.size());
  const auto refused = attest::complete_settings(
      m, {{"round", 5}, {"local_epochs", 1.5}, {"learning_rate", 2}, {"split", std::nan("")}});
  ASSERT_FALSE(refused);
  EXPECT_EQ(
      refused.error().text(),
      "settings: learning_rate: wanted a number from 0.001 to 1, found 2; local_epochs: wanted an integer from 1 to "
      "10, found 1.5; "
      "round: no such setting of fedavg; did you mean rounds?; split: wanted an integer from 0 to 1000, found nan");
}

}  // namespace
}  // namespace cloister
