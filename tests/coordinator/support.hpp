#pragma once

#include <filesystem>
#include <stdexcept>
#include <stdlib.h>
#include <string>

#include "coordinator/store.hpp"
#include "coordinator/view.hpp"
#include "tests/support/study.hpp"

namespace cloister::tests {

/// A folder of this test's own, with a space in its name, gone at the end.
class Temporary {
 public:
  Temporary() {
    std::string name = (std::filesystem::temp_directory_path() / "cloister coordinator XXXXXX").string();
    if (!::mkdtemp(name.data())) throw std::runtime_error("no temporary folder");
    path_ = name;
  }
  ~Temporary() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Temporary(const Temporary&) = delete;
  Temporary& operator=(const Temporary&) = delete;
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

/// What Requests does with a submission that the rules allow.
inline Result<coordinator::Run> submit(coordinator::Store& store, const Study& study, attest::RunOrder order = {}) {
  if (order.submitter.empty()) order = study.run_order();
  order.charter = study.charter.digest;
  order.nonce = base::random_array<16>();
  order.submit(study.submitter);
  auto decide = [&](const coordinator::Usage& usage) -> Result<coordinator::NewRun> {
    order.number(usage.next_run, *study.keys("acme").order);
    return coordinator::NewRun{order, 3, "{\"rounds\":3}"};
  };
  return store.submit(study.charter.digest, order.submitter, base::sha256(order.submission()), decide,
                      coordinator::submitted_event, study.at);
}

}  // namespace cloister::tests
