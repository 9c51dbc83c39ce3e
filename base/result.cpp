#include "base/result.hpp"

namespace cloister::base {

std::string_view name(Error::Kind kind) {
  switch (kind) {
    case Error::Kind::malformed: return "malformed";
    case Error::Kind::unsupported: return "unsupported";
    case Error::Kind::untrusted: return "untrusted";
    case Error::Kind::expired: return "expired";
    case Error::Kind::denied: return "denied";
    case Error::Kind::unavailable: return "unavailable";
  }
  return "unknown";
}

void throw_exception_from_error(const Error& e, const boost::source_location&) { throw Exception(e); }

}  // namespace cloister::base
