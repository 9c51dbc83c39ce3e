#pragma once
// What can fail says so in its type. Bytes, policies and configuration from outside give a Result; I/O in coroutines
// throws; a broken promise of our own is an assertion.

#include <boost/system/result.hpp>
#include <string>
#include <utility>

namespace cloister {
namespace base {

struct Error {
  enum class Kind {
    malformed,    ///< the bytes or the text do not follow their format
    unsupported,  ///< well formed, but of a version, kind or option that this build does not know
    untrusted,    ///< a signature, a chain, a digest or a binding does not hold
    expired,      ///< outside its period of validity
    denied,       ///< an owner's policy said no
    unavailable,  ///< not there now: a peer, a file, a resource
  };
  Kind kind = Kind::malformed;
  std::string where;  ///< file and line, field path, or peer
  std::string what;   ///< wanted, found, and what would fix it

  std::string text() const { return where.empty() ? what : where + ": " + what; }
};

std::string_view name(Error::Kind kind);

template <class T>
using Result = boost::system::result<T, Error>;

inline Error malformed(std::string where, std::string what) {
  return {Error::Kind::malformed, std::move(where), std::move(what)};
}
inline Error unsupported(std::string where, std::string what) {
  return {Error::Kind::unsupported, std::move(where), std::move(what)};
}
inline Error untrusted(std::string where, std::string what) {
  return {Error::Kind::untrusted, std::move(where), std::move(what)};
}
inline Error expired(std::string where, std::string what) {
  return {Error::Kind::expired, std::move(where), std::move(what)};
}
inline Error denied(std::string where, std::string what) {
  return {Error::Kind::denied, std::move(where), std::move(what)};
}
inline Error unavailable(std::string where, std::string what) {
  return {Error::Kind::unavailable, std::move(where), std::move(what)};
}

/// What coroutines and `value()` of a failed Result throw; `what()` is Error::text().
class Exception : public std::exception {
 public:
  explicit Exception(Error e) : error_(std::move(e)), text_(error_.text()) {}
  const char* what() const noexcept override { return text_.c_str(); }
  const Error& error() const noexcept { return error_; }

 private:
  Error error_;
  std::string text_;
};

[[noreturn]] void throw_exception_from_error(const Error& e, const boost::source_location&);

}  // namespace base
using base::Error;
using base::Exception;
using base::Result;
}  // namespace cloister
