#include "participant/sandbox.hpp"

#include <arpa/inet.h>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <gmock/gmock.h>
#include <grp.h>
#include <gtest/gtest.h>
#include <map>
#include <netinet/in.h>
#include <signal.h>
#include <sstream>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.hpp"
#include "tests/participant/temporary.hpp"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SKIP_UNDER_SANITIZERS() GTEST_SKIP() << "a sanitizer reserves more address space than any limit allows"
#else
#define SKIP_UNDER_SANITIZERS() (void)0
#endif

namespace cloister::participant {
namespace {

using std::chrono::seconds;
using ::testing::AnyOf;
using ::testing::HasSubstr;

// A server that would answer, so that a refused connection is the sandbox's doing.
struct Listener {
  int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  int port = 0;
  Listener() {
    sockaddr_in at = {};
    at.sin_family = AF_INET;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof at;
    if (::bind(fd, reinterpret_cast<sockaddr*>(&at), sizeof at) == 0 && ::listen(fd, 4) == 0 &&
        ::getsockname(fd, reinterpret_cast<sockaddr*>(&at), &size) == 0)
      port = ntohs(at.sin_port);
  }
  ~Listener() { ::close(fd); }
};

struct Outcome {
  std::map<std::string, std::string> said;
  std::vector<Guarantee> guarantees;
  std::string end, error;
};

struct SandboxTest : ::testing::Test {
  Temporary folder;
  std::string probe = folder / "a probe";  // a copy: any user must be able to reach it
  SandboxOptions options;
  Listener listener;

  void SetUp() override {
    std::filesystem::permissions(folder.path(), std::filesystem::perms(0755));
    std::filesystem::copy_file(CLOISTER_BINARY_DIR "/tests/participant/participant_probe", probe);
    std::filesystem::permissions(probe, std::filesystem::perms(0755));
    options.program = probe;
    options.digest = base::sha256(*base::read_file(probe, 1 << 26));
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    options.limits.memory = 0;
#endif
    std::ofstream(folder / "key.pem") << "secret";
    std::filesystem::permissions(folder / "key.pem", std::filesystem::perms(0600));
    std::ofstream(folder / "data.csv") << "63,1,1";
    std::filesystem::permissions(folder / "data.csv", std::filesystem::perms(0666));  // only the sandbox protects it
  }

  // Runs the probe to its end; the data is descriptor 4.
  Outcome run(std::vector<std::string> attempts) {
    options.arguments = std::move(attempts);
    int answers[2];
    if (::pipe2(answers, O_CLOEXEC) != 0) return {};
    const int data = ::open((folder / "data.csv").c_str(), O_RDONLY | O_CLOEXEC);
    options.descriptors = {{answers[1], 3}, {data, 4}};
    auto child = SandboxedChild::start(options);
    ::close(answers[1]);
    ::close(data);
    Outcome out;
    std::string text;
    char piece[4096];
    for (ssize_t n = 0; child && (n = ::read(answers[0], piece, sizeof piece)) > 0;)
      text.append(piece, static_cast<std::size_t>(n));
    ::close(answers[0]);
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);)
      out.said[line.substr(0, line.find('='))] = line.substr(line.find('=') + 1);
    if (child) {
      out.guarantees = child->guarantees();
      out.end = child->wait(seconds(10));
    } else {
      out.error = child.error().text();
    }
    return out;
  }

  std::vector<std::string> everything() {
    return {"connect:" + std::to_string(listener.port),
            "socket-unix",
            "read:" + (folder / "key.pem"),
            "write:" + (folder / "data.csv"),
            "write-data",
            "reopen-data",
            "create:" + (folder / "new"),
            "ptrace:" + std::to_string(::getpid()),
            "kill:" + std::to_string(::getpid()),
            "descriptors",
            "environment",
            "given:4",
            "chmod:" + (folder / "data.csv")};
  }

  static void expect_nothing_possible(const Outcome& out) {
    ASSERT_EQ(out.error, "");
    EXPECT_EQ(out.end, "exited with status 0");
    for (const char* forbidden : {"connect", "socket-unix", "read", "write", "write-data", "reopen-data", "create",
                                  "ptrace", "kill", "chmod"}) {
      ASSERT_TRUE(out.said.contains(forbidden)) << forbidden;
      EXPECT_NE(out.said.at(forbidden), "ok") << forbidden << " with " << summary(out.guarantees);
    }
    EXPECT_EQ(out.said.at("descriptors"), "0,1,2,3,4");
    EXPECT_EQ(out.said.at("environment"), "empty");
    EXPECT_EQ(out.said.at("given"), "63,1,1");
  }

  // The same in a process of an unprivileged user, as most hospitals run it. Gives what the probe said.
  Outcome run_unprivileged(std::vector<std::string> attempts) {
    if (::geteuid() != 0) return run(std::move(attempts));
    std::filesystem::permissions(folder / "key.pem",
                                 std::filesystem::perms(0644));  // same user as the node: only the sandbox hides it
    int result[2];
    if (::pipe2(result, O_CLOEXEC) != 0) return {};
    const pid_t pid = ::fork();
    if (pid == 0) {
      if (::setgroups(0, nullptr) != 0 || ::setresgid(4242, 4242, 4242) != 0 || ::setresuid(4242, 4242, 4242) != 0)
        ::_exit(1);
      const Outcome out = run(std::move(attempts));
      std::string text = "end=" + out.end + "\nerror=" + out.error + "\n";
      for (const auto& [name, value] : out.said) text += name + "=" + value + "\n";
      for (const Guarantee& g : out.guarantees)
        text += "guarantee " + g.name + "=" + (g.held() ? "held" : g.missing) + "\n";
      ::_exit(::write(result[1], text.data(), text.size()) < 0);
    }
    ::close(result[1]);
    Outcome out;
    std::string text;
    char piece[4096];
    for (ssize_t n = 0; (n = ::read(result[0], piece, sizeof piece)) > 0;)
      text.append(piece, static_cast<std::size_t>(n));
    ::close(result[0]);
    int status = 0;
    ::waitpid(pid, &status, 0);
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);)
      out.said[line.substr(0, line.find('='))] = line.substr(line.find('=') + 1);
    out.end = out.said["end"];
    out.error = out.said["error"];
    return out;
  }
};

TEST_F(SandboxTest, TheChildCanDoNothingButReadWhatItWasGiven) {
  const Outcome out = run(everything());
  expect_nothing_possible(out);
  for (const Guarantee& g : out.guarantees) EXPECT_TRUE(g.held()) << g.name << ": " << g.missing;
}

TEST_F(SandboxTest, TheSameHoldsForAnUnprivilegedUser) {
  expect_nothing_possible(run_unprivileged(everything()));
}

TEST_F(SandboxTest, SeccompAndLandlockAloneHoldWhereNamespacesAreRefused) {
  options.leave_out = Layer::namespaces;
  const Outcome out = run(everything());
  for (const Guarantee& g : out.guarantees)
    if (!g.held()) GTEST_SKIP() << "this kernel does not offer enough: " << g.name << ": " << g.missing;
  expect_nothing_possible(out);
  expect_nothing_possible(run_unprivileged(everything()));
}

TEST_F(SandboxTest, NamespacesAloneTakeNetworkKeysAndOtherProcessesAway) {
  options.leave_out = Layer::seccomp | Layer::landlock | Layer::other_user;
  const Outcome out = run(everything());
  for (const Guarantee& g : out.guarantees)
    if (!g.held()) GTEST_SKIP() << "this machine refuses namespaces: " << g.name << ": " << g.missing;
  for (const char* forbidden : {"connect", "read", "write", "write-data", "reopen-data", "create", "chmod", "ptrace"})
    EXPECT_NE(out.said.at(forbidden), "ok") << forbidden;
}

TEST_F(SandboxTest, WhatIsMissingIsSaidAndRefusedWhenIsolationIsRequired) {
  options.leave_out = Layer::namespaces | Layer::seccomp | Layer::landlock | Layer::other_user;
  const Outcome said = run({"exit:0"});
  ASSERT_EQ(said.error, "");
  EXPECT_THAT(summary(said.guarantees), HasSubstr("NOT no network"));
  EXPECT_THAT(summary(said.guarantees), HasSubstr("NOT no keys"));
  options.required = true;
  const Outcome refused = run({"exit:0"});
  EXPECT_THAT(
      refused.error,
      HasSubstr("trainer.isolation: wanted \"required\", found \"no network\" without anything that sees to it"));
  EXPECT_TRUE(refused.said.empty()) << "nothing may have run";
}

TEST_F(SandboxTest, RequiredIsolationStartsWhereEveryGuaranteeHolds) {
  options.required = true;
  const Outcome out = run({"user"});
  if (out.error.find("trainer.isolation") != std::string::npos) GTEST_SKIP() << out.error;
  EXPECT_EQ(out.end, "exited with status 0");
}

TEST_F(SandboxTest, TheViewHoldsTheProgramItsLibrariesAndNoProcesses) {
  options.readable = {folder.path() + "/data.csv"};
  const Outcome out = run({"list:/", "read:/proc/self/status", "read:" + (folder / "data.csv"), "folder"});
  if (out.guarantees.at(1).by.front() != "private view") GTEST_SKIP() << summary(out.guarantees);
  EXPECT_THAT(out.said.at("list"), ::testing::Not(HasSubstr("etc")));
  EXPECT_EQ(out.said.at("folder"), "/");
  EXPECT_EQ(out.said.at("read"), "ok") << "what was named as readable is there";
}

TEST_F(SandboxTest, RootIsNotRootInside) {
  if (::geteuid() != 0) GTEST_SKIP() << "runs unprivileged";
  EXPECT_EQ(run({"user"}).said.at("user"), "65534");
}

TEST_F(SandboxTest, MemoryBeyondTheLimitIsRefused) {
  SKIP_UNDER_SANITIZERS();
  options.limits.memory = 256 << 20;
  const Outcome out = run({"allocate:512"});
  EXPECT_EQ(out.said.at("allocate"), "Cannot allocate memory");
  EXPECT_EQ(run({"allocate:64"}).said.at("allocate"), "ok");
}

TEST_F(SandboxTest, ProcessorTimeBeyondTheLimitEndsIt) {
  options.limits.cpu = seconds(1);
  const Outcome out = run({"spin"});
  EXPECT_THAT(out.end, HasSubstr("was killed by signal"));
  EXPECT_THAT(out.end, HasSubstr("processor time"));
}

TEST_F(SandboxTest, ProcessesBeyondTheLimitAreRefusedAndAllOfThemEndWithIt) {
  options.limits.processes = 20;
  const Outcome out = run({"flood"});
  EXPECT_EQ(out.said.at("flood"), "Resource temporarily unavailable");
  EXPECT_EQ(out.end, "exited with status 0");
}

TEST_F(SandboxTest, StandardErrorIsCappedAndKeptForThisUserOnly) {
  options.error_file = folder / "trainer.stderr";
  EXPECT_EQ(run({"stderr:a diagnosis"}).end, "exited with status 0");
  EXPECT_EQ(base::text(*base::read_file(options.error_file, 1000)), "a diagnosis\n");
  EXPECT_EQ(std::filesystem::status(options.error_file).permissions(), std::filesystem::perms(0600));
}

TEST_F(SandboxTest, AProgramWithOtherBytesIsNotStarted) {
  std::ofstream(probe, std::ios::app) << "x";
  const Outcome out = run({"exit:0"});
  EXPECT_THAT(out.error, HasSubstr("wanted the program with " + base::digest_text(options.digest)));
  EXPECT_THAT(out.error, HasSubstr("install the trainer that the charter names"));
}

TEST_F(SandboxTest, AMissingOrForeignProgramIsNamed) {
  options.program = folder / "nothing";
  EXPECT_THAT(run({}).error, HasSubstr("No such file"));
  options.program = folder / "data.csv";
  options.digest = base::sha256(base::view("63,1,1"));
  EXPECT_THAT(run({}).error, HasSubstr("wanted a 64-bit ELF program or a script"));
}

TEST_F(SandboxTest, AScriptRunsWithItsInterpreter) {
  const std::string script = folder / "script";
  std::ofstream(script) << "#!/bin/sh\necho shell=ok >&3\n";
  options.program = script;
  options.digest = base::sha256(*base::read_file(script, 1000));
  const Outcome out = run({});
  if (out.error.find("needs the private view") != std::string::npos) GTEST_SKIP() << out.error;
  EXPECT_EQ(out.error, "");
  EXPECT_EQ(out.said.at("shell"), "ok");
}

TEST_F(SandboxTest, HowItEndedIsSaid) {
  EXPECT_EQ(run({"exit:7"}).end, "exited with status 7");
  EXPECT_THAT(run({"abort"}).end, HasSubstr("was killed by signal 6 (Aborted"));
}

TEST_F(SandboxTest, ItEndsWithItsOwner) {
  options.arguments = {"hang"};
  int answers[2];
  ASSERT_EQ(::pipe2(answers, O_CLOEXEC), 0);
  options.descriptors = {{answers[1], 3}};
  {
    auto child = SandboxedChild::start(options);
    ASSERT_TRUE(child) << child.error().text();
    ::close(answers[1]);
    char piece[64];
    ASSERT_GT(::read(answers[0], piece, sizeof piece), 0) << "it runs";
    EXPECT_EQ(child->wait(std::chrono::milliseconds(1)), "still runs");
  }
  char piece[64];
  EXPECT_EQ(::read(answers[0], piece, sizeof piece), 0) << "its end of the pipe is closed: it is gone";
  ::close(answers[0]);
}

}  // namespace
}  // namespace cloister::participant
