#pragma once
// A simulated TEE as a child process of the launcher. It dies with the launcher, and its guest with it.

#include <string>
#include <sys/types.h>

#include "launcher/agent.hpp"

namespace cloister::launcher {

struct TeeSettings {
  std::string program;   ///< cloister-simulated-tee
  std::string platform;  ///< its folder
};

/// Not thread-safe; start it from a thread that lives as long as it shall (the kernel ties it to that thread).
class TeeProcess {
 public:
  /// `output`: the file that gets what TEE and guest print, appended. Errors: unavailable.
  static Result<TeeProcess> start(const TeeSettings& tee, const Launch& launch, const std::string& output);
  TeeProcess(TeeProcess&& other) noexcept;
  TeeProcess(const TeeProcess&) = delete;
  ~TeeProcess();  ///< kills what still runs

  int descriptor() const { return pidfd_; }  ///< readable once the process has ended; owned here
  void terminate();                          ///< SIGTERM, which the TEE passes on
  void kill();                               ///< SIGKILL to the TEE; its guest goes with it
  int reap();                                ///< waits; the exit status, or 128 + the signal. Once.

 private:
  TeeProcess(pid_t pid, int pidfd) : pid_(pid), pidfd_(pidfd) {}
  pid_t pid_;
  int pidfd_;
};

/// What `program identity --platform folder` prints: the platform's identity, made when there is none.
Result<std::string> platform_identity(const TeeSettings& tee);

}  // namespace cloister::launcher
