#pragma once
#include <cstdlib>
#include <filesystem>
#include <string>

#include "attest/simulated/platform.hpp"

namespace cloister::attest::simulated {

inline constexpr Time noon = std::chrono::sys_days(std::chrono::year(2026) / 12 / 1) + std::chrono::hours(12);

inline Platform a_platform(PlatformFacts facts = {}) {
  return Platform(base::PrivateKey::generate(), std::move(facts));
}

/// A folder that goes with its object.
class Folder {
 public:
  Folder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "cloister-XXXXXX").string();
    path_ = ::mkdtemp(pattern.data());
  }
  ~Folder() {
    std::error_code e;
    std::filesystem::remove_all(path_, e);
  }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

}  // namespace cloister::attest::simulated
