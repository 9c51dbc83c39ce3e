#include <filesystem>
#include <fstream>
#include <gmock/gmock.h>

#include "attest/simulated/measure.hpp"
#include "base/file.hpp"
#include "tests/aggregation/enclave/cohort.hpp"

// The real program under the real simulated TEE.

namespace cloister::tests {
namespace {

using testing::Contains;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

TEST(AggregatorProcess, RunsAStudyUnderTheSimulatedTee) {
  World world({.processes = true});
  Cohort cohort(world);
  ScriptedCoordinator coordinator(world);
  world.run(whole_run(world, cohort, coordinator, world.study->run_order(rounds_of(2))));
  EXPECT_EQ(coordinator.end->outcome(), "done") << coordinator.end->reason();
  EXPECT_EQ(base::hex(coordinator.model), base::hex(plain_model(cohort, 6, 2).serialize()));
  EXPECT_THAT(world.logged("\"listening\""), Contains(HasSubstr("\"simulated\":true")));
}

awaitable<void> until_ended(World& world) {
  while (!world.process->status()) {
    boost::asio::steady_timer tick(world.io, std::chrono::milliseconds(20));
    co_await tick.async_wait(boost::asio::use_awaitable);
  }
}

awaitable<void> launch_and_end(World& world) {
  co_await world.launch();
  messages::LaunchEnd end;
  end.set_reason("the study is over");
  co_await world.tell_as_launcher(messages::LAUNCH_END, end);
  co_await until_ended(world);
}

TEST(AggregatorProcess, ExitsCleanlyWhenItsLauncherEndsIt) {
  World world({.processes = true});
  world.run(launch_and_end(world));
  EXPECT_EQ(world.process->status(), 0);
  EXPECT_THAT(world.logged("\"ended\""), Contains(HasSubstr("the launcher ended it: the study is over")));
}

TEST(AggregatorProcess, SaysWhyItDoesNotStartWithoutATee) {
  const std::string out =
      (std::filesystem::temp_directory_path() / ("cloister-no-tee-" + std::to_string(::getpid()))).string();
  const int status =
      std::system(("env -i '" CLOISTER_BINARY_DIR "/bin/cloister-aggregator' >'" + out + "' 3<&-").c_str());
  std::ifstream file(out);
  const std::string log((std::istreambuf_iterator<char>(file)), {});
  std::filesystem::remove(out);
  EXPECT_EQ(WEXITSTATUS(status), 2);
  EXPECT_THAT(log, HasSubstr("no link to a TEE"));
}

}  // namespace
}  // namespace cloister::tests
