// What a process with secrets asks of the kernel, seen from a child that asked.

#include "base/process.hpp"

#include <gtest/gtest.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

namespace cloister::base {
namespace {

int status_of_child(int (*work)()) {
  const pid_t pid = ::fork();
  if (pid == 0) ::_exit(work());
  int status = -1;
  ::waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

int forbid_and_look() {
  if (!forbid_core_dumps()) return 1;
  rlimit limit = {7, 7};
  if (::getrlimit(RLIMIT_CORE, &limit) != 0 || limit.rlim_cur != 0 || limit.rlim_max != 0) return 2;
#ifndef __SANITIZE_ADDRESS__  // its leak check traces its own process
  if (::prctl(PR_GET_DUMPABLE) != 0) return 3;
#endif
  return 0;
}

TEST(Process, AfterForbiddingDumpsNeitherAFileNorAHandlerGetsItsMemory) {
  ASSERT_EQ(::prctl(PR_GET_DUMPABLE), 1) << "this test must begin as a process that can be dumped";
  EXPECT_EQ(status_of_child(forbid_and_look), 0);
}

TEST(Process, WhoeverAskedOnceMayAskAgain) {
  EXPECT_EQ(status_of_child([] { return forbid_core_dumps() && forbid_core_dumps() ? 0 : 1; }), 0);
}

}  // namespace
}  // namespace cloister::base
