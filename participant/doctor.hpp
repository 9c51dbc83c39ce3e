#pragma once
// `cloister participant doctor`: everything that a node will need, tried without joining anything. Each line says that
// it is well, or what is wrong and what would fix it; of the data never a value.

#include <boost/asio/awaitable.hpp>
#include <string>
#include <vector>

#include "participant/config.hpp"

namespace cloister::participant {

struct Check {
  enum class Grade { ok, warning, wrong } grade = Grade::ok;
  std::string name;  ///< "charter", "data"
  std::string found;
  std::string remedy;  ///< empty when ok
};

struct Diagnosis {
  std::vector<Check> checks;
  bool healthy() const;      ///< nothing is wrong; warnings may be there
  std::string text() const;  ///< a line per check
  std::string json() const;
};

/// What needs no network. `config_file` may be missing or broken: that is a finding too.
Diagnosis examine(const std::string& config_file, std::string tee_platform, Time at);
/// Adds whether the aggregator's address, through the proxy if there is one, answers. Nobody listens there between
/// runs: a warning.
boost::asio::awaitable<void> examine_network(const std::string& config_file, Diagnosis& diagnosis, Time at);

}  // namespace cloister::participant
