#include "coordinator/config.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/file.hpp"
#include "tests/coordinator/support.hpp"

namespace cloister::coordinator {
namespace {

using testing::HasSubstr;

struct Configured : testing::Test {
  tests::Temporary folder;
  Bytes model = {1, 2, 3};
  tests::Study study{tests::StudyOptions{.initial_model = base::sha256(Bytes{1, 2, 3})}};
  std::string toml = R"(
database = "data"
log = "coordinator.log"
instance_idle = "5m"
[keys]
tls = "tls.key"
order = "order.key"
[[study]]
charter = "cardiac.charter"
policy = "acme.policy.toml"
initial_model = "initial.model"
)";

  Configured() {
    put("tls.key", base::view(study.keys("acme").tls.pem()), 0600);
    put("order.key", base::view(study.keys("acme").order->pem()), 0600);
    put("cardiac.charter", study.charter.serialize());
    put("acme.policy.toml", base::view(study.policy("acme").text));
    put("initial.model", model);
  }
  void put(const std::string& name, View bytes, unsigned mode = 0644) {
    base::write_file(folder / name, bytes, mode).value();
  }
  Result<Configuration> load() {
    put("coordinator.toml", base::view(toml));
    return load_configuration(folder / "coordinator.toml", study.at);
  }
  void edit(const std::string& from, const std::string& to) { toml.replace(toml.find(from), from.size(), to); }
  void expect_refused(const std::string& text) {
    const auto loaded = load();
    ASSERT_FALSE(loaded);
    EXPECT_THAT(loaded.error().text(), HasSubstr(text));
  }
};

TEST_F(Configured, ACompleteFileIsRead) {
  const auto loaded = load();
  ASSERT_TRUE(loaded) << loaded.error().text();
  EXPECT_EQ(loaded->port, study.charter.manifest.model_owner().port);
  EXPECT_EQ(loaded->host, study.charter.manifest.model_owner().host);
  EXPECT_EQ(loaded->database, folder / "data");
  EXPECT_EQ(loaded->instance_idle, std::chrono::minutes(5));
  EXPECT_EQ(loaded->studies.front().model_length, 3u);
}

TEST_F(Configured, ListenOverridesTheManifestsHost) {
  toml = "listen = \"0.0.0.0\"\n" + toml;
  EXPECT_EQ(load()->host, "0.0.0.0");
}

TEST_F(Configured, AnUnknownKeyIsNamedWithTheNearest) {
  edit("instance_idle", "instance_idel");
  expect_refused("did you mean instance_idle");
}

TEST_F(Configured, WithoutAStudyThereIsNothingToCoordinate) {
  toml.resize(toml.find("[[study]]"));
  expect_refused("wanted at least one [[study]]");
}

TEST_F(Configured, AnotherInitialModelIsRefusedWithBothDigests) {
  put("initial.model", Bytes{9});
  expect_refused("wanted the initial model " + base::digest_text(base::sha256(model)));
  expect_refused(base::digest_text(base::sha256(Bytes{9})));
}

TEST_F(Configured, AnEditedPolicyIsRefused) {
  put("acme.policy.toml", base::view(study.policy("acme").text + "\n# but"));
  expect_refused("a changed policy needs a new charter");
}

TEST_F(Configured, AnotherTlsKeyIsRefused) {
  put("tls.key", base::view(base::PrivateKey::generate().pem()), 0600);
  expect_refused("wanted the model owner's TLS key " + study.keys("acme").tls.public_key().text());
}

TEST_F(Configured, AnotherOrderKeyIsRefused) {
  put("order.key", base::view(base::PrivateKey::generate().pem()), 0600);
  expect_refused("wanted the model owner's order key " + study.keys("acme").order->public_key().text());
}

TEST_F(Configured, AnUnsignedCharterIsRefusedWithWhoHasYetToSign) {
  attest::Charter draft = study.charter;
  std::erase_if(draft.signatures, [](const auto& s) { return s.owner == "usz"; });
  put("cardiac.charter", draft.serialize());
  const auto loaded = load();
  ASSERT_FALSE(loaded);
  EXPECT_EQ(loaded.error().kind, Error::Kind::denied);
  EXPECT_THAT(loaded.error().text(), HasSubstr("usz"));
}

TEST_F(Configured, RecordsStayReadableAfterTheCharterIsOver) {
  put("coordinator.toml", base::view(toml));
  const auto loaded = load_configuration(folder / "coordinator.toml", study.charter.not_after + std::chrono::hours(24));
  EXPECT_TRUE(loaded) << loaded.error().text();
}

}  // namespace
}  // namespace cloister::coordinator
