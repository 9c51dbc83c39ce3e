// cloister-bench-enclave [MEGABYTES [SLOTS]]: the aggregator's stripped size, and one train round of four hospitals
// over loopback TLS, models down and updates up, with everybody in this process. One JSON object on stdout.

#include <cstdlib>
#include <filesystem>
#include <fmt/format.h>
#include <iostream>
#include <sys/resource.h>

#include "tests/aggregation/enclave/cohort.hpp"

namespace cloister::tests {
namespace {

double stripped_megabytes() {
  const std::string stripped =
      (std::filesystem::temp_directory_path() / fmt::format("cloister-stripped-{}", ::getpid())).string();
  const std::string command =
      fmt::format("'{}' -o '{}' '{}/bin/cloister-aggregator'", CLOISTER_STRIP, stripped, CLOISTER_BINARY_DIR);
  if (std::system(command.c_str()) != 0) throw std::runtime_error("cannot strip cloister-aggregator; build it first");
  const double size = static_cast<double>(std::filesystem::file_size(stripped)) / 1e6;
  std::filesystem::remove(stripped);
  return size;
}

void print_round(double size, std::size_t megabytes, std::size_t slots) {
  const std::size_t width = 250'000;  // one megabyte of float32 a row
  World world({.round_deadline = "10m",
               .slots = slots,
               .width = width,
               .rows = megabytes,
               .patience = std::chrono::minutes(10)});
  Cohort cohort(world);
  ScriptedCoordinator coordinator(world);
  world.run(whole_run(world, cohort, coordinator, world.study->run_order(rounds_of(1))));
  std::uint64_t milliseconds = 0, in = 0, out = 0;
  for (const auto& s : coordinator.statuses)
    if (s.task() == "train")
      milliseconds = s.milliseconds(), in = std::max(in, s.bytes_in()), out = std::max(out, s.bytes_out());
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  std::cout << fmt::format(
      R"({{"stripped_aggregator_mb":{:.2f},"model_mb":{},"slots":{},"seconds":{:.3f},"mb_in":{},"mb_out":{},)"
      R"("outcome":"{}","peak_rss_of_everybody_mb":{}}})"
      "\n",
      size, megabytes, slots, static_cast<double>(milliseconds) / 1e3, in / 1'000'000, out / 1'000'000,
      coordinator.end->outcome(), usage.ru_maxrss / 1000);
}

}  // namespace
}  // namespace cloister::tests

int main(int argc, char** argv) {
  try {
    cloister::tests::print_round(cloister::tests::stripped_megabytes(),
                                 argc > 1 ? std::strtoul(argv[1], nullptr, 10) : 10,
                                 argc > 2 ? std::strtoul(argv[2], nullptr, 10) : 4);
  } catch (const std::exception& e) {
    std::cerr << e.what() << "\n";
    return 1;
  }
}
