// The simulated TEE as a process, with a guest of our own. Every wait is a read that ends when the other process does.

#include <algorithm>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <iterator>
#include <signal.h>
#include <spawn.h>
#include <sstream>
#include <sys/wait.h>
#include <unistd.h>

#include "attest/evidence.hpp"
#include "attest/simulated/guest.hpp"
#include "base/file.hpp"
#include "tests/attest/simulated/platform_fixture.hpp"

extern char** environ;

namespace cloister::attest::simulated {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

/// A process whose standard output and error are read through one pipe.
class Process {
 public:
  explicit Process(std::vector<std::string> command) {
    int out[2];
    EXPECT_EQ(::pipe2(out, O_CLOEXEC), 0);
    posix_spawn_file_actions_t files;
    ::posix_spawn_file_actions_init(&files);
    ::posix_spawn_file_actions_adddup2(&files, out[1], 1);
    ::posix_spawn_file_actions_adddup2(&files, out[1], 2);
    std::vector<char*> argv;
    for (std::string& word : command) argv.push_back(word.data());
    argv.push_back(nullptr);
    EXPECT_EQ(::posix_spawn(&pid_, argv[0], &files, nullptr, argv.data(), environ), 0);
    ::posix_spawn_file_actions_destroy(&files);
    ::close(out[1]);
    out_ = ::fdopen(out[0], "r");
  }
  Process(const Process&) = delete;
  ~Process() {
    std::fclose(out_);
    if (pid_ > 0) ::kill(pid_, SIGKILL), status();
  }

  pid_t pid() const { return pid_; }
  /// Empty at the end of its output.
  std::string line() {
    std::string out;
    for (int c; (c = std::fgetc(out_)) != EOF && c != '\n';) out.push_back(static_cast<char>(c));
    return out;
  }
  std::vector<std::string> lines() {
    std::vector<std::string> out;
    for (std::string l; !(l = line()).empty();) out.push_back(l);
    return out;
  }
  int status() {
    int s = 0;
    EXPECT_EQ(::waitpid(std::exchange(pid_, -1), &s, 0) > 0, true);
    return WIFEXITED(s) ? WEXITSTATUS(s) : 128 + WTERMSIG(s);
  }

 private:
  pid_t pid_ = -1;
  FILE* out_ = nullptr;
};

class SimulatedTeeProcess : public ::testing::Test {
 protected:
  void SetUp() override {
    auto made = Platform::create(folder_ / "platform");
    ASSERT_TRUE(made) << made.error().text();
    identity_ = made->identity();
    ASSERT_TRUE(base::write_file(folder_ / "document", base::view("the launch document")));
  }

  std::vector<std::string> command(std::vector<std::string> arguments, std::vector<std::string> options = {},
                                   std::string guest = GUEST) const {
    std::vector<std::string> out{
        TEE,           "--platform",         folder_ / "platform", "--guest",           std::move(guest),
        "--host-data", std::string(64, '4'), "--document",         folder_ / "document"};
    out.insert(out.end(), options.begin(), options.end());
    out.emplace_back("--");
    out.insert(out.end(), arguments.begin(), arguments.end());
    return out;
  }

  static Claims claims(const std::string& hex) {
    const auto out = verify_evidence(base::from_hex(hex, "evidence").value(), base::now());
    EXPECT_TRUE(out) << out.error().text();
    return out.value();
  }

  Folder folder_;
  std::string identity_;
};

TEST_F(SimulatedTeeProcess, AGuestThatAsksForAnotherMeasurementGetsItsOwn) {
  Process tee(command({"report"}));
  const auto lines = tee.lines();
  ASSERT_EQ(lines.size(), 3u) << ::testing::PrintToString(lines);
  EXPECT_EQ(lines[0], "the launch document");
  for (const std::string& hex : {lines[1], lines[2]}) {
    const Claims c = claims(hex);
    EXPECT_EQ(base::hex(c.measurement), base::hex(measure_file(GUEST, {"report"}).value()));
    EXPECT_EQ(base::hex(c.host_data), std::string(64, '4'));
    EXPECT_EQ(base::copy(c.report_data), Bytes(64, 0x5a));
    EXPECT_EQ(c.platform_text(), identity_);
  }
  EXPECT_EQ(tee.status(), 0);
}

TEST_F(SimulatedTeeProcess, ACopyPatchedByOneByteHasAnotherMeasurement) {
  Bytes program = base::read_file(GUEST, guest_cap).value();
  program.push_back(0);  // one byte behind the last section: it runs as before
  ASSERT_TRUE(base::write_file(folder_ / "patched", program, 0700));
  Process tee(command({"report"}, {}, folder_ / "patched"));
  const auto lines = tee.lines();
  ASSERT_EQ(lines.size(), 3u) << ::testing::PrintToString(lines);
  EXPECT_NE(base::hex(claims(lines[1]).measurement), base::hex(measure_file(GUEST, {"report"}).value()));
  EXPECT_EQ(base::hex(claims(lines[1]).measurement), base::hex(measure(program, {"report"})));
}

TEST_F(SimulatedTeeProcess, OtherArgumentsAreAnotherMeasurement) {
  Process tee(command({"report", "more"}));
  const auto lines = tee.lines();
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_NE(base::hex(claims(lines[1]).measurement), base::hex(measure_file(GUEST, {"report"}).value()));
}

TEST_F(SimulatedTeeProcess, TheMeasureModePrintsWhatEvidenceStates) {
  Process measured({TEE, "measure", "--guest", GUEST, "--", "report"});
  EXPECT_EQ(measured.line(), base::hex(measure_file(GUEST, {"report"}).value()));
  Process identity({TEE, "identity", "--platform", folder_ / "platform"});
  EXPECT_EQ(identity.line(), identity_);
}

TEST_F(SimulatedTeeProcess, TheGuestsEnvironmentIsEmpty) {
  ASSERT_EQ(::setenv("CLOISTER_TEST_VARIABLE", "leaks", 1), 0);
  Process tee(command({"environment"}));
  EXPECT_EQ(tee.line(), "empty");
}

TEST_F(SimulatedTeeProcess, TheGuestHasNoDescriptorButItsFour) {
  const int open_file = ::open("/dev/null", O_RDONLY);  // inherited by the TEE: not close-on-exec
  ASSERT_EQ(::dup2(open_file, 57), 57);
  Process tee(command({"descriptors"}));
  std::istringstream line(tee.line());
  std::vector<int> found{std::istream_iterator<int>(line), {}};
  std::sort(found.begin(), found.end());
  EXPECT_THAT(found, ElementsAre(0, 1, 2, 3));
  ::close(57);
  ::close(open_file);
}

TEST_F(SimulatedTeeProcess, MalformedRequestsAreRefusedWithAReasonAndAnOversizedOneEndsTheLink) {
  Process tee(command({"malformed"}));
  EXPECT_THAT(
      tee.lines(),
      ElementsAre("error: request.name: needs 4 bytes at offset 0x0, 0 left",
                  "error: request.name: wanted \"document 1\" or \"evidence 1\", found \"measurement 1\"",
                  StartsWith("error: request.report_data: needs 64 bytes"), "error: request.end: 1 bytes are left over",
                  "error: request.end: 1 bytes are left over", "ok: the launch document",
                  "error: request: wanted at most 4096 bytes, found 5000", "the link is closed"));
  EXPECT_EQ(tee.status(), 0);
}

TEST_F(SimulatedTeeProcess, TheGuestsStatusIsPassedOn) {
  EXPECT_EQ(Process(command({"exit", "42"})).status(), 42);
  EXPECT_EQ(Process(command({"abort"})).status(), 128 + SIGKILL);
}

TEST_F(SimulatedTeeProcess, TheGuestsMemoryIsLimited) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "AddressSanitizer needs unlimited address space";
#endif
  EXPECT_EQ(Process(command({"allocate"}, {"--memory", std::to_string(256 << 20)})).line(), "refused");
  EXPECT_EQ(Process(command({"allocate"})).line(), "given");
}

TEST_F(SimulatedTeeProcess, TermReachesTheGuest) {
  Process tee(command({"wait"}));
  ASSERT_NE(tee.line(), "");
  ASSERT_EQ(::kill(tee.pid(), SIGTERM), 0);
  EXPECT_EQ(tee.status(), 128 + SIGTERM);
}

TEST_F(SimulatedTeeProcess, TheGuestDiesWithItsTee) {
  Process tee(command({"wait"}));
  ASSERT_NE(tee.line(), "");
  ASSERT_EQ(::kill(tee.pid(), SIGKILL), 0);
  EXPECT_EQ(tee.line(), "");  // the pipe ends when the last process that holds it is gone: the guest
}

TEST_F(SimulatedTeeProcess, TheTeeDiesWithItsParentWhenToldTo) {
  std::string inner;
  for (const std::string& word : command({"wait"}, {"--parent", "\"$$\""}))
    inner += (word[0] == '"' ? word : "'" + word + "'") + " ";
  Process parent({"/bin/sh", "-c", inner + "& wait"});
  ASSERT_NE(parent.line(), "");
  ASSERT_EQ(::kill(parent.pid(), SIGKILL), 0);
  EXPECT_EQ(parent.line(), "");  // TEE and guest are gone
}

TEST_F(SimulatedTeeProcess, AParentThatIsNotItsOwnIsRefused) {
  Process tee(command({"wait"}, {"--parent", "1"}));
  EXPECT_THAT(tee.line(), HasSubstr("--parent: process 1 is not, or no longer, this one's parent"));
  EXPECT_EQ(tee.status(), 1);
}

TEST_F(SimulatedTeeProcess, AScriptIsRefusedSinceItsInterpreterWouldNotBeMeasured) {
  ASSERT_TRUE(base::write_file(folder_ / "script", base::view("#!/bin/sh\necho hello\n"), 0700));
  Process tee(command({}, {}, folder_ / "script"));
  EXPECT_THAT(tee.line(), HasSubstr("wanted an ELF program, found another kind of file"));
  EXPECT_EQ(tee.status(), 1);
}

TEST_F(SimulatedTeeProcess, WrongUseIsSaid) {
  Process unknown({TEE, "--plattform", "x"});
  EXPECT_THAT(unknown.line(), HasSubstr("no such option: --plattform"));
  EXPECT_EQ(unknown.status(), 2);
  EXPECT_EQ(Process({TEE, "--guest", GUEST}).status(), 2);
}

TEST(SimulatedGuest, OutsideATeeThereIsNoGuest) {
  const int file = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  const auto guest = Guest::open(file);
  ASSERT_FALSE(guest);
  EXPECT_EQ(guest.error().kind, Error::Kind::unavailable);
  EXPECT_THAT(guest.error().text(), HasSubstr("start this program with cloister-simulated-tee"));
  ::close(file);
}

}  // namespace
}  // namespace cloister::attest::simulated
