#pragma once
// Whole files, durably. Errors carry the path and the system's reason.

#include <string>

#include "base/bytes.hpp"

namespace cloister::base {

/// At most `cap` bytes; a longer file is an error, not a cut.
Result<Bytes> read_file(const std::string& path, std::size_t cap);

/// Writes beside `path`, fsyncs, renames over it, fsyncs the folder: after a crash the old or the new content is there, whole.
Result<void> write_file(const std::string& path, View bytes, unsigned mode = 0644);

/// Makes the folder and its parents.
Result<void> make_folder(const std::string& path, unsigned mode = 0755);

}  // namespace cloister::base
