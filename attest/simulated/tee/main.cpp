// `cloister-simulated-tee`: a TEE for laptops. It holds the platform key, measures a guest and starts exactly what it
// measured.

#include <charconv>
#include <cstdio>
#include <cstring>
#include <signal.h>
#include <string_view>
#include <sys/prctl.h>
#include <unistd.h>

#include "attest/simulated/guest.hpp"
#include "attest/simulated/tee/process.hpp"
#include "base/file.hpp"

namespace {

using namespace cloister;
namespace simulated = attest::simulated;

enum Exit : int { done = 0, failed = 1, wrong_use = 2 };

constexpr const char* usage =
    "cloister-simulated-tee --platform DIR --guest PATH --host-data HEX [--document FILE|FD] [--memory BYTES]\n"
    "                       [--parent PID] [-- fixed arguments]\n"
    "    measures PATH with its arguments, starts exactly that copy, and attests it for as long as it runs;\n"
    "    exits with its status. --document: read from a file, or from an open descriptor when it is a number.\n"
    "    --parent: dies with that process, which must be the one that started it.\n"
    "cloister-simulated-tee identity --platform DIR\n"
    "    prints the platform's identity; makes its key and platform.toml when there are none\n"
    "cloister-simulated-tee measure --guest PATH [-- fixed arguments]\n"
    "    prints the measurement that evidence for this guest states\n";

struct Options {
  std::string mode = "run", platform, guest, host_data, document, memory, parent;
  std::vector<std::string> arguments;
};

Result<Options> read(int argc, char** argv) {
  Options out;
  int i = 1;
  if (i < argc && argv[i][0] != '-') out.mode = argv[i++];
  const std::pair<std::string_view, std::string*> known[] = {
      {"--platform", &out.platform}, {"--guest", &out.guest},   {"--host-data", &out.host_data},
      {"--document", &out.document}, {"--memory", &out.memory}, {"--parent", &out.parent}};
  for (; i < argc; ++i) {
    const std::string_view name = argv[i];
    if (name == "--") {
      out.arguments.assign(argv + i + 1, argv + argc);
      return out;
    }
    std::string* value = nullptr;
    for (const auto& [option, place] : known)
      if (name == option) value = place;
    if (value == nullptr) return base::malformed("arguments", "no such option: " + std::string(name));
    if (++i == argc) return base::malformed("arguments", std::string(name) + " wants a value");
    *value = argv[i];
  }
  return out;
}

template <class T>
Result<T> number(const std::string& text, std::string option) {
  T value{};
  const auto [end, e] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (e != std::errc{} || end != text.data() + text.size() || value < 0)
    return base::malformed(std::move(option), "wanted a whole number, found \"" + text + "\"");
  return value;
}

Result<void> die_with(const std::string& parent) {
  auto pid = number<pid_t>(parent, "--parent");
  if (!pid) return pid.error();
  if (::prctl(PR_SET_PDEATHSIG, SIGKILL) != 0)
    return base::unavailable("--parent", "cannot tie this process's life to its parent's");
  // It may have died before the line above; then somebody else is the parent now.
  if (::getppid() != *pid)
    return base::unavailable("--parent", "process " + parent + " is not, or no longer, this one's parent");
  return {};
}

Result<simulated::tee::GuestOptions> guest_options(const Options& options) {
  simulated::tee::GuestOptions out;
  out.path = options.guest;
  out.arguments = options.arguments;
  auto host_data = base::from_hex(options.host_data, "--host-data");
  if (!host_data) return host_data.error();
  if (host_data->size() != out.host_data.size()) return base::malformed("--host-data", "wanted 32 bytes in hex");
  out.host_data = base::array<32>(*host_data);
  if (!options.memory.empty()) {
    auto memory = number<std::uint64_t>(options.memory, "--memory");
    if (!memory) return memory.error();
    out.memory = *memory;
  }
  if (!options.document.empty()) {
    const bool descriptor = options.document.find_first_not_of("0123456789") == std::string::npos;
    auto document = base::read_file(descriptor ? "/proc/self/fd/" + options.document : options.document,
                                    simulated::guest_message_cap - 1024);
    if (!document) return document.error();
    out.document = std::move(*document);
  }
  return out;
}

Result<int> run(const Options& options) {
  if (options.mode == "measure") {
    auto measured = simulated::measure_file(options.guest, options.arguments);
    if (!measured) return measured.error();
    std::printf("%s\n", base::hex(*measured).c_str());
    return done;
  }
  if (options.mode == "identity") {
    auto platform = simulated::Platform::create(options.platform);
    if (!platform) return platform.error();
    std::printf("%s\n", platform->identity().c_str());
    return done;
  }
  if (!options.parent.empty())
    if (auto tied = die_with(options.parent); !tied) return tied.error();
  auto guest = guest_options(options);
  if (!guest) return guest.error();
#ifndef __SANITIZE_ADDRESS__  // the leak check at exit traces its own process
  if (::prctl(PR_SET_DUMPABLE, 0) != 0)
    return base::unavailable("simulated TEE", "cannot hide the platform key's memory");
#endif
  auto platform = simulated::Platform::load(options.platform);
  if (!platform) return platform.error();
  return simulated::tee::run(*platform, *guest);
}

bool complete(const Options& o) {
  if (o.mode == "measure") return !o.guest.empty();
  if (o.mode == "identity") return !o.platform.empty();
  return o.mode == "run" && !o.platform.empty() && !o.guest.empty() && !o.host_data.empty();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1 && (std::strcmp(argv[1], "--help") == 0 || std::strcmp(argv[1], "-h") == 0)) {
    std::fputs(usage, stdout);
    return done;
  }
  const auto options = read(argc, argv);
  if (!options || !complete(*options)) {
    if (!options) std::fprintf(stderr, "cloister-simulated-tee: %s\n", options.error().text().c_str());
    std::fputs(usage, stderr);
    return wrong_use;
  }
  const auto status = run(*options);
  if (!status) std::fprintf(stderr, "cloister-simulated-tee: %s\n", status.error().text().c_str());
  return status ? *status : failed;
}
