#pragma once
// How `cloister` ends.

#include <stdexcept>

namespace cloister::cli {

/// denied: a policy said no, and standard error has every reason.
enum Exit : int { done = 0, failed = 1, wrong_use = 2, denied = 3 };

/// Options that parse but cannot stand together or miss something; main() gives `wrong_use`.
class WrongUse : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace cloister::cli
